"""Chooses motifs from blocks: the paper's sample, a distinct sample, k-means, also by code length.

All are deterministic given a generator, and the same for any spread of the blocks over processes. They return at most as many motifs as requested, and never
more than there are blocks to draw (`sample`) or distinct blocks (`distinct`, `kmeans`), since more
would be wasted. The zero motif, if requested, is motif 0 and never moves.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from momos.vq.exact import Grid
from momos.vq.nearest import add_differences, rated_searcher, searcher
from momos.vq.rows import Rows

Start = Literal["spread", "sample"]
PIECE = 1 << 16  # blocks taken at once, so that memory stays bounded
GATHERED = (
    2  # blocks drawn for each motif, before ranks look for different ones on their own
)
GROWTH = 1.25  # factor by which a round of "spread" multiplies the number of motifs
FAR = 8  # blocks looked at for each that `farthest` finds, since some may be equal
# Of `rated_motifs`. λ grows over the first rounds: at once it would empty most motifs before they have
# settled.
RAMP = 8  # rounds until λ is reached
ROUNDS = 40  # at most, the ramp included


def sample_motifs(
    blocks: Float[Tensor, "m s"],
    num_motifs: int,
    *,
    zero_motif: bool = True,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "k s"]:
    """Blocks drawn uniformly by position, without replacement (Bakhtiarifard et al. 2026).

    Equal blocks at different positions may both be drawn: frequent blocks are drawn often.

    Example:
        >>> blocks = torch.randn(1000, 2)
        >>> motifs = momos.sample_motifs(blocks, 16, generator=torch.Generator().manual_seed(0))
        >>> motifs.shape, motifs[0]
        (torch.Size([16, 2]), tensor([0., 0.]))
    """
    blocks = _checked(blocks, num_motifs)
    rows = sample_positions(len(blocks), num_motifs - zero_motif, generator=generator)
    return with_zero(blocks[rows.to(blocks.device)], zero_motif)


def distinct_motifs(
    blocks: Float[Tensor, "m s"] | Rows,
    num_motifs: int,
    *,
    zero_motif: bool = True,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "k s"]:
    """Like `sample_motifs`, but no motif twice, and none equal to the zero motif.

    Positions are drawn until enough different blocks are found. With a motif for every
    distinct block (and a zero motif, if no block is zero) projection loses nothing.

    Example:
        >>> blocks = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]])
        >>> momos.distinct_motifs(blocks, 3).shape  # the zero motif and both blocks
        torch.Size([3, 2])
    """
    rows = blocks if isinstance(blocks, Rows) else Rows.of(_checked(blocks, num_motifs))
    wanted, most = num_motifs - zero_motif, torch.iinfo(torch.int32).max
    kind = torch.int32 if rows.total <= most else torch.int64  # the numbers are the same
    order = torch.randperm(rows.total, generator=generator, dtype=kind, device="cpu")
    drawn = GATHERED * wanted
    while True:
        some = rows.take(order[:drawn].long())
        found = _first_of_equals(some, zero_motif)
        if len(found) >= wanted or drawn >= rows.total:
            return with_zero(some[found[:wanted]], zero_motif)
        if rows.ranks.groups:  # the next draw might be all blocks
            return with_zero(_first_in_order(rows, order, wanted, zero_motif), zero_motif)
        drawn *= 2


def _first_in_order(rows: Rows, order: Tensor, wanted: int, zero_motif: bool) -> Tensor:
    """The first `wanted` different blocks in an `order` of all, found on each rank and merged."""
    places = torch.empty(len(rows.own), dtype=torch.int64, device="cpu")
    for start, numbers in zip(range(0, len(order), PIECE), order.split(PIECE), strict=True):
        held, at = rows.find(numbers.long())
        places[at[held]] = start + held.nonzero()[:, 0]

    def first(places: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
        places, by_place = places.sort()
        blocks = blocks[by_place.to(blocks.device)]
        if not len(blocks):
            return places, blocks
        kept = _first_of_equals(blocks, zero_motif)[:wanted]
        return places[kept.cpu()], blocks[kept]

    found = places[:0], rows.own[:0]
    for others in rows.ranks.each(*first(places, rows.own)):
        found = first(*map(torch.cat, zip(found, others, strict=True)))
    return found[1]


def kmeans_motifs(
    blocks: Float[Tensor, "m s"] | Rows,
    num_motifs: int,
    *,
    zero_motif: bool = True,
    start: Start = "spread",
    iterations: int = 25,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "k s"]:
    """Motifs of small distortion, by Lloyd's iterations (Lloyd 1982).

    `start` is where the iterations begin:

    - "spread": blocks drawn in growing rounds, each with probability proportional to the squared
      distance to the motifs of the rounds before, as in k-means|| (Bahmani et al. 2012). The
      time is linear in the number of blocks.
    - "sample": distinct blocks drawn by position. It seldom draws rare large weights, and the
      iterations do not make up for that: where one weight in a thousand is 30 times larger, the
      distortion was 1.7 to 26 times that of "spread".

    A motif that no block uses moves to the block farthest from its own. Where there are no more
    distinct blocks than motifs, the blocks are the motifs.

    Raises:
        ValueError: if a block is not finite, or an argument is out of range.

    Example:
        >>> blocks = torch.randn(1000, 2)
        >>> motifs = momos.kmeans_motifs(blocks, 16)
        >>> motifs.shape, motifs[0]
        (torch.Size([16, 2]), tensor([0., 0.]))
    """
    rows = blocks if isinstance(blocks, Rows) else Rows.of(_checked(blocks, num_motifs))
    if start not in get_args(Start):
        raise ValueError(
            f"start must be one of {', '.join(get_args(Start))}, got {start!r}"
        )
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}")
    motifs = distinct_motifs(rows, num_motifs, zero_motif=zero_motif, generator=generator)
    if len(motifs) < num_motifs:
        return motifs
    if not len(farthest(rows, motifs, 1)):
        return motifs  # every block is one of them
    if start != "sample":
        motifs = _spread(rows, motifs, zero_motif, generator)
    for _ in range(iterations):
        moved = _lloyd(rows, motifs, zero_motif)
        if torch.equal(moved, motifs):
            break
        motifs = moved
    return motifs


def sample_positions(
    total: int, count: int, *, generator: torch.Generator | None = None
) -> Int[Tensor, " count"]:
    """`count` different numbers below `total` (all of them if there are fewer), uniformly."""
    count = min(count, total)
    if 4 * count > total:
        return torch.randperm(total, generator=generator, device="cpu")[:count]
    # Draws one by one, repeats skipped: uniform without replacement in time O(count log count).
    drawn = torch.randint(total, (count + count // 4,), generator=generator, device="cpu")
    while True:
        first = _first_of_equals(drawn[:, None], zero_motif=False)
        if len(first) >= count:
            return drawn[first[:count]]
        drawn = torch.cat(
            [drawn, torch.randint(total, (count,), generator=generator, device="cpu")]
        )


def with_zero(motifs: Float[Tensor, "k s"], zero_motif: bool) -> Float[Tensor, "j s"]:
    """Prepends the zero motif if requested."""
    if not zero_motif:
        return motifs.clone()
    return (
        torch.cat([torch.zeros_like(motifs[:1]), motifs])
        if len(motifs)
        else (motifs.new_zeros(1, motifs.shape[1]))
    )


def _checked(blocks: Tensor, num_motifs: int) -> Tensor:
    if blocks.ndim != 2 or 0 in blocks.shape:
        raise ValueError(
            f"blocks must have at least one row and one value, got shape {tuple(blocks.shape)}"
        )
    if num_motifs < 1:
        raise ValueError(f"num_motifs must be at least 1, got {num_motifs}")
    bad = sum(int((~torch.isfinite(piece)).sum()) for piece in blocks.split(PIECE))
    if bad:
        raise ValueError(
            f"blocks must be finite, got {bad} values that are NaN or infinite"
        )
    return blocks.detach()


def _first_of_equals(rows: Tensor, zero_motif: bool) -> Tensor:
    """Positions of the rows that differ from all earlier rows (and from zero), in order."""
    keys = rows + 0  # -0.0 becomes 0.0: they are equal
    if keys.is_floating_point() and keys.itemsize < 4:
        keys = keys.float()
    if keys.is_floating_point() and keys.itemsize * keys.shape[1] == 8:
        keys = keys.contiguous().view(torch.int64)  # one number a row sorts much faster
    if keys.shape[1] == 1:
        _, group = torch.unique(keys[:, 0], return_inverse=True)
    else:
        _, group = torch.unique(keys, dim=0, return_inverse=True)
    number = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(number, len(rows))
    first = first.scatter_reduce_(0, group, number, "amin")
    first = first[first < len(rows)].sort().values
    return first[rows[first].any(1)] if zero_motif else first


def _spread(
    rows: Rows,
    motifs: Tensor,
    zero_motif: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """As many different blocks as `motifs`, drawn in rounds by squared distance to the others.

    A round makes the motifs `GROWTH` times as many, at least one more. Once no block is at a
    distance that float64 can square, the last of `motifs` fill the remaining places.
    """
    first = sample_positions(rows.total, 1, generator=generator)
    new = torch.zeros_like(motifs[:1]) if zero_motif else rows.take(first)
    chosen = new
    distance = rows.own.new_full((len(rows.own),), torch.inf, dtype=torch.float64)
    while len(chosen) < len(motifs):
        _lower(distance, rows.own, new)
        stop = min(len(motifs), max(len(chosen) + 1, int(GROWTH * len(chosen))))
        masses = _masses(rows, distance)
        if masses is None:
            return torch.cat([chosen, motifs[len(chosen) :]])
        draws = torch.rand(
            stop - len(chosen), generator=generator, dtype=torch.float64, device="cpu"
        )
        new = _drawn(rows, masses, draws)
        new = new[_first_of_equals(new, zero_motif=False)]
        chosen = torch.cat([chosen, new])
    return chosen


def _masses(rows: Rows, distance: Tensor) -> Tensor | None:
    """Squared distances as whole numbers whose sum, of all blocks, is exact; None if all are 0."""
    highest = torch.finfo(torch.float64).max
    most = distance.amax() if len(distance) else distance.new_zeros(())
    most = min(float(rows.ranks.largest(most)), highest)
    if not most > 0:
        return None
    shift = 62 - rows.total.bit_length() - math.frexp(most)[1]
    for part in (shift // 2, shift - shift // 2):  # one power of two might overflow
        distance = distance.clamp(max=highest) * 2.0**part
    return distance.long()


def _drawn(rows: Rows, masses: Tensor, draws: Tensor) -> Tensor:
    """The blocks at which the cumulative mass passes these shares of all of it."""
    upto, total = rows.cumulative(masses)
    target = (draws * total).long()
    target = target[target < total].to(upto.device)  # a product may round up to all of it
    at = torch.searchsorted(upto, target, right=True)
    last = at.clamp(max=max(0, len(upto) - 1))
    held = torch.zeros_like(at, dtype=torch.bool)
    if len(upto):
        held = (at < len(upto)) & (upto[last] - masses[last] <= target)
    return rows.assemble(held, last)


def _lower(distance: Tensor, blocks: Tensor, motifs: Tensor) -> None:
    """Lowers each block's squared `distance` to that of the nearest of `motifs`, in place."""
    if not len(motifs) or not len(blocks):
        return
    search = searcher(motifs)
    for piece, own in zip(blocks.split(PIECE), distance.split(PIECE), strict=True):
        nearest = motifs.index_select(0, search(piece).int())
        torch.minimum(own, (piece.double() - nearest.double()).square().sum(1), out=own)


