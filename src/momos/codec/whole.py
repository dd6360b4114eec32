"""Motifs that are whole numbers: their order, and which motif a value is.

In the order 0, −1, 1, −2, 2, … a whole number has a place (2v, or −2v − 1 below 0), and motifs in
that order are told by the distances of their places, which are mostly 0.
"""

import torch
from jaxtyping import Int32, Int64, Integer
from torch import Tensor

from momos.codec.streams import CorruptError

MOST_VALUE = (1 << 30) - 1  # of a whole number, its sign apart
MOST_LISTED = 1 << 20  # of values that are looked up in a table


def whole_numbers(motifs: Tensor) -> Int32[Tensor, " k"] | None:
    """Motifs of one value as integers, if they are different whole numbers."""
    if motifs.ndim != 2 or motifs.shape[1] != 1:
        return None
    values = motifs[:, 0].double()
    if not bool(((values == values.round()) & (values.abs() <= MOST_VALUE)).all()):
        return None
    if bool(((values == 0) & values.signbit()).any()):  # −0 is no whole number
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
    """Which of different whole numbers a value is."""

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
