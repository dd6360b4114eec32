"""Choosing the motifs of a checkpoint, and giving them the form in which they are stored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from momos._util.work import Progress
from momos.blocks import Placement, grouped
from momos.compression.weights import Weights, mean_squares
from momos.config import MosaicConfig
from momos.mosaic import usage_of
from momos.stored import grid_step, stored_dtype, whole_steps
from momos.vq.motifs import (
    distinct_motifs,
    kmeans_motifs,
    sample_motifs,
    sample_positions,
    with_zero,
)
from momos.vq.nearest import searcher
from momos.vq.rate import rated_motifs

POOL = (
    1 << 20
)  # blocks of a group that are looked at to choose motifs, and 32 for each motif
CHOICES = {"sample": sample_motifs, "distinct": distinct_motifs, "kmeans": kmeans_motifs}


@dataclass(frozen=True, eq=False)
class Bank:
    """The motifs of one group of tensors; `usage` in the pool, if it was needed."""

    places: Sequence[Placement]
    motifs: Float[Tensor, "k s"]
    usage: Int[Tensor, " k"] | None


def choose_banks(
    weights: Weights, config: MosaicConfig, rate_weight: float, progress: Progress
) -> Iterator[Bank]:
    """The motifs of each group. `rate_weight` is in squares of the weights as they are scaled."""
    generator = torch.Generator().manual_seed(config.seed)
    for places in grouped(weights.layout.placements, config.groups):
        own = weights.only(places)
        yield Bank(places, *_choose(own, config, rate_weight, generator, progress))


def _choose(
    weights: Weights,
    config: MosaicConfig,
    rate_weight: float,
    generator: torch.Generator,
    progress: Progress,
) -> tuple[Tensor, Tensor | None]:
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
    """The rate weight of the config, in squares of the weights as they are scaled.

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
    banks: Sequence[Bank], config: MosaicConfig, dtype: torch.dtype
) -> tuple[Tensor, float | None]:
    """All motifs as they are stored, behind one another; and their step, if they have one.

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

    So motifs that are whole numbers are compared, and stored, without another factor.
    """
    scales = weights.scales or (torch.ones(1, device="cpu"),) * len(
        weights.layout.placements
    )
    limits = torch.finfo(torch.float32).tiny, torch.finfo(torch.bfloat16).max
    return weights.scaled(
        tuple((scale * step).clamp(*limits).bfloat16().float() for scale in scales)
    )