def _lloyd(rows: Rows, motifs: Tensor, zero_motif: bool) -> Tensor:
    """Motifs moved to the mean of their blocks; unused ones to the farthest blocks."""
    sums, counts = _differences(rows, motifs, searcher(motifs))
    used = counts > 0
    used[:zero_motif] = False
    moved = motifs.clone()
    mean = motifs[used].double() + sums[used] / counts[used, None]
    moved[used] = mean.to(motifs.dtype)
    dead = (counts == 0).nonzero()[:, 0]
    dead = dead[dead >= int(zero_motif)]
    if len(dead):
        far = farthest(rows, motifs, len(dead))
        moved[dead[: len(far)]] = far
    return moved


def _differences(
    rows: Rows, motifs: Tensor, search: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The sum of block − motif of each motif's blocks, and their number; both of all ranks."""
    counts = torch.zeros(len(motifs), dtype=torch.float64, device=motifs.device)
    sums = torch.zeros(2, *motifs.shape, dtype=torch.float64, device=motifs.device)
    bound = rows.bound + float(motifs.abs().amax())
    grid = Grid.of(bound, rows.total)
    for piece in rows.own.split(PIECE) if len(rows.own) else ():
        add_differences(piece, search(piece), motifs, grid, sums=sums, counts=counts)
    if rows.ranks.groups:
        both = rows.ranks.sum(torch.cat([sums.reshape(-1), counts]))
        sums, counts = both[: sums.numel()].view_as(sums), both[sums.numel() :]
    return sums[0] + sums[1], counts


def farthest(
    blocks: Float[Tensor, "m s"] | Rows, motifs: Float[Tensor, "k s"], count: int
) -> Float[Tensor, "c s"]:
    """At most `count` different blocks, farthest from their motifs first; no block that is a motif.

    Of blocks at the same distance the first ones count.
    """
    rows = blocks if isinstance(blocks, Rows) else Rows.of(blocks)
    search, most = searcher(motifs), FAR * count
    best, far = rows.own.new_zeros(0, dtype=torch.float64), rows.own[:0]
    numbers = torch.zeros(0, dtype=torch.int64, device=far.device)
    start = 0
    for piece in rows.own.split(PIECE) if len(rows.own) else ():
        own = motifs.index_select(0, search(piece).int())
        distance = (piece.double() - own.double()).square().sum(1)
        at = torch.arange(start, start + len(piece), device=far.device)
        best, numbers, far = _farthest(
            torch.cat([best, distance]),
            torch.cat([numbers, at]),
            torch.cat([far, piece]),
            most,
        )
        start += len(piece)
    if rows.ranks.groups:
        numbers = rows.numbers(numbers).to(far.device)
        found = best[:0], numbers[:0], far[:0]
        for others in rows.ranks.each(best, numbers, far):
            merged = map(torch.cat, zip(found, others, strict=True))
            found = _farthest(*merged, most)
        best, numbers, far = found
    far = far[best > 0]
    return far[_first_of_equals(far, zero_motif=False)[:count]] if len(far) else far


def _farthest(
    distance: Tensor, numbers: Tensor, blocks: Tensor, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `most` largest distances, the first of equal ones, and what belongs to them."""
    if len(distance) > most:
        least = distance.topk(most, sorted=False).values.amin()
        kept = (distance >= least).nonzero()[:, 0]
        distance, numbers, blocks = distance[kept], numbers[kept], blocks[kept]
    by_number = numbers.argsort()
    order = by_number[distance[by_number].sort(descending=True, stable=True).indices[:most]]
    return distance[order], numbers[order], blocks[order]


def rated_motifs(
    blocks: Float[Tensor, "m s"] | Rows,
    motifs: Float[Tensor, "k s"],
    rate_weight: float,
    *,
    zero_motif: bool = True,
) -> tuple[Float[Tensor, "k s"], Int[Tensor, " k"]]:
    """Motifs improved from `motifs` where code length counts, and the usage of each by `blocks`.

    Blocks take the motif of least squared distance + λ · code length, motifs move to the mean of
    their blocks, and code lengths follow the usage (Chou, Lookabaugh and Gray 1989).

    With `zero_motif`, motif 0 does not move. Motifs that end up unused are kept.
    """
    rows = blocks if isinstance(blocks, Rows) else Rows.of(blocks)
    usage = torch.ones(len(motifs), dtype=torch.int64, device=motifs.device)
    for number in range(ROUNDS + 1):  # round 0 finds the first usage
        weight = rate_weight * min(1.0, number / RAMP)
        moved, usage = _round(rows, motifs, usage, weight)
        moved[: int(zero_motif)] = motifs[: int(zero_motif)]
        if number > RAMP and torch.equal(moved, motifs):
            break
        motifs = moved
    return motifs, usage


def _round(
    rows: Rows, motifs: Tensor, usage: Tensor, rate_weight: float
) -> tuple[Tensor, Tensor]:
    """Each motif at the mean of its blocks, unused ones where they were; and the new usage."""
    search = rated_searcher(motifs, usage, rate_weight)
    sums, counts = _differences(rows, motifs, search)
    moved = motifs.double() + sums / counts.clamp(min=1)[:, None]
    return moved.to(motifs.dtype), counts.long()
