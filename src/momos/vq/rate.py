"""Entropy-constrained vector quantization: nearest motifs when code length counts too.

A block takes the motif of least squared distance + λ·(bits of its index), motifs move to the mean
of their blocks, and code lengths follow the usage (Chou, Lookabaugh and Gray 1989). The second term
is the square of one more coordinate, 0 for every block and √(λ·bits) for a motif. So the answer is
the nearest of these longer motifs, which the engines of `nearest` find exactly.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from momos.vq.motifs import PIECE
from momos.vq.nearest import add_differences, searcher

UNUSED = 0.5  # usage assumed of a motif that no block uses
# λ grows over the first rounds: at once it would empty most motifs before they have settled.
RAMP = 8  # rounds until λ is reached
ROUNDS = 40  # at most, the ramp included


def code_lengths(usage: Int[Tensor, " k"]) -> Float64[Tensor, " k"]:
    """Bits that an ideal code spends on each motif: −log2 of its share of the usage.

    A motif that no block uses counts as used half a time: expensive, but still selectable.
    """
    counts = usage.double().clamp(min=UNUSED)
    return counts.sum().log2() - counts.log2()


def longer_motifs(
    motifs: Float[Tensor, "k s"], penalties: Float64[Tensor, " k"]
) -> Float[Tensor, "k s+1"]:
    """`motifs` with the root of their penalty as one more coordinate.

    The least penalty is subtracted from all of them, which changes no comparison.
    """
    roots = (penalties - penalties.min()).sqrt()
    return torch.cat([motifs, roots.to(motifs.dtype)[:, None]], 1)


def penalized_searcher(
    motifs: Float[Tensor, "k s"], penalties: Float64[Tensor, " k"]
) -> Callable[[Tensor], Tensor]:
    """Like `searcher`, but minimizes squared distance + penalty of the motif.

    By definition the nearest of `longer_motifs` to the blocks with a 0 appended; ties go to the
    lowest index.
    """
    return searcher(longer_motifs(motifs, penalties), padded=True)


def rated_searcher(
    motifs: Float[Tensor, "k s"], usage: Int[Tensor, " k"], rate_weight: float
) -> Callable[[Tensor], Tensor]:
    """Like `searcher`, but minimizes squared distance + `rate_weight` · code length.

    With a weight of 0 it is `searcher`.

    Raises:
        ValueError: if the shapes do not fit each other, or the weight is negative.
    """
    if tuple(usage.shape) != (len(motifs),):
        raise ValueError(
            f"usage must have one count for each of {len(motifs)} motifs, got shape "
            f"{tuple(usage.shape)}"
        )
    if rate_weight < 0:
        raise ValueError(f"rate_weight must be at least 0, got {rate_weight}")
    if rate_weight == 0:
        return searcher(motifs)
    return penalized_searcher(motifs, rate_weight * code_lengths(usage))


def rated_motifs(
    blocks: Float[Tensor, "m s"],
    motifs: Float[Tensor, "k s"],
    rate_weight: float,
    *,
    zero_motif: bool = True,
) -> tuple[Float[Tensor, "k s"], Int[Tensor, " k"]]:
    """Motifs improved from `motifs`, and how many of `blocks` use each of them.

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
