"""Which motif is best for each block when a motif also costs its code length.

Entropy-constrained vector quantization (Chou, Lookabaugh and Gray 1989): a block takes the motif
of least squared distance + λ·(bits that say which motif it is). The second term is the square of
one more coordinate, 0 for every block and √(λ·bits) for a motif, so the nearest of these longer
motifs is the answer, and the engines of `nearest` give it exactly.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from momos.assign import searcher

UNUSED = 0.5  # what a motif that no block uses is counted as


def code_lengths(usage: Int[Tensor, " k"]) -> Float64[Tensor, " k"]:
    """Bits that an ideal code spends on each motif: −log2 of its share of the usage.

    A motif that no block uses counts as used half a time: it is dear, not forbidden.
    """
    counts = usage.double().clamp(min=UNUSED)
    return counts.sum().log2() - counts.log2()


def longer_motifs(
    motifs: Float[Tensor, "k s"], penalties: Float64[Tensor, " k"]
) -> Float[Tensor, "k s+1"]:
    """`motifs` with the root of their penalty as one more coordinate.

    The least penalty is taken off all of them, which changes no comparison.
    """
    roots = (penalties - penalties.min()).sqrt()
    return torch.cat([motifs, roots.to(motifs.dtype)[:, None]], 1)


def penalized_searcher(
    motifs: Float[Tensor, "k s"], penalties: Float64[Tensor, " k"]
) -> Callable[[Tensor], Tensor]:
    """Like `searcher`: squared distance + penalty of the motif is least.

    By definition the nearest of `longer_motifs` to the blocks with a 0 behind; ties go to the
    lowest index.
    """
    return searcher(longer_motifs(motifs, penalties), padded=True)


def rated_searcher(
    motifs: Float[Tensor, "k s"], usage: Int[Tensor, " k"], rate_weight: float
) -> Callable[[Tensor], Tensor]:
    """Like `searcher`: squared distance + `rate_weight` · code length is least.

    Without a weight it is `searcher`.

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
