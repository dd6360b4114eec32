"""Views of a weight that codes describe: its signs, its b-bit codes, the fields of its floats.

A weight is viewed in its own dtype: nothing is widened to float32 first.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer, UInt8
from torch import Tensor

PIECE = 1 << 20  # symbols taken at once: temporaries stay small, and mostly in the cache


class FloatFormat(NamedTuple):
    """How many bits each field has, and the integer of the same width."""

    exponent: int
    mantissa: int
    bits: torch.dtype


FORMATS = {
    torch.float16: FloatFormat(5, 10, torch.int16),
    torch.bfloat16: FloatFormat(8, 7, torch.int16),
    torch.float32: FloatFormat(8, 23, torch.int32),
    torch.float64: FloatFormat(11, 52, torch.int64),
}


def signs(weight: Tensor) -> Bool[Tensor, "..."]:
    """Whether each weight is above zero, as published (2602.14896): zeros count as negative.

    Raises:
        TypeError: if the weight is not floating point.
        ValueError: if a value is not finite.

    Example:
        >>> momos.complexity.signs(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([False, False,  True])
    """
    _extremes(weight)
    return weight.detach() > 0


def ternary(weight: Tensor) -> UInt8[Tensor, "..."]:
    """0 for a weight below zero, 1 for zero (of either sign), 2 above.

    Raises: as `signs`.

    Example:
        >>> momos.complexity.ternary(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([0, 1, 2], dtype=torch.uint8)
    """
    _extremes(weight)
    return (weight.detach() >= 0).to(torch.uint8) + (weight.detach() > 0)


def uniform_codes(
    weight: Tensor, *, bits: int, percentile: float | None = None
) -> Integer[Tensor, "..."]:
    """The nearest of 2^bits evenly spaced values, as numbers from 0; halves to even.

    The values reach from the smallest weight to the largest or, with a percentile, over the
    central `percentile` percent, and weights beyond are clamped. A constant weight is all 0.
    Computed in float64; uint8 up to 8 bits, else int32.

    Raises:
        TypeError: if the weight is not floating point.
        ValueError: if a value, or the range in float64, is not finite, `bits` is not 1 to 16,
            or `percentile` not above 0 and at most 100.

    Example:
        >>> momos.complexity.uniform_codes(torch.tensor([-1.0, 0.1, 1.0]), bits=2)
        tensor([0, 2, 3], dtype=torch.uint8)
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be 1 to 16, got {bits}")
    if percentile is not None and not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, got {percentile}")
    low, high = _extremes(weight)
    flat = weight.detach().reshape(-1)
    if percentile is not None and len(flat):
        low, high = _central(flat, percentile)
    if high - low == float("inf"):
        raise ValueError(f"the range of weight must be finite, got {low} to {high}")
    codes = flat.new_zeros(len(flat), dtype=torch.uint8 if bits <= 8 else torch.int32)
    if high > low:
        top = (1 << bits) - 1
        for piece, out in zip(flat.split(PIECE), codes.split(PIECE), strict=True):
            scaled = (piece.double() - low).div_(high - low).mul_(top)
            out.copy_(scaled.round_().clamp_(0, top))
    return codes.view(weight.shape)


def sign_exponents(weight: Tensor) -> Int[Tensor, "..."]:
    """Sign and biased exponent as one number: all bits of the float above its mantissa.

    Raises:
        TypeError: if the weight is not floating point.

    Example:
        >>> momos.complexity.sign_exponents(torch.tensor([1.0, 1.5, 2.0, -1.0]))
        tensor([127, 127, 128, 383], dtype=torch.int16)
    """
    form = float_format(weight)
    heads = (_bits(weight) >> form.mantissa).to(torch.int16)
    return heads & ((2 << form.exponent) - 1)


def float_format(weight: Tensor) -> FloatFormat:
    """The fields of the weight's dtype.

    Raises:
        TypeError: if the dtype is none of float16, bfloat16, float32, float64.
    """
    if weight.dtype not in FORMATS:
        raise TypeError(
            "weight must be float16, bfloat16, float32 or float64, got "
            f"{str(weight.dtype).removeprefix('torch.')}"
        )
    return FORMATS[weight.dtype]


def byte_planes(weight: Tensor) -> UInt8[Tensor, "itemsize n"]:
    """Plane j holds byte j of every value; plane 0 is the least significant.

    Example:
        >>> momos.complexity.byte_planes(torch.ones(5)).shape
        torch.Size([4, 5])
    """
    flat = weight.detach().contiguous().view(-1)
    return flat.view(torch.uint8).view(-1, weight.itemsize).T.contiguous()


def raw_bytes(values: Tensor) -> bytes:
    """The bytes of the values, row-major; one byte for each boolean.

    Example:
        >>> list(momos.complexity.raw_bytes(torch.tensor([1.0])))
        [0, 0, 128, 63]
    """
    flat = values.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def packed(bits: Bool[Tensor, "..."]) -> bytes:
    """The bits row-major, eight in a byte, the first the most significant, zeros at the end.

    Raises:
        TypeError: if the bits are not booleans.

    Example:
        >>> list(momos.complexity.packed(torch.tensor([True, False, True])))
        [160]
    """
    if bits.dtype != torch.bool:
        raise TypeError(f"bits must be booleans, got {bits.dtype}")
    return np.packbits(bits.detach().cpu().numpy().reshape(-1)).tobytes()


def _bits(weight: Tensor) -> Int[Tensor, "..."]:
    return weight.detach().contiguous().view(float_format(weight).bits)


def _extremes(weight: Tensor) -> tuple[float, float]:
    """Smallest and largest weight, all of them known to be finite; zeros if there is none."""
    float_format(weight)
    if not weight.numel():
        return 0.0, 0.0
    low, high = weight.detach().aminmax()
    if not bool((low.isfinite() & high.isfinite()).all()):
        flat = weight.detach().reshape(-1)
        count = sum(int((~piece.isfinite()).sum()) for piece in flat.split(PIECE))
        raise ValueError(f"weight must be finite, got {count} NaN or infinite values")
    return float(low), float(high)


def _central(flat: Tensor, percentile: float) -> tuple[float, float]:
    """The ends of the central `percentile` percent, linear between ranks."""
    position = (1 - percentile / 100) / 2 * (len(flat) - 1)
    rank = int(position)
    kept = min(rank + 2, len(flat))
    low, high = (
        flat.topk(kept, largest=largest).values[rank:].double() for largest in (False, True)
    )
    fraction = position - rank
    return (
        float(low[0] + fraction * (low[-1] - low[0])),
        float(high[0] + fraction * (high[-1] - high[0])),
    )
