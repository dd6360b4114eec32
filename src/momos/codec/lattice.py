"""Streams of whole numbers, and the quantizer that makes numbers which such streams code well.

The values of a mosaic whose motifs are multiples of a step are coded by how large their
neighbours in the tensor are. A trellis of 2^v states may say which numbers can come next: then
values count half steps, and a path through the trellis is as good as steps a sixth smaller. The
compiled coder is native/lattice.hpp, the quantizer native/viterbi.hpp.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from momos.codec import _lattice
from momos.codec.streams import STREAM_SYMBOLS, CorruptError, raw

MEMORIES = (0, 3, 4, 5, 6, 8)  # v, in bits: the trellis has 2^v states; 0 is none


@dataclass(frozen=True)
class Geometry:
    """Where the first of some values lies in its tensor.

    Attributes:
        row: Values of one output channel.
        kernel: Of these, values of one input channel.
        position: Number of the first value in the tensor.
    """

    row: int
    kernel: int = 1
    position: int = 0

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.row < 1 or self.row % self.kernel:
            raise ValueError(
                f"row must be a whole number of kernels, got row {self.row} and kernel "
                f"{self.kernel}"
            )
        if self.position < 0:
            raise ValueError(f"position must be at least 0, got {self.position}")
        if max(self.row, self.position) >= 1 << 62:
            raise ValueError(
                f"row and position must be below 2**62, got {self.row} and {self.position}"
            )

    @classmethod
    def of(cls, shape: Sequence[int]) -> "Geometry":
        """That of a whole tensor of at least one value: outputs, inputs, kernel positions."""
        return cls(row=max(1, prod(shape[1:])), kernel=max(1, prod(shape[2:])))

    def at(self, position: int) -> "Geometry":
        """That of values from `position` on."""
        return replace(self, position=position)


def encode(values: Int32[Tensor, " n"], geometry: Geometry, *, memory: int) -> bytes:
    """The stream of 1 to `STREAM_SYMBOLS` values (contiguous, on the CPU).

    Raises:
        ValueError: if there are more or fewer values than that, one is -2**31, or they are no
            path of the trellis.
    """
    row, kernel, position = geometry.row, geometry.kernel, geometry.position
    return _lattice.encode(_values(values), memory, row, kernel, position)


def decode(
    stream: bytes, values: Int32[Tensor, " n"], geometry: Geometry, *, memory: int
) -> None:
    """Fills `values` (contiguous, on the CPU) from `stream`.

    Raises:
        ValueError: if `memory` is none of `MEMORIES`, or there are too many or no values.
        CorruptError: if the bytes are not a stream of that many values.
    """
    _check(len(values), memory)
    target = _values(values)
    row, kernel, position = geometry.row, geometry.kernel, geometry.position
    try:
        _lattice.decode(stream, target, memory, row, kernel, position)
    except ValueError as error:
        raise CorruptError(str(error)) from None
    if values.numel() == 1:  # `target` may be a copy
        values.copy_(torch.from_numpy(target).view(values.dtype))


def encode_all(
    values: Int32[Tensor, " n"], geometry: Geometry, *, memory: int
) -> list[bytes]:
    """The streams of `values`, each of `STREAM_SYMBOLS` but the last."""
    return [
        encode(part, geometry.at(geometry.position + i * STREAM_SYMBOLS), memory=memory)
        for i, part in enumerate(values.split(STREAM_SYMBOLS))
        if len(part)
    ]


def fits(values: Int32[Tensor, " n"], *, memory: int) -> bool:
    """Whether each stream of `values` is a path of the trellis, so that it can be encoded."""
    parts = values.split(STREAM_SYMBOLS)
    return all(_lattice.fits(_values(part), memory) for part in parts)


def quantize(
    weights: Float[Tensor, " n"],
    *,
    memory: int,
    rate_weight: float,
    importance: Float32[Tensor, " n"] | None = None,
    geometry: Geometry | None = None,
    kernel_weight: float = 0.0,
    row_weight: float = 0.0,
) -> Int32[Tensor, " n"]:
    """Whole numbers for `weights` (contiguous, on the CPU) that take few bits.

    `weights` count half steps on a trellis, and steps without. The numbers make
    importance · (w − number)² + rate_weight · bits small, summed over each stream of
    `STREAM_SYMBOLS`: least on a path of the trellis, for costs in bits that passes over a sample
    of the weights found. They are the same on every processor.

    Rounding errors of neighbouring weights can be made to cancel: `kernel_weight` and
    `row_weight` add the square of the summed errors (number − w) of each kernel and of each row
    of `geometry`, times that weight, to what is made small. Inputs at neighbouring positions
    are alike, and inputs after a ReLU have a mean, so a layer's outputs depend on these sums
    more than on single errors. A kernel or row that lies in two streams has a sum in each. The
    path is then good rather than the best, because each state keeps only the sums of its best
    path so far. Weights of 0 stay 0.

    Raises:
        ValueError: if `weights` are neither float32 nor float64, or not finite and below
            2**31 - 8, `importance` or `rate_weight` is not 0 to 1e20, `kernel_weight` or
            `row_weight` is not 0 to 1e6, or one of these two is positive without `geometry`.
    """
    for name, weight in (("kernel_weight", kernel_weight), ("row_weight", row_weight)):
        if not 0 <= weight <= 1e6:
            raise ValueError(f"{name} must be 0 to 1e6, got {weight}")
    if geometry is None:
        if kernel_weight > 0 or row_weight > 0:
            raise ValueError("kernel_weight and row_weight need a geometry, got none")
        geometry = Geometry(1)
    values = torch.empty(len(weights), dtype=torch.int32, device="cpu")
    target = _values(values)
    _lattice.quantize(
        _memory(weights, "weights", torch.float32, torch.float64),
        weights.itemsize,
        None if importance is None else _memory(importance, "importance", torch.float32),
        memory,
        rate_weight,
        kernel_weight,
        row_weight,
        geometry.row,
        geometry.kernel,
        geometry.position,
        target,
    )
    return values


def _check(count: int, memory: int) -> None:
    if memory not in MEMORIES:
        raise ValueError(f"memory must be one of {MEMORIES}, got {memory}")
    if not 1 <= count <= STREAM_SYMBOLS:
        raise ValueError(f"a stream must have 1 to {STREAM_SYMBOLS} values, got {count}")


def _values(values: Tensor) -> np.ndarray:
    return _memory(values, "values", torch.int32)


def _memory(values: Tensor, what: str, *dtypes: torch.dtype) -> np.ndarray:
    """The memory of flat `values` as bytes."""
    if values.dtype not in dtypes:
        allowed = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{what} must be {allowed}, got {values.dtype}")
    if not values.is_contiguous() or values.device.type != "cpu":
        raise ValueError(f"{what} must be contiguous and on the CPU")
    return raw(values).numpy()
