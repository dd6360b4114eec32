"""Projects a model onto a mosaic, once (`project_`) or throughout training (`Projector`).

A projection replaces each block by its nearest motif, in place. Gradients, optimizer state and
weights that the config leaves out are not touched.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from momos.blocks import PIECE, Layout
from momos.config import MosaicConfig, check_whole
from momos.discovery import check_finite
from momos.mosaic import Mosaic
from momos.parameters import check_used
from momos.sharded import ShardedLayout, layout_of
from momos.shards import Ranks
from momos.vq import cpu
from momos.vq.flats import assign, rewrite_, take
from momos.vq.motifs import distinct_motifs, kmeans_motifs, sample_positions, with_zero
from momos.vq.nearest import has_kernels, searcher
from momos.vq.rows import Rows

Search = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Projection:
    """Result of a projection: the mosaic, ‖w − ŵ‖² in float64, and how many weights changed.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> config = momos.MosaicConfig(block_size=4, num_motifs=16)
        >>> projection = momos.project_(model, config)
        >>> projection.distortion > 0, projection.moved > 0
        (True, True)
    """

    mosaic: Mosaic
    distortion: float
    moved: int


def project_(
    model: nn.Module,
    config: MosaicConfig,
    *,
    motifs: Float[Tensor, "k s"] | None = None,
    generator: torch.Generator | None = None,
) -> Projection:
    """Makes `model` a mosaic, in place.

    Motifs are chosen from the current weights as `config` says, or given as `motifs`.
    Projecting again with the same motifs moves nothing. Without a `generator` the draw is that
    of `config.seed`.

    Every rank of a sharded or replicated model calls this, and gets its part of the mosaic that
    the whole model would have. The generator and the `motifs` of the first rank count.

    Raises:
        ValueError: if `config` has settings for learned motifs, no parameter is chosen, one is
            sharded by FullyShardedDataParallel, or so that a block would cross the columns of a
            shard, or is only what a weight is computed from (weight normalization, pruning), a
            weight is not finite (names the parameter), or `motifs` have another block size. The
            model is then unchanged, and of several ranks all raise the same error.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> config = momos.MosaicConfig(block_size=4, num_motifs=16)
        >>> projection = momos.project_(model, config)
        >>> momos.project_(model, config, motifs=projection.mosaic.motifs).moved
        0
    """
    check_projectable(config)
    ranks = Ranks.of(model)
    layout = layout_of(
        model,
        block_size=config.block_size,
        include=config.include,
        exclude=config.exclude,
        min_ndim=1 if config.min_ndim is None else config.min_ndim,
    )
    check_used(model, (place.name for place in layout.placements))
    if generator is None:
        generator = torch.Generator().manual_seed(config.seed)
    if motifs is not None and (motifs.ndim != 2 or motifs.shape[1] != config.block_size):
        raise ValueError(
            f"motifs must have shape (k, {config.block_size}), got {tuple(motifs.shape)}"
        )
    if not ranks.groups and not isinstance(layout, ShardedLayout):
        return _project_alone_(model, layout, config, motifs, generator)
    ranks.share_(generator)
    with ranks.together():
        if motifs is None:
            motifs = _choose(model, layout, config, generator)
        elif not motifs.is_meta:
            motifs = ranks.first(motifs.detach())
        projection = _projected(model, layout, config, motifs)
    projection.mosaic.write_(model)
    return projection


def _project_alone_(
    model: nn.Module,
    layout: Layout,
    config: MosaicConfig,
    motifs: Tensor | None,
    generator: torch.Generator,
) -> Projection:
    """The projection in one process: each pass is over all tensors at once."""
    tensors = [tensor for _, tensor in layout.tensors(model)]
    flats = [tensor.reshape(-1).resolve_neg().contiguous() for tensor in tensors]
    if motifs is None:
        motifs = _choose(model, layout, config, generator, flats)
    if not motifs.is_meta:  # the search refuses those
        motifs = motifs.detach().to(flats[0].device)
    try:
        found = assign(flats, motifs)
        _keep(flats, motifs, found.indices)
        _check_range(layout, motifs, found.indices)
        distortion, moved = rewrite_(flats, motifs, found)
    except ValueError:
        check_finite(layout, list(zip(layout.placements, flats, strict=True)))
        raise
    mosaic = Mosaic.checked(motifs, found.indices, layout, config)
    for tensor, flat in zip(tensors, flats, strict=True):
        if flat.data_ptr() != tensor.data_ptr():  # flat is a contiguous copy
            tensor.copy_(flat.view(tensor.shape))
    mosaic.remember_(model)
    return Projection(mosaic, distortion, moved)


def _projected(
    model: nn.Module, layout: Layout, config: MosaicConfig, motifs: Tensor
) -> Projection:
    """The projection of a spread model onto `motifs`, which is not written into it yet."""
    if not motifs.is_meta:  # the search refuses those
        motifs = motifs.to(next(layout.tensors(model))[1].device)
    edges = layout.edges(model)
    indices = _assign_spread(model, layout, motifs, edges)
    holding = Holding(motifs)
    for placement, flat in layout.flats(model, edges):
        holding.keep(flat, indices[placement.start : placement.stop])
    _check_range(layout, motifs, indices)
    mosaic = Mosaic(motifs, indices, layout, config=config)
    return Projection(mosaic, *_difference(model, mosaic))


class KeepsGenerator:
    """Base class of objects with a CPU `generator`, which survives pickling and copying.

    A `torch.Generator` itself cannot be sent to a spawned process.
    """

    generator: torch.Generator

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"generator": bytes(self.generator.get_state().tolist())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.generator = torch.Generator()
        self.generator.set_state(
            torch.tensor(list(state["generator"]), dtype=torch.uint8, device="cpu")
        )


class Projector(KeepsGenerator):
    """Projects a model at every `every`-th call of `step`, like a learning-rate scheduler.

    Call `step` after the optimizer's, once per epoch or per batch. A run resumed from
    `state_dict` draws the same motifs as one that was never interrupted.

    Raises:
        ValueError: if `config` has settings for learned motifs.

    Example:
        >>> model = nn.Linear(64, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> projector = momos.Projector(model, momos.MosaicConfig(block_size=2, capacity=0.05))
        >>> for epoch in range(3):
        ...     model(torch.randn(16, 64)).square().mean().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     projection = projector.step()
        >>> projection.mosaic.num_motifs
        16
    """

    def __init__(self, model: nn.Module, config: MosaicConfig, *, every: int = 1) -> None:
        check_whole("every", every, least=1)
        check_projectable(config)
        self.model = model
        self.config = config
        self.every = every
        self.steps = 0
        self.generator = torch.Generator().manual_seed(config.seed)

    def step(self) -> Projection | None:
        """Counts one step, and projects if it is due."""
        self.steps += 1
        return self.project() if self.steps % self.every == 0 else None

    def project(self) -> Projection:
        """Projects now, whatever the count."""
        return project_(self.model, self.config, generator=self.generator)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue as if never interrupted."""
        return {"steps": self.steps, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned."""
        self.steps = state["steps"]
        self.generator.set_state(state["generator"].cpu())


def steps_between(every: str | int) -> int | None:
    """Optimizer steps between two projections; None if it is the epochs that count.

    Raises:
        TypeError: if `every` is no int either.
        ValueError: if it is none of 'epoch', 'step' and the numbers from 1 on.
    """
    if every == "epoch":
        return None
    if every == "step":
        return 1
    if not isinstance(every, int):
        raise ValueError(f"every must be 'epoch', 'step' or an int, got {every!r}")
    check_whole("every", every, least=1)
    return every


def check_projectable(config: MosaicConfig) -> None:
    """Refuses settings that a projection, which only replaces weights, cannot honour.

    Raises:
        ValueError: if there are any; names them.
    """
    names = ("scales", "rate_weight", "bits", "dense_dtype", "groups")
    defaults = MosaicConfig.__dataclass_fields__
    found = [
        f"{name}={getattr(config, name)!r}"
        for name in names
        if getattr(config, name) != defaults[name].default
    ]
    if found:
        raise ValueError(
            f"{', '.join(names)} must be at their defaults for a projection, got "
            f"{', '.join(found)} (they are for learned motifs: momos.parametrize_ with "
            "learn='weights', then momos.freeze_, also without training in between)"
        )


def _choose(
    model: nn.Module,
    layout: Layout,
    config: MosaicConfig,
    generator: torch.Generator,
    flats: list[Tensor] | None = None,
) -> Tensor:
    """Motifs from the weights, which are whole in this process if they are given as `flats`."""
    num_motifs = config.motifs_for(layout.num_blocks)
    if config.selection == "sample":  # only the drawn blocks are read
        rows = sample_positions(
            layout.num_blocks, num_motifs - config.zero_motif, generator=generator
        )
        motifs = take(flats, rows, layout.block_size) if flats else None
        if motifs is None:
            motifs = layout.take(model, rows)
        # Elsewhere the search says so, which waits for the device only once.
        if not flats or motifs.device.type == "cpu":
            _check_finite(model, layout, motifs)
        return with_zero(motifs, config.zero_motif)
    blocks = layout.counted(layout.read(model))
    if not has_kernels(blocks.device):
        blocks = blocks.cpu()  # not all devices have float64
    _check_finite(model, layout, blocks)
    choose = distinct_motifs if config.selection == "distinct" else kmeans_motifs
    rows = Rows.of(blocks)
    if isinstance(layout, ShardedLayout):
        rows = Rows(blocks, layout.num_blocks, *layout.runs(), layout.ranks)
    return choose(rows, num_motifs, zero_motif=config.zero_motif, generator=generator)


def _assign_spread(
    model: nn.Module, layout: Layout, motifs: Tensor, edges: Tensor | None
) -> Tensor:
    search, wrong = searcher(motifs), None
    indices = torch.empty(layout.num_rows, dtype=torch.int32, device=motifs.device)
    try:
        for start, blocks in layout.pieces(model, edges):
            indices[start : start + len(blocks)] = search(blocks)
    except ValueError as error:
        wrong = error
    if layout.ranks.any(wrong is not None):
        check_finite(layout, list(layout.tensors(model)))
    if wrong is not None:
        raise wrong
    return indices


def _keep(flats: list[Tensor], motifs: Tensor, indices: Tensor) -> None:
    """Lets blocks keep a motif that they equal; padded blocks of one length together."""
    holding, start, size = Holding(motifs), 0, motifs.shape[1]
    short: dict[tuple[torch.dtype, int], tuple[list[Tensor], list[int]]] = {}
    for flat in flats:
        whole, rest = divmod(len(flat), size)
        holding.keep(flat[: whole * size], indices[start : start + whole])
        if rest:
            tails, places = short.setdefault((flat.dtype, rest), ([], []))
            tails.append(flat[whole * size :])
            places.append(start + whole)
        start += whole + (rest > 0)
    for tails, places in short.values():
        at = torch.tensor(places, device="cpu").to(indices.device)
        own = indices[at]
        holding.keep_equal(torch.stack(tails), own)
        indices[at] = own


class Holding:
    """Motifs as parameters can hold them, prepared once for each dtype and length."""

    def __init__(self, motifs: Float[Tensor, "k s"]) -> None:
        self.motifs = motifs
        self._searches: dict[tuple[torch.dtype, int], tuple[Tensor, Search]] = {}

    def keep(self, flat: Float[Tensor, " n"], indices: Int[Tensor, " b"]) -> None:
        """Lets blocks keep a motif that they equal, up to rounding and padding.

        `flat` are the weights of whole blocks, but for the last. That may drop a motif's last
        values, and weights of a narrower dtype than the motifs' round them. What is left may be
        nearer to another motif: without this rule, projecting again would move it.
        """
        size = self.motifs.shape[1]
        whole, rest = divmod(len(flat), size)
        if torch.promote_types(self.motifs.dtype, flat.dtype) != flat.dtype and whole:
            self.keep_equal(flat[: whole * size].view(-1, size), indices[:whole])
        if rest:
            self.keep_equal(flat[None, whole * size :], indices[whole:])

    def keep_equal(self, blocks: Tensor, indices: Tensor) -> None:
        """The same for blocks that may lack their last values."""
        held, search = self._held(blocks.dtype, blocks.shape[1])
        for start in range(0, len(blocks), PIECE):
            some = blocks[start : start + PIECE]
            found = search(some).int()
            same = (held.index_select(0, found) == some).all(1)
            own = indices[start : start + PIECE]
            own.copy_(torch.where(same, found, own))

    def _held(self, dtype: torch.dtype, size: int) -> tuple[Tensor, Search]:
        if (dtype, size) not in self._searches:
            # What overflows is finite here, and refused by _check_range if it is used.
            held = torch.nan_to_num(self.motifs.to(dtype))[:, :size]
            self._searches[dtype, size] = held, searcher(held)
        return self._searches[dtype, size]


def _check_range(layout: Layout, motifs: Tensor, indices: Tensor) -> None:
    """Refuses motifs that would be infinite in a parameter that uses them."""
    lost = {
        dtype: ~torch.isfinite(motifs.to(dtype)).all(1)
        for dtype in {placement.dtype for placement in layout.placements}
        if torch.promote_types(motifs.dtype, dtype) != dtype
    }
    lost = {dtype: wrong for dtype, wrong in lost.items() if bool(wrong.any())}
    if not lost:
        return
    used = torch.zeros(len(layout.placements), dtype=torch.int64, device="cpu")
    for number, placement in enumerate(layout.placements):
        wrong = lost.get(placement.dtype)  # None where every motif fits
        own = indices[placement.start : placement.stop]
        used[number] = wrong is not None and bool(wrong.index_select(0, own).any())
    for number in layout.ranks.sum(used).nonzero()[:1, 0].tolist():
        placement = layout.placements[number]
        dtype = str(placement.dtype).removeprefix("torch.")
        raise ValueError(
            f"motifs must fit the {dtype} of parameter {placement.name!r}, got "
            f"{float(motifs[lost[placement.dtype]].abs().max())}"
        )


def _difference(model: nn.Module, mosaic: Mosaic) -> tuple[float, int]:
    device = mosaic.motifs.device
    distortion = torch.zeros((), dtype=torch.float64, device=device)
    moved = torch.zeros((), dtype=torch.int64, device=device)
    layout = mosaic.layout
    for placement, tensor in layout.tensors(model):
        flat = tensor.reshape(-1)
        for start, new in mosaic.rebuilt(placement) if layout.counts(placement) else ():
            old = flat[start : start + len(new)]
            distortion += (old.double() - new.double()).square().sum()
            moved += (old != new).sum()
    return float(layout.ranks.sum(distortion)), int(layout.ranks.sum(moved))


def _check_finite(model: nn.Module, layout: Layout, blocks: Tensor) -> None:
    """Refuses blocks that are not finite; names the first such parameter."""
    if layout.ranks.any(not _finite(blocks)):
        check_finite(layout, list(layout.tensors(model)))


def _finite(values: Tensor) -> bool:
    if values.device.type == "cpu":
        return cpu.finite(values)
    return bool(torch.isfinite(values).all())
