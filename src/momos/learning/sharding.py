"""Re-assignment where latent weights are sharded: each rank looks after the blocks it holds.

`Shards` knows which blocks those are. `ShardedFitting` does what `Fitting` does, but sums over the
blocks of all ranks. Sums are exact (`momos.vq.exact`), so the mosaic does not depend on how many
ranks there are. Each rank has the whole bank, and finds the same motifs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Float32, Float64, Int, Int32, Int64
from torch import Tensor, nn

from momos.blocks import Placement
from momos.learning.fitting import Fitting, Share
from momos.learning.latents import LatentShard, held
from momos.mosaic import index_dtype, usage_of
from momos.sharded import ShardedLayout, layout_of
from momos.shards import Ranks, is_sharded, local
from momos.stored import num_scales, rounded_roots, spread
from momos.vq.exact import Grid
from momos.vq.gather import sum_by_motif
from momos.vq.rows import Rows

if TYPE_CHECKING:
    from momos.learning.bank import Bank

BY_ROWS = (
    "learned weights must be sharded by their first dimension (fully_shard, also with a mesh of "
    "replicas and shards), but {!r} is {}"
)
FIRST = (
    "motifs must be learned before the model is sharded, but {!r} is sharded already (call "
    "momos.parametrize_, then fully_shard, then make the optimizer)"
)


class _Latents(nn.Module):
    """The latent weights of a bank as the parameters of a module, for layouts to read."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.tensors = tensors

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, Any]]:
        yield from self.tensors.items()


