"""Giving every block of a checkpoint its motif."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from momos._util.work import Progress
from momos.compression.banks import Bank
from momos.compression.weights import Piece, Weights
from momos.mosaic import index_dtype, scaled
from momos.projection import Holding
from momos.vq.nearest import searcher
from momos.vq.rate import rated_searcher


@dataclass(frozen=True, eq=False)
class Rows:
    """Motifs that blocks of a tensor may be, the index of the first, and how blocks find theirs."""

    first: int
    holding: Holding
    search: Callable[[Tensor], Tensor]


def assign(
    weights: Weights,
    banks: Sequence[Bank],
    motifs: Tensor,
    rate_weight: float,
    progress: Progress,
) -> tuple[Tensor, dict[str, float], dict[str, float]]:
    """Which of `motifs`, those of all banks as they are stored, each block is.

    And each tensor's distortion, and the sum of squares of its weights.
    """
    rows = _rows_of(weights, banks, motifs, rate_weight)
    return assign_rows(weights, rows, motifs, progress, keep=not rate_weight)


def assign_rows(
    weights: Weights,
    rows: Mapping[str, Rows],
    motifs: Tensor,
    progress: Progress,
    *,
    keep: bool = False,
) -> tuple[Tensor, dict[str, float], dict[str, float]]:
    """Index of each block's motif by the rows of its tensor, as `assign` gives it.

    With `keep`, unscaled blocks that are a motif as far as they can hold one stay that motif.
    """
    layout = weights.layout
    indices = torch.empty(layout.num_blocks, dtype=index_dtype(len(motifs)), device="cpu")
    distortions = dict.fromkeys((place.name for place in layout.placements), 0.0)
    energies = distortions.copy()
    for piece in weights.pieces():
        own = rows[piece.place.name]
        found = own.search(weights.blocks(piece)).int()
        if piece.scale is None and keep:
            own.holding.keep(piece.flat, found)
        found += own.first
        indices[piece.row : piece.row + len(found)] = found.to(indices.dtype)
        distortions[piece.place.name] += _distortion(piece, motifs, found)
        energies[piece.place.name] += float(piece.flat.double().square().sum())
        progress("assigning", piece.row + len(found), layout.num_blocks)
    return indices, distortions, energies


def _rows_of(
    weights: Weights, banks: Sequence[Bank], motifs: Tensor, rate_weight: float
) -> dict[str, Rows]:
    """The rows that the blocks of each tensor may use."""
    found = {}
    for bank, stop in zip(
        banks, accumulate(len(bank.motifs) for bank in banks), strict=True
    ):
        first = stop - len(bank.motifs)
        own = motifs[first:stop].to(weights.dtype)
        if rate_weight and bank.usage is not None:
            search = rated_searcher(own, bank.usage, rate_weight)
        else:
            search = searcher(own)
        rows = Rows(first, Holding(own), search)
        found |= dict.fromkeys((p.name for p in bank.places), rows)
    return found


def _distortion(piece: Piece, motifs: Tensor, indices: Tensor) -> float:
    values = motifs.index_select(0, indices).view(-1)[: len(piece.flat)]
    values = scaled(values, piece.scale, piece.place.dtype)
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"motifs must fit the {piece.place.dtype} of tensor {piece.place.name!r}, got "
            f"{float(motifs.abs().max())}"
        )
    difference = piece.flat.double() - values.double()
    return float(difference.square().sum())
