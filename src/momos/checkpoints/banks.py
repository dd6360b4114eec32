"""Compression with a bank of given size: chooses motifs, then assigns every block its motif."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from momos._util.work import Progress
from momos.blocks import Placement, grouped
from momos.checkpoints.weights import Piece, Weights, mean_squares
from momos.config import MosaicConfig
from momos.mosaic import index_dtype, scaled, usage_of
from momos.projection import Holding
from momos.stored import grid_step, stored_dtype, whole_steps
from momos.vq.motifs import (
    distinct_motifs,
    kmeans_motifs,
    rated_motifs,
    sample_motifs,
    sample_positions,
    with_zero,
)
from momos.vq.nearest import rated_searcher, searcher

POOL = 1 << 20  # blocks of a group from which motifs are chosen; at least 32 for each motif
CHOICES = {"sample": sample_motifs, "distinct": distinct_motifs, "kmeans": kmeans_motifs}


@dataclass(frozen=True, eq=False)
class ChosenBank:
    """The motifs of one group of tensors; their `usage` in the pool, if it was needed."""

    places: Sequence[Placement]
    motifs: Float[Tensor, "k s"]
    usage: Int[Tensor, " k"] | None


def choose_banks(
    weights: Weights, config: MosaicConfig, rate_weight: float, progress: Progress
) -> Iterator[ChosenBank]:
    """The motifs of each group. `rate_weight` is in squares of the scaled weights."""
    generator = torch.Generator().manual_seed(config.seed)
    for places in grouped(weights.layout.placements, config.groups):
        own = weights.only(places)
        yield ChosenBank(places, *_choose(own, config, rate_weight, generator, progress))


def _choose(
    weights: Weights,
    config: MosaicConfig,
    rate_weight: float,
    generator: torch.Generator,
    progress: Progress,
) -> tuple[Tensor, Tensor | None]:
    if config.selection == "whole":
        raise ValueError(
            "selection must be 'sample', 'distinct' or 'kmeans' to compress weights, got "
            "'whole' (a LatticeConfig rounds them to whole steps)"
        )
    total, zero_motif = weights.layout.num_blocks, config.zero_motif
    wanted = config.motifs_for(total)
    if config.selection == "sample" and not rate_weight and config.bits > 8:
        rows = sample_positions(total, wanted - zero_motif, generator=generator)
        return with_zero(weights.take(rows, progress), zero_motif), None
    pool = max(POOL, 32 * wanted)
    rows = (
        torch.arange(total, device="cpu")
        if total <= pool
        else sample_positions(total, pool, generator=generator)
    )
    blocks = weights.take(rows, progress)
    progress("choosing motifs", 0, 1)
    choose = CHOICES[config.selection]
    motifs = choose(blocks, wanted, zero_motif=zero_motif, generator=generator)
    usage = None
    if rate_weight:
        motifs, usage = rated_motifs(blocks, motifs, rate_weight, zero_motif=zero_motif)
        used = usage > 0
        used[: int(zero_motif)] = True
        motifs, usage = motifs[used], usage[used]
    elif config.bits <= 8:
        usage = usage_of(searcher(motifs)(blocks), len(motifs))
    progress("choosing motifs", 1, 1)
    return motifs, usage


def rate_weight_of(weights: Weights, config: MosaicConfig, progress: Progress) -> float:
    """The rate weight of the config, in squares of the scaled weights.

    Scaled weights have a mean square of 1; without scales it is measured.
    """
    if weights.scales is not None or not config.rate_weight:
        return config.rate_weight
    places = weights.layout.placements
    squares = mean_squares(weights, "tensor", progress)
    total = sum(
        float(square) * place.num_weights
        for square, place in zip(squares, places, strict=True)
    )
    return config.rate_weight * total / weights.layout.num_weights


def stored_motifs(
    banks: Sequence[ChosenBank], config: MosaicConfig, dtype: torch.dtype
) -> tuple[Tensor, float | None]:
    """All motifs, concatenated and in stored form; and their step, if they have one.

    Raises:
        ValueError: if they do not fit.
    """
    motifs = torch.cat([bank.motifs for bank in banks])
    if config.bits <= 8:
        usage = torch.cat([bank.usage for bank in banks if bank.usage is not None])
        step = grid_step(motifs, usage, config.bits)
        return whole_steps(motifs, step, config.bits).to(torch.int8), float(step)
    stored = motifs.to(stored_dtype(config.bits, dtype))
    if not bool(torch.isfinite(stored).all()):
        raise ValueError(
            f"motifs must fit {config.bits} bits (float16), got {float(motifs.abs().max())}"
        )
    return stored, None


def in_steps(weights: Weights, step: float) -> Weights:
    """`weights` relative to their scales times `step`, which are bfloat16 numbers again.

    So whole-numbered motifs are compared, and stored, without another factor.
    """
    scales = weights.scales or (torch.ones(1, device="cpu"),) * len(
        weights.layout.placements
    )
    limits = torch.finfo(torch.float32).tiny, torch.finfo(torch.bfloat16).max
    return weights.scaled(
        tuple((scale * step).clamp(*limits).bfloat16().float() for scale in scales)
    )


@dataclass(frozen=True, eq=False)
class Rows:
    """The motifs that blocks of a tensor may use: index of the first, and how to search them."""

    first: int
    holding: Holding
    search: Callable[[Tensor], Tensor]


def assign(
    weights: Weights,
    banks: Sequence[ChosenBank],
    motifs: Tensor,
    rate_weight: float,
    progress: Progress,
) -> tuple[Tensor, dict[str, float], dict[str, float]]:
    """Index of each block's motif in the concatenated, stored banks.

    Also the distortion of each tensor, and the sum of squares of its weights.
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

    With `keep`, unscaled blocks that already equal a motif, up to rounding and padding, keep it.
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
    weights: Weights, banks: Sequence[ChosenBank], motifs: Tensor, rate_weight: float
) -> dict[str, Rows]:
    """The rows that blocks of each tensor may use."""
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