@dataclass(frozen=True, eq=False)
class Shards:
    """The blocks of a bank that this rank holds weights of, and those of every rank.

    `counts` are the numbers of blocks that begin in the shard of each rank, by parameter: what
    ranks send each other for a forward pass.
    """

    layout: ShardedLayout
    counts: tuple[tuple[int, ...], ...]
    along: Ranks  # those that have different shards; others have copies

    @classmethod
    def of(cls, bank: "Bank") -> "Shards":
        """How the latent weights are sharded; called on all ranks.

        Raises:
            ValueError: if one is not, or not by its rows.
        """
        for tile in bank.tiles:
            _check_by_rows(tile.place.name, tile.latent)
        model, size = latents(bank), bank.layout.block_size
        layout = cast(ShardedLayout, layout_of(model, block_size=size))
        group = cast(Any, bank.tiles[0].latent).device_mesh.get_all_groups()[-1]
        counts = tuple(_counts(p, group.size(), size) for p in bank.layout.placements)
        along = Ranks((group,) if group.size() > 1 else (), layout.ranks.device)
        return cls(layout, counts, along)

    @torch.no_grad()
    def keep_(self, bank: "Bank") -> None:
        """Drops what other ranks look after; once."""
        bank.indices = bank.indices[self.numbers().to(bank.indices.device)]
        bank.fitting = self.fitting(bank.fitting)
        for tile in bank.tiles:
            tile.shard_()
        if bank.began is not None:
            bank.begin()

    @property
    def ranks(self) -> Ranks:
        return self.layout.ranks

    def numbers(self) -> Int64[Tensor, " r"]:
        """The numbers, among all blocks, of this rank's rows."""
        numbers = [torch.zeros(0, dtype=torch.int64, device="cpu")]
        layout = self.layout
        groups = zip(layout.placements, layout.whole.placements, layout.parts, strict=True)
        for place, whole, part in groups:
            first = whole.start + int(part.starts[0]) // layout.block_size
            numbers.append(torch.arange(first, first + place.num_blocks, device="cpu"))
        return torch.cat(numbers)

    def sent(self, number: int, indices: Int32[Tensor, " r"]) -> Int32[Tensor, " b"]:
        """The indices of the blocks that begin in this rank's shard of a parameter."""
        place = self.layout.placements[number]
        return indices[place.start + (place.skip > 0) : place.stop]

    def span(self, number: int) -> slice:
        """The rows of a parameter that this rank counts."""
        place, part = self.layout.placements[number], self.layout.parts[number]
        return slice(place.start + (place.skip > 0), place.stop if part.counts else 0)

    def first_weight(self, number: int) -> int:
        """Where in a parameter the rows of this rank begin."""
        size = self.layout.block_size
        return int(self.layout.parts[number].starts[0]) // size * size

    def blocks(
        self, bank: "Bank", scales: tuple[Float32[Tensor, " c"], ...] | None
    ) -> Float[Tensor, "r s"]:
        """The blocks of this rank's rows, divided by `scales`; called on all ranks.

        Raises:
            ValueError: if a weight is not finite on any rank (names the parameter).
        """
        layout, model = self.layout, latents(bank)
        blocks = bank.motifs.new_zeros(layout.num_rows, layout.block_size)
        edges = layout.edges(model)
        for number, (place, flat) in enumerate(layout.flats(model, edges)):
            own, start = (
                blocks[place.start : place.stop].view(-1),
                self.first_weight(number),
            )
            wide = flat.to(blocks.dtype)
            if scales is not None:
                whole = layout.whole.placements[number]
                wide = wide / spread(scales[number], whole, start, start + len(flat)).to(
                    wide
                )
            own[: len(flat)] = wide
        self._check_finite(bank, blocks)
        return blocks

    def _check_finite(self, bank: "Bank", blocks: Tensor) -> None:
        if not self.ranks.any(not bool(torch.isfinite(blocks).all())):
            return
        weights = [held(tile.latent) for tile in bank.tiles]
        counted = [part.counts for part in self.layout.parts]
        wrong = torch.tensor(
            [
                int((~torch.isfinite(w)).sum()) * c
                for w, c in zip(weights, counted, strict=True)
            ],
            device="cpu",
        )
        for place, count in zip(
            bank.layout.placements, self.ranks.sum(wrong).tolist(), strict=True
        ):
            if count:
                raise ValueError(
                    f"weights must be finite, got {count} of {place.num_weights} NaN or "
                    f"infinite in parameter {place.name!r}"
                )
        raise ValueError("weights must be finite relative to their scales")

    def values(self, bank: "Bank", number: int) -> Tensor:
        """The mosaic of what this rank holds of a parameter."""
        place, whole = self.layout.placements[number], self.layout.whole.placements[number]
        first = self.first_weight(number)
        flat = bank.values(
            whole,
            bank.indices[place.start : place.stop],
            first,
            min(whole.num_weights, first + place.num_blocks * self.layout.block_size),
        )
        return flat[place.skip : place.skip + place.num_weights].view(place.shape)

    def scales(
        self, of_all: list[Float32[Tensor, " c"] | None]
    ) -> list[Float32[Tensor, " c"] | None]:
        """The scales of what this rank holds of each parameter."""
        found = []
        for scale, place, part in zip(
            of_all, self.layout.placements, self.layout.parts, strict=True
        ):
            if scale is not None and len(scale) > 1:
                row = int(part.starts[0]) * len(scale) // prod(part.shape)
                scale = scale[row : row + place.shape[0]] if part.num_held else scale[:1]
            found.append(scale)
        return found

    def roots(self, bank: "Bank") -> tuple[Float32[Tensor, " c"], ...] | None:
        """Root mean squares of the latent weights, as `scales_of` has them; called on all ranks."""
        kind, found = bank.config.scales, []
        if kind == "none":
            return None
        for number, tile in enumerate(bank.tiles):
            squares = held(tile.latent).double().square()
            place, part = tile.place, self.layout.parts[number]
            means = squares.new_zeros(num_scales(kind, place.shape))
            if len(means) > 1 and part.counts and part.num_held:
                row = int(part.starts[0]) * len(means) // place.num_weights
                means[row : row + len(squares)] = squares.flatten(1).mean(1)
            if len(means) > 1:
                means = self.ranks.union(means)
            else:
                own = squares.reshape(-1)[: part.num_held * part.counts]
                means[:] = _reduced(self.ranks, own, place.num_weights) / place.num_weights
            found.append(rounded_roots(means))
        return tuple(found)

    def saved_indices(self, bank: "Bank") -> Tensor:
        """The indices of all blocks as a DTensor, cut as any other; called on all ranks."""
        latent: Any = bank.tiles[0].latent
        numbers, indices, kept = self.numbers(), bank.indices, bank.indices[:0]
        own = torch.zeros(len(numbers), dtype=torch.bool, device="cpu")
        for place in self.layout.placements:
            own[place.start + (place.skip > 0) : place.stop] = True
        for rank, (start, stop) in enumerate(self._chunks()):
            here = own & (numbers >= start) & (numbers < stop)
            piece = indices.new_zeros(stop - start)
            piece[(numbers[here] - start).to(piece.device)] = indices[here.to(piece.device)]
            piece = self.along.sum(piece)
            kept = piece if rank == self.along.number else kept
        shape = torch.Size((self.layout.num_blocks,))
        return like(latent, kept, shape, (1,))

    def loaded_indices(self, bank: "Bank", given: Tensor) -> Int32[Tensor, " r"]:
        """Those of this rank's rows, of indices that were saved; called on all ranks."""
        numbers = self.numbers()
        if not is_sharded(given):
            return given[numbers.to(given.device)]
        indices, own = torch.empty_like(bank.indices), local(given)
        for rank, (start, stop) in enumerate(self._chunks()):
            mine = rank == self.along.number
            piece = self.along.sum(own if mine else own.new_zeros(stop - start))
            here = (numbers >= start) & (numbers < stop)
            at = (numbers[here] - start).to(piece.device)
            indices[here.to(indices.device)] = piece[at].to(indices)
        return indices

    def _chunks(self) -> list[tuple[int, int]]:
        """Which of the indices of all blocks each rank saves."""
        size, count = self.along.size, self.layout.num_blocks
        each = -(-count // size)
        return [(min(each * r, count), min(each * (r + 1), count)) for r in range(size)]

    def fitting(self, whole: Fitting) -> "ShardedFitting":
        """The fitting of this rank's blocks."""
        importance = whole.importance
        if importance is not None and importance.by_weight is not None:
            rows = self.numbers().to(importance.by_weight.device)
            importance = replace(importance, by_weight=importance.by_weight[rows])
        return ShardedFitting(
            self.layout, whole.config, importance, shards=self, of_all=whole.shares
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ShardedFitting(Fitting):
    """A `Fitting` of the blocks of one rank, with sums over those of all; collective."""

    shards: Shards
    of_all: tuple[Share, ...]

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        own = {place.name: place for place in self.layout.placements}
        shares = []
        for share in self.of_all:
            members = tuple(own[place.name] for place in share.members)
            rows = [torch.arange(p.start, p.stop, device="cpu") for p in members]
            numbers = torch.cat(rows) if len(self.of_all) > 1 else slice(None)
            shares.append(replace(share, members=members, rows=numbers))
        return tuple(shares)

    def _mean_square(self, blocks: Tensor) -> float:
        if self.config.scales != "none":
            return 1.0
        squares = self.layout.counted(blocks).double().square()
        total = _reduced(self.shards.ranks, squares.sum(1), self.layout.num_blocks)
        return float(total) / self.layout.num_weights

    def usage(self, indices: Int32[Tensor, " r"], num_motifs: int) -> Int[Tensor, " k"]:
        return self.shards.ranks.sum(usage_of(self.layout.counted(indices), num_motifs))

    def _summed(
        self, blocks: Tensor, indices: Tensor, parts: list[Any], usage: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        shards, num_motifs = self.shards, len(usage)
        spans = [shards.span(number) for number in range(len(self.layout.placements))]
        grid = Grid.of(_bound(shards.ranks, blocks), self.layout.num_blocks)
        shape = (len(parts), 3, num_motifs, blocks.shape[1])
        sums = blocks.new_zeros(shape, dtype=torch.float64)
        for own, part in zip(sums, parts, strict=True):
            inside = [s for s in spans if _within(s, part)]
            for span in inside:
                rows, which = blocks[span], indices[span]
                for total, term in zip(own, grid.split(rows), strict=False):
                    total += sum_by_motif(term, which, num_motifs)
                own[2, :, 0] += usage_of(which, num_motifs)
        for high, low, count in shards.ranks.sum(sums):
            yield (high + low).to(blocks.dtype), count[:, 0]

    def _weighted(
        self, blocks: Tensor, weights: Tensor, indices: Tensor, motifs: Tensor
    ) -> Tensor:
        counted, ranks = self.layout.counted, self.shards.ranks
        wide, rows = counted(weights).double(), counted(indices)
        sums = [
            _by_motif(ranks, term, rows, len(motifs), self.layout.num_blocks)
            for term in (wide * counted(blocks), wide)
        ]
        moved = torch.where(sums[1] > 0, sums[0] / sums[1], motifs.double())
        return moved.to(motifs.dtype)

    def _rows(self, share: Share, blocks: Tensor) -> Rows:
        """The blocks of a share that this rank counts, numbered among those of all ranks."""
        names = {place.name for place in share.members}
        own, starts, lengths, before = [blocks[:0]], [], [], 0
        layout = self.shards.layout
        for number, whole in enumerate(layout.whole.placements):
            if whole.name not in names:
                continue
            span = self.shards.span(number)
            count = span.stop - span.start
            if count > 0:
                first = -(-int(layout.parts[number].starts[0]) // layout.block_size)
                starts.append(before + first)
                lengths.append(count)
                own.append(blocks[span])
            before += whole.num_blocks
        numbers, counts = (
            torch.tensor(n, dtype=torch.int64, device="cpu") for n in (starts, lengths)
        )
        return Rows(torch.cat(own), before, numbers, counts, self.shards.ranks)


def latents(bank: "Bank") -> _Latents:
    """The latent weights as ordinary DTensors, under the names of the weights."""
    tensors = {}
    for tile in bank.tiles:
        tensors[tile.place.name] = like(tile.latent, held(tile.latent)).requires_grad_()
    return _Latents(tensors)


def like(
    tensor: Any,
    local: Tensor,
    shape: torch.Size | None = None,
    stride: tuple[int, ...] | None = None,
) -> Tensor:
    """A DTensor of what this rank holds, sharded as another one."""
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape if shape is None else shape,
        stride=tensor.stride() if stride is None else stride,
    )


def pack(indices: Int32[Tensor, " b"], num_motifs: int, shape: tuple[int, ...]) -> Tensor:
    """Indices as FSDP gathers them: of `shape`, in the fewest bytes, with zeros at the end."""
    packed = indices.new_zeros(shape, dtype=packed_dtype(num_motifs))
    packed.view(-1)[: len(indices)] = indices
    return packed


def unpack(gathered: Tensor, counts: tuple[int, ...]) -> Int32[Tensor, " b"]:
    """The indices of all blocks, from those of each rank."""
    parts = gathered.reshape(len(counts), -1)
    return torch.cat([own[:n] for own, n in zip(parts, counts, strict=True)]).int()


def packed_dtype(num_motifs: int) -> torch.dtype:
    """The smallest integer type that processes can send each other."""
    few = index_dtype(num_motifs) == torch.uint8
    return torch.uint8 if few else torch.int32


def _check_by_rows(name: str, tensor: Tensor) -> None:
    """Refuses a latent weight that is not cut into runs of whole rows.

    Raises:
        ValueError: if it is not sharded, or in another way.
    """
    if not is_sharded(tensor):
        raise ValueError(BY_ROWS.format(name, "whole: apply fully_shard to the root too"))
    placements = cast(Any, tensor).placements
    kinds = [type(where).__name__ for where in placements]
    by_rows = kinds in (["Shard"], ["Replicate", "Shard"]) and placements[-1].dim == 0
    if not by_rows:
        raise ValueError(BY_ROWS.format(name, f"placed as {placements}"))
    if not isinstance(cast(Any, tensor)._local_tensor, LatentShard):
        raise ValueError(BY_ROWS.format(name, "sharded by something else"))


def _counts(place: Placement, size: int, block_size: int) -> tuple[int, ...]:
    """How many blocks begin in the shard of each rank, if each has as many rows, but the last."""
    rows = place.shape[0] if place.shape else 1
    each, row = -(-rows // size), place.num_weights // max(1, rows)
    ends = [min(rows, each * rank) * row for rank in range(size + 1)]
    first = [-(-end // block_size) for end in ends]
    return tuple(stop - start for start, stop in pairwise(first))


def _within(span: slice, part: slice) -> bool:
    """Whether rows that this rank counts are some of a part's."""
    if span.stop <= span.start:
        return False
    return part.start is None or (part.start <= span.start and span.stop <= part.stop)


def _bound(ranks: Ranks, values: Tensor) -> float:
    most = values.abs().amax() if values.numel() else values.new_zeros(())
    return float(ranks.largest(most.double()))


def _reduced(ranks: Ranks, values: Float64[Tensor, " n"], count: int) -> Tensor:
    """The exact sum of `count` values, of which this rank has some."""
    grid = Grid.of(_bound(ranks, values), count)
    high, low = grid.split(values)
    both = ranks.sum(torch.stack([high.sum(), low.sum()]))
    return both[0] + both[1]


def _by_motif(
    ranks: Ranks,
    values: Float64[Tensor, "n s"],
    indices: Tensor,
    num_motifs: int,
    count: int,
) -> Float64[Tensor, "k s"]:
    """The exact sums of each motif's values, of all ranks."""
    grid = Grid.of(_bound(ranks, values), count)
    sums = [sum_by_motif(term, indices, num_motifs) for term in grid.split(values)]
    both = ranks.sum(torch.stack(sums))
    return both[0] + both[1]
