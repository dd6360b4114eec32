"""Lengths of a mosaic in bits: the bound of the paper, and the entropy of its usage."""

from dataclasses import dataclass
from math import lgamma, log
from typing import Protocol

import torch
from torch import Tensor

from momos.blocks import Layout
from momos.config import LatticeConfig, MosaicConfig


class Described(Protocol):
    """What the lengths of a mosaic depend on."""

    @property
    def motifs(self) -> Tensor: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def scales(self) -> tuple[Tensor, ...] | None: ...
    @property
    def config(self) -> MosaicConfig | LatticeConfig | None: ...
    @property
    def num_motifs(self) -> int: ...
    def usage(self) -> Tensor: ...


@dataclass(frozen=True)
class DescriptionLength:
    """Lengths in bits of the constrained weights.

    `dense` is 32 bits a weight; `bank` is the motifs, and the scales where there are any;
    `bound` adds ceil(log2 k) bits for every block; `entropy` adds the entropy of usage instead,
    and the usage table that a decoder needs for that.

    Example:
        >>> model = nn.Linear(64, 64, bias=False)
        >>> result = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16))
        >>> length = momos.description_length(result.mosaic)
        >>> length.dense, length.bound, length.factor
        (131072, 6144, 21.333333333333332)
        >>> length.entropy < length.dense
        True
    """

    num_weights: int
    dense: int
    bound: int
    bank: int
    mosaic_entropy: float
    usage_table: float

    @property
    def entropy(self) -> float:
        """Motifs, entropy of the indices and usage table, in bits."""
        return self.bank + self.mosaic_entropy + self.usage_table

    @property
    def factor(self) -> float:
        """How many times shorter than dense the bound is (the paper's simplification)."""
        return self.dense / self.bound

    @property
    def bound_per_weight(self) -> float:
        """Bits of `bound` for each weight."""
        return self.bound / self.num_weights

    @property
    def entropy_per_weight(self) -> float:
        """Bits of `entropy` for each weight."""
        return self.entropy / self.num_weights


def description_bound(
    *, num_blocks: int, num_motifs: int, block_size: int, bits: int = 32
) -> int:
    """k·s·q + m·ceil(log2 k) bits (Bakhtiarifard et al. 2026), q = `bits` per motif value.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> momos.description_bound(num_blocks=1024, num_motifs=16, block_size=4)
        6144
    """
    for name, value, least in (
        ("num_blocks", num_blocks, 0),
        ("num_motifs", num_motifs, 1),
        ("block_size", block_size, 1),
        ("bits", bits, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    return num_motifs * block_size * bits + num_blocks * (num_motifs - 1).bit_length()


def description_length(mosaic: Described) -> DescriptionLength:
    """Lengths of `mosaic`, its motifs stored in their own dtype; int8 ones in `motif_bits`.

    The usage table is coded by its number among all ways to share m blocks among k motifs:
    log2 of (m + k - 1 choose k - 1) bits.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> result = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16))
        >>> momos.description_length(result.mosaic).bound
        6208
    """
    m, k, s = mosaic.layout.num_blocks, mosaic.num_motifs, mosaic.layout.block_size
    bits, scales = motif_bits(mosaic), scales_length(mosaic)
    usage = mosaic.usage()
    share = usage[usage > 0].double() / m
    return DescriptionLength(
        num_weights=mosaic.layout.num_weights,
        dense=32 * mosaic.layout.num_weights,
        bound=description_bound(num_blocks=m, num_motifs=k, block_size=s, bits=bits)
        + scales,
        bank=k * s * bits + scales,
        mosaic_entropy=float(-m * (share * torch.log2(share)).sum()) + 0.0,
        usage_table=(lgamma(m + k) - lgamma(k) - lgamma(m + 1)) / log(2),
    )


def motif_bits(mosaic: Described) -> int:
    """Bits in which one motif value is stored.

    For int8 these are the `bits` of the config. If the config is unknown or names too few, they are
    the fewest bits for which −(2^(bits−1)−1) to 2^(bits−1)−1 covers all values.
    """
    if mosaic.motifs.dtype != torch.int8:
        return 8 * mosaic.motifs.itemsize
    largest = int(mosaic.motifs.int().abs().max())
    fewest = min(8, max(2, largest.bit_length() + 1))
    config = mosaic.config
    wanted = config.bits if isinstance(config, MosaicConfig) else fewest
    return wanted if fewest <= wanted <= 8 else fewest


def scales_length(mosaic: Described) -> int:
    """Bits of all scales: 16 for each if all are bfloat16 numbers, else 32."""
    if mosaic.scales is None:
        return 0
    scales = torch.cat(mosaic.scales)
    short = bool((scales.bfloat16().float() == scales).all())
    return (16 if short else 32) * len(scales)
