"""Chooses motifs from blocks: the paper's sample, a distinct sample, k-means, also by code length.

All are deterministic given a generator. They return at most as many motifs as requested, and never
more than there are blocks to draw (`sample`) or distinct blocks (`distinct`, `kmeans`), since more
would be wasted. The zero motif, if requested, is motif 0 and never moves.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from momos.vq.nearest import add_differences, rated_searcher, searcher

Start = Literal["spread", "sample"]
PIECE = 1 << 16  # blocks taken at once, so that memory stays bounded
GROWTH = 1.25  # factor by which a round of "spread" multiplies the number of motifs
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
    blocks: Float[Tensor, "m s"],
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
    blocks = _checked(blocks, num_motifs)
    wanted = num_motifs - zero_motif
    order = torch.randperm(len(blocks), generator=generator, device="cpu")
    drawn = 2 * wanted
    while True:
        rows = blocks[order[:drawn].to(blocks.device)]
        found = _first_of_equals(rows, zero_motif)
        if len(found) >= wanted or drawn >= len(blocks):
            return with_zero(rows[found[:wanted]], zero_motif)
        drawn *= 2


def kmeans_motifs(
    blocks: Float[Tensor, "m s"],
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
    blocks = _checked(blocks, num_motifs)
    if start not in get_args(Start):
        raise ValueError(
            f"start must be one of {', '.join(get_args(Start))}, got {start!r}"
        )
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}")
    motifs = distinct_motifs(blocks, num_motifs, zero_motif=zero_motif, generator=generator)
    if len(motifs) < num_motifs:
        return motifs
    if not len(farthest(blocks, motifs, 1)):
        return motifs  # every block is one of them
    if start != "sample":
        motifs = _spread(blocks, motifs, zero_motif, generator)
    for _ in range(iterations):
        moved = _lloyd(blocks, motifs, zero_motif)
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
    blocks: Tensor,
    motifs: Tensor,
    zero_motif: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """As many different blocks as `motifs`, drawn in rounds by squared distance to the others.

    A round makes the motifs `GROWTH` times as many, at least one more. Once no block is at a
    distance that float64 can square, the last of `motifs` fill the remaining places.
    """
    first = sample_positions(len(blocks), 1, generator=generator)
    new = torch.zeros_like(motifs[:1]) if zero_motif else blocks[first.to(blocks.device)]
    chosen = new
    distance = blocks.new_full((len(blocks),), torch.inf, dtype=torch.float64)
    while len(chosen) < len(motifs):
        _lower(distance, blocks, new)
        mass = distance.cpu().cumsum(0)  # torch has no repeatable one on CUDA
        if not bool(mass[-1] > 0):
            return torch.cat([chosen, motifs[len(chosen) :]])
        stop = min(len(motifs), max(len(chosen) + 1, int(GROWTH * len(chosen))))
        draws = torch.rand(
            stop - len(chosen), generator=generator, dtype=torch.float64, device="cpu"
        )
        at = torch.searchsorted(mass, draws * mass[-1], right=True).to(blocks.device)
        at = at[at < len(blocks)]  # a product may round up to all of the mass
        new = blocks[at[distance[at] > 0]]
        new = new[_first_of_equals(new, zero_motif=False)]
        chosen = torch.cat([chosen, new])
    return chosen


def _lower(distance: Tensor, blocks: Tensor, motifs: Tensor) -> None:
    """Lowers each block's squared `distance` to that of the nearest of `motifs`, in place."""
    if not len(motifs):
        return
    search = searcher(motifs)
    for piece, own in zip(blocks.split(PIECE), distance.split(PIECE), strict=True):
        nearest = motifs.index_select(0, search(piece).int())
        torch.minimum(own, (piece.double() - nearest.double()).square().sum(1), out=own)


def _lloyd(blocks: Tensor, motifs: Tensor, zero_motif: bool) -> Tensor:
    """Motifs moved to the mean of their blocks; unused ones to the farthest blocks."""
    search = searcher(motifs)
    counts = torch.zeros(len(motifs), dtype=torch.float64, device=blocks.device)
    sums = torch.zeros(motifs.shape, dtype=torch.float64, device=blocks.device)
    for piece in blocks.split(PIECE):
        add_differences(piece, search(piece), motifs, sums=sums, counts=counts)
    used = counts > 0
    used[:zero_motif] = False
    moved = motifs.clone()
    mean = motifs[used].double() + sums[used] / counts[used, None]
    moved[used] = mean.to(motifs.dtype)
    dead = (counts == 0).nonzero()[:, 0]
    dead = dead[dead >= int(zero_motif)]
    if len(dead):
        far = farthest(blocks, motifs, len(dead))
        moved[dead[: len(far)]] = far
    return moved


def farthest(
    blocks: Float[Tensor, "m s"], motifs: Float[Tensor, "k s"], count: int
) -> Float[Tensor, "c s"]:
    """At most `count` different blocks, farthest from their motifs first; no block that is a motif."""
    search = searcher(motifs)
    best = blocks.new_zeros(0, dtype=torch.float64)
    rows = blocks[:0]
    for piece in blocks.split(PIECE):
        own = motifs.index_select(0, search(piece).int())
        distance = (piece.double() - own.double()).square().sum(1)
        best, rows = torch.cat([best, distance]), torch.cat([rows, piece])
        kept = best.topk(min(8 * count, len(best))).indices
        best, rows = best[kept], rows[kept]
    rows = rows[best > 0]
    return rows[_first_of_equals(rows, zero_motif=False)[:count]] if len(rows) else rows


def rated_motifs(
    blocks: Float[Tensor, "m s"],
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
    usage = torch.ones(len(motifs), dtype=torch.int64, device=blocks.device)
    for number in range(ROUNDS + 1):  # round 0 finds the first usage
        weight = rate_weight * min(1.0, number / RAMP)
        moved, usage = _round(blocks, motifs, usage, weight)
        moved[: int(zero_motif)] = motifs[: int(zero_motif)]
        if number > RAMP and torch.equal(moved, motifs):
            break
        motifs = moved
    return motifs, usage


def _round(
    blocks: Tensor, motifs: Tensor, usage: Tensor, rate_weight: float
) -> tuple[Tensor, Tensor]:
    """Each motif at the mean of its blocks, unused ones where they were; and the new usage."""
    search = rated_searcher(motifs, usage, rate_weight)
    counts = torch.zeros(len(motifs), dtype=torch.float64, device=blocks.device)
    sums = torch.zeros(motifs.shape, dtype=torch.float64, device=blocks.device)
    for piece in blocks.split(PIECE):
        add_differences(piece, search(piece), motifs, sums=sums, counts=counts)
    moved = motifs.double() + sums / counts.clamp(min=1)[:, None]
    return moved.to(motifs.dtype), counts.long()
