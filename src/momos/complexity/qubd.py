"""QuBD: the BDM scores of the bit planes of quantized weights (arXiv 2605.15551).

Like BDM it is a score and not a number of bits. With the whole range of the weights (percentile
None) a single outlier empties the high planes and the score collapses, though the other weights
are the same; give the score of the shuffled weights beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from momos.complexity.bdm import score
from momos.complexity.counts import Cells, tiles
from momos.complexity.ctm import WIDEST

MOST_BITS = 24  # of an integer that float32 holds
NARROW = 1e-8  # a range below this is quantized to zeros


@dataclass(frozen=True)
class Qubd:
    """The QuBD score of a matrix: `total` is the sum of `planes`, least significant first.

    `lo` and `hi` are the float32 ends of the range that was quantized.
    """

    total: float
    planes: tuple[float, ...]
    shape: tuple[int, int]
    lo: float
    hi: float


def qubd(
    weight: Float[Tensor, "rows *columns"],
    *,
    bits: int = 8,
    percentile: float | None = 99.9,
    rounding: Literal["nearest", "floor"] = "nearest",
) -> Qubd:
    """The sum of the 2-D BDM scores of the `bits` planes of the quantized weights.

    All but the first dimension are flattened. The range is the central `percentile` of the
    weights, or for None all of it, cut into 2^bits − 1 equal steps in float32; a range below
    1e-8 gives zeros. `"floor"` is the quantization of the first public version. A weight on a
    GPU is measured there. Weights of 16 bits count as the same numbers in float32.

    Raises:
        ImportError: if pybdm, which has the tables, is not installed.
        TypeError: if `weight` is no floating-point tensor.
        ValueError: if it has fewer than 4 rows or columns or a value that is not finite, or an
            argument is out of its range.
    """
    _check_arguments(bits, percentile, rounding)
    matrix = _matrix(weight)
    lo, hi = _range(matrix, percentile)
    if rounding == "nearest":
        codes = _nearest(matrix, lo, hi, bits)
    else:
        codes = _floor(matrix, lo, hi, bits)
    scores = tuple(score(tiles(plane)) for plane in _planes(codes, bits))
    rows, columns = matrix.shape
    return Qubd(sum(scores), scores, (rows, columns), lo.item(), hi.item())


def _nearest(matrix: Tensor, lo: Tensor, hi: Tensor, bits: int) -> Tensor:
    if hi - lo < NARROW:
        return torch.zeros_like(matrix, dtype=torch.uint8)
    levels = (1 << bits) - 1
    step = (hi - lo) / levels
    return _integers((matrix - lo).div_(step).round_().clamp_(0, levels), bits)


def _floor(matrix: Tensor, lo: Tensor, hi: Tensor, bits: int) -> Tensor:
    levels = (1 << bits) - 1
    scaled = torch.clamp(matrix, lo, hi).sub_(lo).div_(hi - lo + NARROW).mul_(levels)
    return _integers(scaled, bits)


def _integers(codes: Tensor, bits: int) -> Tensor:
    return codes.to(torch.uint8 if bits <= 8 else torch.int32)


def _planes(codes: Tensor, bits: int) -> Iterator[Cells]:
    """The bit planes, least significant first, on the device of `codes`."""
    for plane in range(bits):
        cells = (codes >> plane & 1).to(torch.uint8)
        yield cells.numpy() if cells.device.type == "cpu" else cells


def _range(
    matrix: Float32[Tensor, "h w"], percentile: float | None
) -> tuple[Tensor, Tensor]:
    """The ends of the range, after a look at every weight."""
    lo, hi = torch.aminmax(matrix)
    for end in (lo.item(), hi.item()):
        if not isfinite(end):
            raise ValueError(f"weight must be finite, got {end}")
    if percentile is not None:
        cut = (1 - percentile / 100) / 2
        lo, hi = _quantiles(matrix, cut, 1 - cut)
    if not isfinite((hi - lo).item()):
        raise ValueError(
            f"the range of weight must fit float32, got {lo.item()} to {hi.item()}"
        )
    return lo, hi


def _quantiles(matrix: Float32[Tensor, "..."], *fractions: float) -> list[Tensor]:
    """As torch.quantile since 2.15; before, it rounded the rank, and all sort and stop at 2^24.

    The fraction is in float32, its rank in float64, and the value between two in float32.
    """
    ranks = [float(np.float32(fraction)) * (matrix.numel() - 1) for fraction in fractions]
    wanted = sorted({end for rank in ranks for end in (int(rank), ceil(rank))})
    found = dict(zip(wanted, _order_statistics(matrix, wanted), strict=True))
    return [
        torch.lerp(found[int(rank)], found[ceil(rank)], float(rank - int(rank)))
        for rank in ranks
    ]


def _order_statistics(matrix: Float32[Tensor, "..."], ranks: list[int]) -> list[Tensor]:
    flat = matrix.flatten()
    if flat.device.type != "cpu":
        return [torch.kthvalue(flat, rank + 1).values for rank in ranks]
    parted = np.partition(flat.numpy(), ranks)
    return [torch.tensor(parted[rank], device="cpu") for rank in ranks]


def _matrix(weight: Tensor) -> Float32[Tensor, "h w"]:
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        found = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"weight must be a floating-point tensor, got {found}")
    if weight.is_meta:
        raise ValueError("weight must hold values, got a meta tensor")
    matrix = weight.detach().resolve_neg()
    if matrix.ndim > 2:
        matrix = matrix.flatten(1)
    if matrix.ndim < 2 or min(matrix.shape) < WIDEST:
        raise ValueError(
            f"weight must have at least {WIDEST} rows and {WIDEST} columns after flatten(1), "
            f"got shape {tuple(weight.shape)}"
        )
    return matrix.float()


def _check_arguments(bits: int, percentile: float | None, rounding: str) -> None:
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"bits must be 1 to {MOST_BITS}, got {bits}")
    if percentile is not None and not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, got {percentile}")
    if rounding not in ("nearest", "floor"):
        raise ValueError(f'rounding must be "nearest" or "floor", got {rounding!r}')
