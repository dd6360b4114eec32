"""Pieces of strided tensors in row-major order, in linear time."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Raw = Callable[[int, int], Tensor]  # bytes of a storage, from one position up to another


@dataclass
class Kept:
    """The memory that one tensor spans, kept while its pieces are read."""

    owner: object = None
    values: Tensor = field(default_factory=lambda: torch.empty(0, device="cpu"))


@dataclass(frozen=True, eq=False)
class Strided:
    """A tensor whose storage is elsewhere: `value` says how it lies there, `raw` reads it.

    A contiguous tensor is read piece by piece. Of another, the part of the storage that it
    spans is read once and kept until another tensor's is: copying a transposed tensor for each
    of its pieces would take quadratic time.
    """

    value: Tensor
    raw: Raw
    kept: Kept

    @property
    def span(self) -> tuple[int, int]:
        """The values of the storage that the tensor lies between."""
        first = int(self.value.storage_offset())
        if not self.value.numel():
            return first, first
        steps = zip(self.value.shape, self.value.stride(), strict=True)
        return first, first + sum((size - 1) * int(stride) for size, stride in steps) + 1

    def read(self, first: int, last: int) -> Tensor:
        """Values from one position up to another, flat and contiguous."""
        if self.value.is_contiguous():
            start = self.span[0]
            return self._as_meant(self._stored(start + first, start + last))
        if self.kept.owner is not self:
            self.kept.owner, self.kept.values = None, torch.empty(0, device="cpu")
            self.kept.values, self.kept.owner = self._stored(*self.span), self
        view = self.kept.values.as_strided(self.value.shape, self.value.stride())
        return self._as_meant(_piece(view, first, last).contiguous())

    def _stored(self, first: int, last: int) -> Tensor:
        dtype = self.value.dtype
        raw = self.raw(first * dtype.itemsize, last * dtype.itemsize)
        return (raw if raw.storage_offset() % dtype.itemsize == 0 else raw.clone()).view(
            dtype
        )

    def _as_meant(self, values: Tensor) -> Tensor:
        if self.value.is_conj():
            values = values.conj().resolve_conj()
        return -values if self.value.is_neg() else values


def _piece(view: Tensor, first: int, last: int) -> Tensor:
    """`view.reshape(-1)[first:last]`, of which nothing else is copied."""
    if view.dim() <= 1:
        return view.reshape(-1)[first:last]
    row = view[0].numel()
    top, bottom = -(-first // row), last // row  # the whole rows
    if top > bottom:  # within one row
        return _piece(view[bottom], first - bottom * row, last - bottom * row)
    parts = [view[top:bottom].reshape(-1)]
    if first < top * row:
        parts.insert(0, _piece(view[top - 1], first - (top - 1) * row, row))
    if last > bottom * row:
        parts.append(_piece(view[bottom], 0, last - bottom * row))
    return torch.cat(parts) if len(parts) > 1 else parts[0]
