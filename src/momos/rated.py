"""Motifs whose code length counts: entropy-constrained vector quantization.

Blocks take the motif of least squared distance + λ · code length, motifs move to the mean of
their blocks, code lengths follow the usage, and so on (Chou, Lookabaugh and Gray 1989). λ grows
over the first rounds: at once it would empty most motifs before they have found their place.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from momos.assign import add_differences
from momos.assign.rated import rated_searcher
from momos.blocks import PIECE

RAMP = 8  # rounds until λ is reached
ROUNDS = 40  # at most, the ramp included


def rated_motifs(
    blocks: Float[Tensor, "m s"],
    motifs: Float[Tensor, "k s"],
    rate_weight: float,
    *,
    zero_motif: bool = True,
) -> tuple[Float[Tensor, "k s"], Int[Tensor, " k"]]:
    """Motifs that started as `motifs`, and how many of `blocks` use each of them.

    With `zero_motif`, motif 0 stays where it is. Motifs that end unused are not taken away.
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
