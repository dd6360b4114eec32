"""Layouts of models whose parameters are sharded over processes: the blocks of one rank.

Blocks are those of the whole tensors. A rank has a row for each block of which it holds weights:
whole blocks, and at the edges of its shards blocks that it shares with other ranks. Of these it
learns the missing weights (`edges`), so every rank finds the same motif for them on its own; only
the one that holds a block's first weight counts it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from momos.blocks import Layout, Placement, blocked_parameters, check_placed
from momos.parameters import check_held_tensors
from momos.shards import Part, Ranks, local, spread_out


@dataclass(frozen=True)
class ShardedLayout(Layout):
    """What this rank holds of the blocks of `whole`.

    `placements` are of this rank's rows: their `shape` and `num_weights` are those of the local
    tensors. `num_blocks` and `num_weights` are of all ranks. `cuts` are the numbers of the blocks
    that no rank holds all of.
    """

    whole: Layout
    parts: tuple[Part, ...]
    group: Ranks
    cuts: Int64[Tensor, " e"]

    @property
    def ranks(self) -> Ranks:
        return self.group

    @property
    def num_blocks(self) -> int:
        return self.whole.num_blocks

    @cached_property
    def num_weights(self) -> int:
        return self.whole.num_weights

    def tensors(self, model: nn.Module) -> Iterator[tuple[Placement, Tensor]]:
        """Each placement with what this rank holds of its parameter (sharing memory).

        Raises:
            ValueError: if a parameter is missing, is cut in another way, has another shape or
                dtype, or holds no values.
        """
        check_held_tensors(model)
        spread_out(model)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for place, whole in zip(self.placements, self.whole.placements, strict=True):
            if place.name not in parameters:
                raise ValueError(
                    f"model must have the parameter {place.name!r} of the layout"
                )
            tensor = parameters[place.name]
            check_placed(whole, whole.shape, tensor)
            held = local(tensor)
            if tuple(held.shape) != place.shape:
                raise ValueError(
                    f"parameter {place.name!r} must be sharded as when it was projected, into "
                    f"{place.shape} on this rank, got {tuple(held.shape)}"
                )
            yield place, held

    def counts(self, placement: Placement) -> bool:
        return self.parts[self.number(placement)].counts

    def block_number(self, placement: Placement, row: int) -> int:
        part = self.parts[self.number(placement)]
        run, within = divmod(row, placement.num_blocks // len(part.starts))
        return int(part.starts[run]) // self.block_size + within

    def edges(self, model: nn.Module) -> Float[Tensor, "e s"] | None:
        return self.take(model, self.cuts) if len(self.cuts) else None

    def flats(
        self, model: nn.Module, edges: Tensor | None = None
    ) -> Iterator[tuple[Placement, Float[Tensor, " n"]]]:
        for number, (place, tensor) in enumerate(self.tensors(model)):
            flat = tensor.reshape(-1)
            if edges is None or not place.num_blocks:
                yield place, flat
                continue
            size, whole = self.block_size, self.whole.placements[number]
            first, last = self._ends(number)
            before = self._edge(edges, first, flat)[: place.skip]
            stop = place.skip + place.num_weights
            missing = min(whole.num_weights, (last + 1 - whole.start) * size) - (
                int(self.parts[number].starts[-1]) + self.parts[number].length
            )
            held = stop - (place.num_blocks - 1) * size  # of the last block
            after = self._edge(edges, last, flat)[held : held + missing]
            yield place, torch.cat([before, flat, after]) if place.skip or missing else flat

    def _ends(self, number: int) -> tuple[int, int]:
        """The numbers, among all blocks, of this rank's first and last one of a parameter."""
        part, whole = self.parts[number], self.whole.placements[number]
        last = int(part.starts[-1]) + part.length - 1
        first = int(part.starts[0]) // self.block_size
        return whole.start + first, whole.start + last // self.block_size

    def _edge(self, edges: Tensor, block: int, like: Tensor) -> Tensor:
        """The weights of a cut block; zeros if it is not one, of which none are used."""
        at = int(torch.searchsorted(self.cuts, block))
        if at < len(self.cuts) and int(self.cuts[at]) == block:
            return edges[at].to(like.dtype)
        return like.new_zeros(self.block_size)

    def read(self, model: nn.Module) -> Float[Tensor, "r s"]:
        """The blocks of this rank's rows."""
        edges = self.edges(model)
        found = [blocks for _, blocks in self.pieces(model, edges)]
        return torch.cat(found) if found else self._nothing(model)

    def _nothing(self, model: nn.Module) -> Tensor:
        _, tensor = next(self.tensors(model))
        return tensor.new_zeros(0, self.block_size, dtype=self.dtype)

    def take(self, model: nn.Module, rows: Int64[Tensor, " r"]) -> Float[Tensor, "r s"]:
        """The blocks of these numbers, the same on all ranks; no rank sends the others."""
        outside = rows[(rows < 0) | (rows >= self.num_blocks)]
        if len(outside):
            last = self.num_blocks - 1
            raise ValueError(f"rows must be 0 to {last}, got {int(outside[0])}")
        found = self._nothing(model).new_zeros(len(rows), self.block_size)
        rows, within = rows.cpu(), torch.arange(self.block_size, device="cpu")
        pairs = zip(self.tensors(model), self.whole.placements, self.parts, strict=True)
        for (_, tensor), whole, part in pairs:
            own = ((rows >= whole.start) & (rows < whole.stop)).nonzero()[:, 0]
            if not part.counts or not part.num_held or not len(own):
                continue
            at = (rows[own, None] - whole.start) * self.block_size + within
            held, position = (one.to(tensor.device) for one in part.find(at))
            values = tensor.reshape(-1)[position].to(self.dtype)
            found[own.to(found.device)] = values.where(held, torch.zeros_like(values))
        return self.ranks.union(found)

    def counted(self, rows: Tensor) -> Tensor:
        """Those of this rank's rows that no rank before it counts."""
        return torch.cat(
            [rows[:0], *(rows[start:stop] for start, stop in self._counted.tolist())]
        )

    @cached_property
    def _counted(self) -> Int64[Tensor, "p 2"]:
        """The rows that count of each placement."""
        pairs = zip(self.placements, self.parts, strict=True)
        ends = [
            (place.start + (place.skip > 0), place.stop) if part.counts else (0, 0)
            for place, part in pairs
        ]
        return torch.tensor(ends, dtype=torch.int64, device="cpu").reshape(-1, 2)

    def rows_of(self, number: int) -> tuple[Int64[Tensor, " b"], Int64[Tensor, " b"]]:
        """The numbers, in the whole parameter, of the blocks that this rank has of it; its rows."""
        place, part = self.placements[number], self.parts[number]
        rows = torch.arange(place.start, place.stop, device="cpu")
        if not len(rows):
            return rows, rows
        within = torch.arange(len(rows) // len(part.starts), device="cpu")
        blocks = (part.starts // self.block_size)[:, None] + within
        return blocks.reshape(-1), rows

    def own_rows(self, number: int) -> tuple[Int64[Tensor, " b"], Int64[Tensor, " b"]]:
        """Those of `rows_of` that count."""
        blocks, rows = self.rows_of(number)
        if not self.parts[number].counts:
            return blocks[:0], rows[:0]
        skipped = int(self.placements[number].skip > 0)
        return blocks[skipped:], rows[skipped:]

    def runs(self) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
        """The first numbers, among all blocks, and lengths of runs of the rows that count."""
        starts, lengths = [], []
        groups = zip(self.placements, self.whole.placements, self.parts, strict=True)
        for place, whole, part in groups:
            if not part.counts or not place.num_blocks:
                continue
            skipped = place.skip > 0
            starts.append(whole.start + part.starts // self.block_size + skipped)
            number = place.num_blocks // len(part.starts) - skipped
            lengths.append(torch.full_like(part.starts, number))
        none = torch.zeros(0, dtype=torch.int64, device="cpu")
        starts, lengths = torch.cat([none, *starts]), torch.cat([none, *lengths])
        return starts[lengths > 0], lengths[lengths > 0]

    def within(self, prefix: str) -> tuple["ShardedLayout", list[Placement]]:
        whole, inside = self.whole.within(prefix)
        names = {place.name for place in inside}
        kept = [place.name in names for place in self.whole.placements]
        places = [p for p, keep in zip(self.placements, kept, strict=True) if keep]
        cuts, shift = [self.cuts[:0]], 0
        for place, own in zip(inside, whole.placements, strict=True):
            shift = own.start - place.start
            some = self.cuts[(self.cuts >= place.start) & (self.cuts < place.stop)]
            cuts.append(some + shift)
        start, renamed = 0, []
        for place in places:
            name = place.name.removeprefix(f"{prefix}.")
            renamed.append(replace(place, name=name, start=start))
            start += place.num_blocks
        parts = tuple(p for p, keep in zip(self.parts, kept, strict=True) if keep)
        layout = ShardedLayout(
            self.block_size, tuple(renamed), whole, parts, self.group, torch.cat(cuts)
        )
        return layout, places


def layout_of(
    model: nn.Module,
    *,
    block_size: int,
    include: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] = (),
    min_ndim: int = 0,
) -> Layout:
    """`Layout.of`, also of a model whose parameters are sharded; then all ranks call it.

    Raises:
        ValueError: as `Layout.of`; or if a block crosses the columns of a shard.
    """
    if not spread_out(model):
        return Layout.of(
            model,
            block_size=block_size,
            include=include,
            exclude=exclude,
            min_ndim=min_ndim,
        )
    ranks = Ranks.of(model, replicas=False)
    with ranks.together():
        check_held_tensors(model)
        chosen = blocked_parameters(model, block_size, include, exclude, min_ndim)
    named = ((name, tuple(p.shape), p.dtype) for name, p in chosen.items())
    return sharded_layout(Layout.cut(block_size, named), chosen, ranks)


def sharded_layout(
    whole: Layout, parameters: Mapping[str, Tensor], ranks: Ranks
) -> ShardedLayout:
    """What this rank holds of the `whole` layout of these parameters; all ranks call it.

    Raises:
        ValueError: if a block crosses the columns of a shard.
    """
    with ranks.together():
        parts = tuple(
            Part.of(place.name, parameters[place.name], ranks) for place in whole.placements
        )
        placements, cuts = _placed(whole, parts)
    cuts = torch.cat(ranks.gather(torch.tensor(cuts, dtype=torch.int64, device="cpu")))
    return ShardedLayout(whole.block_size, placements, whole, parts, ranks, cuts.unique())


def _placed(
    whole: Layout, parts: tuple[Part, ...]
) -> tuple[tuple[Placement, ...], list[int]]:
    """The rows of this rank, and those of its blocks of which it does not hold all."""
    placements, cuts, row, size = [], [], 0, whole.block_size
    for place, part in zip(whole.placements, parts, strict=True):
        _check_columns(place, part, size)
        start = int(part.starts[0])
        stop = start + part.length  # of the first run: several are whole blocks
        skip = start % size if part.length else 0
        number = (-(-stop // size) - start // size) * len(part.starts) if part.length else 0
        if skip:
            cuts.append(place.start + start // size)
        if part.length and stop % size and stop < place.num_weights:
            cuts.append(place.start + stop // size)
        placements.append(
            replace(
                place,
                shape=part.held,
                start=row,
                num_blocks=number,
                num_weights=part.num_held,
                skip=skip,
            )
        )
        row += number
    return tuple(placements), cuts


def _check_columns(place: Placement, part: Part, size: int) -> None:
    """Refuses a shard of several rows that does not end between blocks in each."""
    if len(part.starts) == 1 or not bool(
        ((part.starts % size) > 0).any() or part.length % size
    ):
        return
    columns = ", ".join(
        f"{held} of {n}" for held, n in zip(part.held, part.shape, strict=True)
    )
    raise ValueError(
        f"blocks must not cross the columns of a shard, but this one of parameter "
        f"{place.name!r} holds {columns} and block_size is {size} (choose a block_size that "
        "divides the columns of all shards, shard the rows, or exclude it)"
    )
