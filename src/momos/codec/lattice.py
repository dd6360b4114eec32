"""Codes whole numbers by the size of their neighbours, and quantizes weights to such numbers.

They are the values of a mosaic whose motifs are multiples of a step. A trellis of 2^v states may
restrict which numbers can follow: then values count half steps, and a path through the trellis is as
good as steps a sixth smaller. The compiled coder is native/lattice.hpp, the quantizer
native/viterbi.hpp; there is a module for each instruction set, and all give the same results.

In the order 0, −1, 1, −2, 2, … a whole number has a place (2v, or −2v − 1 below 0). Whole-numbered
motifs in that order are stored as the distances of their places, which are mostly 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from math import prod
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Int64, Integer
from torch import Tensor

from momos.codec import _lattice
from momos.codec.streams import STREAM_SYMBOLS, CorruptError, raw
from momos.config import TRELLISES

# v, in bits: the trellis has 2^v states; 0 is none.
MEMORIES = tuple(states.bit_length() - 1 for states in TRELLISES)
AVX2 = "momos.codec._lattice_avx2"
MOST_VALUE = (1 << 30) - 1  # of a whole number, its sign apart
MOST_LISTED = 1 << 20  # of values that are looked up in a table


@dataclass(frozen=True)
class Geometry:
    """Position of values in their tensor.

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
        """Geometry of a whole tensor of at least one value: outputs, inputs, kernel positions."""
        return cls(row=max(1, prod(shape[1:])), kernel=max(1, prod(shape[2:])))

    def at(self, position: int) -> "Geometry":
        """The same geometry, for values from `position` on."""
        return replace(self, position=position)


def encode(values: Int32[Tensor, " n"], geometry: Geometry, *, memory: int) -> bytes:
    """The stream of 1 to `STREAM_SYMBOLS` values (contiguous, on the CPU).

    Raises:
        ValueError: if there are more or fewer values than that, one is -2**31, or they are not
            a path of the trellis.
    """
    row, kernel, position = geometry.row, geometry.kernel, geometry.position
    return native().encode(_values(values), memory, row, kernel, position)


def decode(
    stream: bytes, values: Int32[Tensor, " n"], geometry: Geometry, *, memory: int
) -> None:
    """Fills `values` (contiguous, on the CPU) from `stream`.

    Raises:
        ValueError: if `memory` is not one of `MEMORIES`, or there are too many or no values.
        CorruptError: if the bytes are not a stream of that many values.
    """
    _check(len(values), memory)
    target = _values(values)
    row, kernel, position = geometry.row, geometry.kernel, geometry.position
    try:
        native().decode(stream, target, memory, row, kernel, position)
    except ValueError as error:
        raise CorruptError(str(error)) from None
    if values.numel() == 1:  # `target` may be a copy
        values.copy_(torch.from_numpy(target).view(values.dtype))


def fits(values: Int32[Tensor, " n"], *, memory: int) -> bool:
    """Whether each stream of `values` is a path of the trellis, so that it can be encoded."""
    parts = values.split(STREAM_SYMBOLS)
    return all(native().fits(_values(part), memory) for part in parts)


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
    path so far.

    Weights below a quarter become 0, so none changes its sign or grows many times over. In a row
    whose weights differ by orders of magnitude, the small ones belong to large inputs.

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
    native().quantize(
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


@cache
def native() -> ModuleType:
    """The compiled module for the best instruction set of this processor that was built."""
    # A build for another architecture may have left the other one out.
    built = _lattice.has_avx2() and find_spec(AVX2) is not None
    return import_module(AVX2) if built else _lattice


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


def whole_numbers(motifs: Tensor) -> Int32[Tensor, " k"] | None:
    """Motifs of one value as integers, if they are distinct whole numbers."""
    if motifs.ndim != 2 or motifs.shape[1] != 1:
        return None
    values = motifs[:, 0].double()
    if not bool(((values == values.round()) & (values.abs() <= MOST_VALUE)).all()):
        return None
    if bool(((values == 0) & values.signbit()).any()):  # −0 is not a whole number
        return None
    whole = values.to(torch.int32)
    return whole if len(whole.unique()) == len(whole) else None


def distances(values: Int32[Tensor, " k"]) -> Tensor | None:
    """The distances between the places of `values`, if these are in order (uint32)."""
    places = _places(values)
    between = places.diff(prepend=places.new_full((1,), -1)) - 1
    return None if bool((between < 0).any()) else between.to(torch.uint32)


def in_order(distances: Tensor) -> Int32[Tensor, " k"]:
    """The whole numbers that have these distances (uint32).

    Raises:
        CorruptError: if one of them is too large.
    """
    places = (distances.long() + 1).cumsum(0) - 1
    if len(places) and int(places[-1]) > 2 * MOST_VALUE:
        raise CorruptError(f"motifs must be at most {MOST_VALUE} and in order")
    return torch.where(places % 2 == 1, -(places + 1) // 2, places // 2).to(torch.int32)


class Numbering:
    """Maps values to their index among distinct whole numbers."""

    def __init__(self, values: Int32[Tensor, " k"]) -> None:
        self._sorted, self._index = values.sort()
        self._low = int(self._sorted[0])
        span = int(self._sorted[-1]) - self._low + 1
        self._table = None
        if span <= MOST_LISTED:
            self._table = torch.full((span,), -1, dtype=torch.int32, device="cpu")
            at = (values.long() - self._low).to("cpu")
            self._table[at] = torch.arange(len(values), dtype=torch.int32, device="cpu")

    def of(self, values: Int32[Tensor, " n"]) -> Integer[Tensor, " n"]:
        """The index of each of `values`.

        Raises:
            CorruptError: if one is none of the numbers.
        """
        if self._table is not None:
            at = values - self._low
            inside = (at >= 0) & (at < len(self._table))
            found = self._table[at.clamp(0, len(self._table) - 1)]
            right = inside & (found >= 0)
        else:
            near = torch.searchsorted(self._sorted, values).clamp(max=len(self._sorted) - 1)
            found, right = self._index[near], self._sorted[near] == values
        if not bool(right.all()):
            wrong = int(values[~right][0])
            raise CorruptError(f"a block must be one of the motifs, got {wrong}")
        return found


def _places(values: Int32[Tensor, " k"]) -> Int64[Tensor, " k"]:
    wide = values.long()
    return torch.where(wide < 0, -2 * wide - 1, 2 * wide)
