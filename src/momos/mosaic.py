"""A mosaic: motifs, and the index of each block's motif.

A `Mosaic` is a value. Written into a model, it is also remembered there, so that `Mosaic.of`
can give it back after checking that every weight still is what the mosaic says. Weights that
came another way are compared with what a config allows.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32, Int, Int8, Integer
from torch import Tensor, nn

from momos.blocks import DTYPES, PIECE, Layout, Placement, grouped
from momos.config import LatticeConfig, MosaicConfig, known_config
from momos.discovery import (
    NoMosaic,
    check_finite,
    distinct_blocks,
    distinct_blocks_of_ranks,
    in_steps,
)
from momos.parameters import check_dense, check_used
from momos.sharded import ShardedLayout, layout_of
from momos.stored import check_scales, spread, stored_dtype
from momos.vq import cpu

_MEMORY = "_momos_mosaic"  # the attribute of a module under which its mosaic is remembered


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Motifs (k, s), indices (m,) in the smallest integer type that holds k, and the layout.

    With `scales`, one float32 tensor for each placement, the weights of a parameter are its
    scale, or that of their output channel, times the values of their motifs. Motifs of int8 need
    them. `config` is what the mosaic was made by, where that is known.

    Of a sharded model each rank has the indices of the blocks that it holds weights of, and a
    layout of them; `usage` is of all ranks, and collective: every rank calls it.

    Raises:
        TypeError: if motifs or indices are of a wrong dtype.
        ValueError: if the shapes do not fit each other, an index names no motif, or a value is
            not finite.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> result = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16))
        >>> mosaic = momos.Mosaic.of(model)
        >>> mosaic.motifs.shape, mosaic.indices.shape, mosaic.indices.dtype
        (torch.Size([16, 4]), torch.Size([1040]), torch.uint8)
        >>> int(mosaic.usage().sum()) == mosaic.layout.num_blocks
        True
    """

    motifs: Float[Tensor, "k s"] | Int8[Tensor, "k s"]
    indices: Integer[Tensor, " m"]
    layout: Layout
    scales: tuple[Float32[Tensor, " c"], ...] | None = None
    config: MosaicConfig | LatticeConfig | None = None

    def __post_init__(self) -> None:
        motifs, indices, size = self.motifs, self.indices, self.layout.block_size
        if motifs.ndim != 2 or len(motifs) == 0 or motifs.shape[1] != size:
            raise ValueError(
                f"motifs must have shape (k, {size}) with k at least 1, got "
                f"{tuple(motifs.shape)}"
            )
        if motifs.dtype not in (*DTYPES, torch.int8):
            raise TypeError(f"motifs must be floating or int8, got {motifs.dtype}")
        if motifs.dtype == torch.int8 and self.scales is None:
            raise ValueError("motifs of int8 must have scales, got none")
        if indices.is_floating_point() or indices.dtype == torch.bool:
            raise TypeError(f"indices must be integers, got {indices.dtype}")
        if tuple(indices.shape) != (self.layout.num_rows,):
            raise ValueError(
                f"indices must have shape ({self.layout.num_rows},), got "
                f"{tuple(indices.shape)}"
            )
        if len(indices):
            few = indices.int() if indices.dtype == torch.uint16 else indices
            low, high = (int(end) for end in few.aminmax())
            if low < 0 or high >= len(motifs):
                raise ValueError(
                    f"indices must be 0 to {len(motifs) - 1}, got {low} to {high}"
                )
        if not bool(torch.isfinite(motifs).all()):
            raise ValueError("motifs must be finite, got NaN or infinite values")
        if self.scales is not None:
            object.__setattr__(self, "scales", check_scales(self.scales, self.layout))
        object.__setattr__(self, "motifs", motifs.detach().clone())
        object.__setattr__(self, "indices", indices.to(index_dtype(len(motifs)), copy=True))

    @classmethod
    def of(cls, model: nn.Module, config: MosaicConfig | None = None) -> "Mosaic":
        """The mosaic that `model` is.

        It is the one that was written into `model`, as long as the weights are. Weights that
        were loaded since, or into another model, are a mosaic if they are no more distinct
        blocks than `config` allows motifs; without one, the config of the mosaic that was
        written counts. The motifs are then those blocks, and `model` remembers them.

        Raises:
            ValueError: if `model` is not a mosaic; says where it has changed, or what to do.
        """
        known, change = _recalled(model), ""
        if known is None:
            check_dense(model)
        if known is None and config is None:
            raise ValueError(_never_projected(model))
        if known is not None and config in (None, known.config):
            try:
                change = known._change_in(model)
            except ValueError:  # another layout
                if config is None:
                    raise
            else:
                if not change:
                    return known
        try:
            found = _found(model, config, known)
        except ValueError as error:
            if config is None:
                raise ValueError(change) from None
            raise ValueError(
                f"model must be a mosaic as config says, but {type(model).__name__} is not: "
                f"{error}"
            ) from None
        found.remember_(model)
        return found

    def _change_in(self, model: nn.Module) -> str:
        """Where the weights of `model` differ from this mosaic, if they do.

        Raises:
            ValueError: if the parameters of `model` are not those of the layout.
        """
        layout = self.layout
        counts = torch.zeros(2, len(layout.placements), dtype=torch.int64, device="cpu")
        with layout.ranks.together():
            for number, (placement, tensor) in enumerate(layout.tensors(model)):
                counts[0, number], counts[1, number] = self._changes(placement, tensor)
                if counts[0, number] and not layout.ranks.groups:
                    break
        changed = layout.ranks.sum(counts[0])
        for number in changed.nonzero()[:1, 0].tolist():
            first = -int(layout.ranks.largest(-counts[1])[number])
            return (
                f"model must be a mosaic, but parameter {layout.placements[number].name!r} "
                f"differs from its motifs in {int(changed[number])} weights (first in its "
                f"block {first}): it has changed since it was projected"
            )
        return ""

    def _changes(self, placement: Placement, tensor: Tensor) -> tuple[int, int]:
        """How many weights of a parameter differ from their motifs, and the block of the first."""
        flat, count, first = tensor.reshape(-1), 0, self.layout.num_blocks
        for start, values in self.rebuilt(placement):
            there = flat[start : start + len(values)]
            wrong = bits(there) != bits(values.to(flat.device))
            if not count and bool(wrong.any()):
                row = start + placement.skip + int(wrong.nonzero()[0])
                first = self.layout.block_number(placement, row // self.layout.block_size)
            count += int(wrong.sum())
        return (count if self.layout.counts(placement) else 0), first

    @property
    def num_motifs(self) -> int:
        """How many motifs there are, k, used or not."""
        return len(self.motifs)

    def usage(self) -> Int[Tensor, " k"]:
        """How many blocks use each motif."""
        own = usage_of(self.layout.counted(self.indices), self.num_motifs)
        return self.layout.ranks.sum(own)

    def part(self, placement: Placement) -> Integer[Tensor, " b"]:
        """The indices of the blocks of one parameter."""
        return self.indices[placement.start : placement.stop]

    def rebuilt(self, placement: Placement) -> Iterator[tuple[int, Tensor]]:
        """First weight and values of successive pieces of one parameter, flat, in its dtype."""
        size, scale = self.layout.block_size, self.scale(placement)
        step = max(1, min(PIECE, 16 * PIECE // size))
        indices = self.part(placement)
        for first in range(0, placement.num_blocks, step):
            blocks = self.motifs.index_select(0, indices[first : first + step].int())
            start = first * size - placement.skip
            flat = blocks.view(-1)[max(0, -start) : placement.num_weights - start]
            start = max(0, start)
            stop = start + len(flat)
            own = spread(scale, placement, start, stop) if scale is not None else None
            yield start, scaled(flat, own, placement.dtype)

    def scale(self, placement: Placement) -> Float32[Tensor, " c"] | None:
        """Factors of the motifs in one parameter, if there are scales."""
        if self.scales is None:
            return None
        return self.scales[self.layout.number(placement)]

    def dense(self) -> dict[str, Tensor]:
        """All constrained parameters by name, as ordinary tensors.

        Of a sharded model they are what this rank holds.
        """
        found = {}
        for place in self.layout.placements:
            none = self.motifs.new_empty(0, dtype=place.dtype)
            parts = [none, *(values for _, values in self.rebuilt(place))]
            found[place.name] = torch.cat(parts).view(place.shape)
        return found

    def within(self, prefix: str) -> "Mosaic":
        """The mosaic of a submodule, under its own names; with all motifs.

        Raises:
            ValueError: if no parameter of the mosaic has a name below `prefix`.
        """
        layout, inside = self.layout.within(prefix)
        if not inside:
            raise ValueError(
                f"a parameter of the mosaic must be below {prefix!r}, got none"
            )
        scales = [self.scale(place) for place in inside]
        return Mosaic(
            self.motifs,
            torch.cat([self.indices[place.start : place.stop] for place in inside]),
            layout,
            None
            if self.scales is None
            else tuple(scale for scale in scales if scale is not None),
            self.config,
        )

    @torch.no_grad()
    def write_(self, model: nn.Module) -> None:
        """Replaces the weights of `model` by the mosaic, in place, and remembers it there.

        Raises:
            ValueError: if the parameters of `model` are not those of the layout.
        """
        for placement, tensor in list(self.layout.tensors(model)):
            flat = tensor.reshape(-1)
            for start, values in self.rebuilt(placement):
                flat[start : start + len(values)] = values
            if flat.data_ptr() != tensor.data_ptr():  # not contiguous: flat is a copy
                tensor.copy_(flat.view(placement.shape))
        self.remember_(model)

    def remember_(self, model: nn.Module) -> None:
        """Records for `Mosaic.of` that `model`, and the module that it wraps, are this mosaic."""
        model.__dict__[_MEMORY] = _Memory(self)
        inner = _wrapped(model)
        if inner and all(p.name.startswith(f"{inner}.") for p in self.layout.placements):
            self.within(inner).remember_(model.get_submodule(inner))


class _Memory:
    """A module's record of its mosaic, pickled as plain data that needs no momos."""

    def __init__(self, mosaic: Mosaic) -> None:
        self.mosaic = mosaic

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Memory":
        return self  # a mosaic is a value

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        mosaic, layout = self.mosaic, self.mosaic.layout
        if (
            layout.ranks.groups
        ):  # other ranks hold the rest, or whoever reads it is another one
            return _nothing, ()
        plain = {
            "motifs": mosaic.motifs,
            "indices": mosaic.indices,
            "scales": mosaic.scales,
            "block_size": layout.block_size,
            "tensors": [(p.name, p.shape, p.dtype) for p in layout.placements],
            "axes": layout.axes,
            "config": None if mosaic.config is None else asdict(mosaic.config),
        }
        return dict, (plain,)


def _nothing() -> None:
    """A mosaic of which a pickle holds nothing."""


def _recalled(model: nn.Module) -> Mosaic | None:
    """The mosaic that was written into `model`, if one was."""
    memory = model.__dict__.get(_MEMORY)
    if memory is None or isinstance(memory, _Memory):
        return None if memory is None else memory.mosaic
    config = memory["config"]
    mosaic = Mosaic(
        memory["motifs"],
        memory["indices"],
        Layout.cut(memory["block_size"], memory["tensors"], memory.get("axes", {})),
        memory["scales"],
        None if config is None else known_config(config),
    )
    model.__dict__[_MEMORY] = _Memory(mosaic)
    return mosaic


def _wrapped(model: nn.Module) -> str:
    """The one child of a module that only wraps it, as torch.compile and DataParallel do."""
    names = list(model._modules)
    return names[0] if names in (["_orig_mod"], ["module"]) else ""


def _never_projected(model: nn.Module) -> str:
    kind = type(model).__name__
    inside = [name for name, module in model.named_modules() if name and remembered(module)]
    if inside:
        return (
            f"model must be a mosaic, but {kind} was never projected; its submodule "
            f"{inside[0]!r} was: pass that one"
        )
    return (
        f"model must be a mosaic, but {kind} was never projected (momos.project_ makes it one, "
        "and momos.freeze_ one whose motifs are learned; weights that are one already, as after "
        "load_state_dict, are found by the config that made them: "
        "momos.Mosaic.of(model, config), momos.save(model, path, config=config); those of a file "
        "are written by momos.load_(model, path))"
    )


def _found(
    model: nn.Module, config: MosaicConfig | LatticeConfig | None, known: Mosaic | None
) -> Mosaic:
    """The mosaic of the weights of `model` by `config`, or else by that of `known`.

    Raises:
        ValueError: if they are none.
    """
    if isinstance(config, LatticeConfig):
        raise ValueError(
            "its config must be a MosaicConfig to find motifs by, got a LatticeConfig "
            "(momos.load_(model, path) writes the weights of a compressed file)"
        )
    if config is None:
        if known is None or not isinstance(known.config, MosaicConfig):
            raise ValueError("a config is needed to find motifs")
        most = max(known.num_motifs, known.config.motifs_for(known.layout.num_blocks))
        return _discovered(model, known.layout, known.config, most)
    try:
        return _discovered_by(
            model, config, 1 if config.min_ndim is None else config.min_ndim
        )
    except NoMosaic as error:
        if config.min_ndim is not None:
            raise
        try:  # the default where motifs are learned
            return _discovered_by(model, config, 2)
        except ValueError:
            raise error from None


def _discovered_by(model: nn.Module, config: MosaicConfig, min_ndim: int) -> Mosaic:
    layout = layout_of(
        model,
        block_size=config.block_size,
        include=config.include,
        exclude=config.exclude,
        min_ndim=min_ndim,
    )
    banks = len(list(grouped(layout.placements, config.groups)))
    most = banks * config.motifs_for(layout.num_blocks)
    return _discovered(model, layout, config, most)


def _discovered(
    model: nn.Module, layout: Layout, config: MosaicConfig, most: int
) -> Mosaic:
    if isinstance(layout, ShardedLayout) and (config.bits <= 8 or config.scales != "none"):
        raise NoMosaic(
            f"scales and motifs of few bits are not searched for in a sharded model, got "
            f"scales={config.scales!r} and bits={config.bits} (save the frozen model, and "
            "momos.load_ it)"
        )
    check_used(model, (place.name for place in layout.placements))
    values, dtype, scales = list(layout.tensors(model)), layout.dtype, None
    if config.bits <= 8:
        size, dtype = layout.block_size, torch.int8
        values, scales = in_steps(values, size, config.scales, config.bits)
    elif config.scales != "none":
        raise NoMosaic(
            f"motifs must be of at most 8 bits to be found with their scales, got "
            f"bits={config.bits} (pickle or save the frozen model instead)"
        )
    if isinstance(layout, ShardedLayout):
        check_finite(layout, values)
        motifs, indices = distinct_blocks_of_ranks(
            layout,
            list(layout.flats(model, layout.edges(model))),
            most=most,
            zero_motif=config.zero_motif,
        )
    else:
        motifs, indices = distinct_blocks(
            values, layout.block_size, dtype, most=most, zero_motif=config.zero_motif
        )
    narrow = motifs if scales else motifs.to(stored_dtype(config.bits, motifs.dtype))
    if torch.equal(bits(narrow.to(motifs.dtype)), bits(motifs)):
        motifs = narrow
    found = Mosaic(motifs, indices, layout, scales, config)
    if change := found._change_in(model):
        raise NoMosaic(change)
    return found


def scaled(
    values: Tensor, scales: Float32[Tensor, " n"] | None, dtype: torch.dtype
) -> Tensor:
    """Values of motifs as a parameter of `dtype` holds them.

    With scales (one, or one for each value) they are multiplied once, in float32 or float64.
    """
    if scales is None:
        return values.to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return (values.to(wide) * scales.to(wide)).to(dtype)


def remembered(model: nn.Module) -> bool:
    """Whether `model` was made a mosaic, even if it has changed since."""
    return _MEMORY in model.__dict__


def forget_(model: nn.Module) -> None:
    """Drops the mosaic that `model` remembers, which holds an index for every block."""
    model.__dict__.pop(_MEMORY, None)


def bits(values: Tensor) -> Tensor:
    """Values as integers that differ if any bit differs (0.0 and -0.0 are equal, these are not)."""
    width = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.itemsize]
    return values.contiguous().view(width)


def usage_of(indices: Integer[Tensor, " m"], num_motifs: int) -> Int[Tensor, " k"]:
    """How many of `indices` refer to each motif."""
    usage = torch.zeros(num_motifs, dtype=torch.int64, device=indices.device)
    for part in indices.split(32 * PIECE):  # as they become wider
        if part.device.type == "cpu" and len(part) < num_motifs:  # no more arrays of k
            usage.index_add_(0, part.int(), usage.new_ones(1).expand(len(part)))
        elif part.device.type == "cpu":
            usage += cpu.usage(part.int(), num_motifs)
        else:
            usage += torch.bincount(part.int(), minlength=num_motifs)
    return usage


def index_dtype(num_motifs: int) -> torch.dtype:
    """The smallest integer type that holds indices below `num_motifs`."""
    if num_motifs <= 1 << 8:
        return torch.uint8
    if num_motifs <= 1 << 15:
        return torch.int16
    return torch.uint16 if num_motifs <= 1 << 16 else torch.int32
