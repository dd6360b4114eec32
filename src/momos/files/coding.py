"""The two codes of a tensor's blocks: by the usage of the motifs, or by their values.

The second is for blocks of one weight whose motifs are whole numbers: the neighbours of a weight
in its filter predict its magnitude, which the index of its motif does not show.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from jaxtyping import Int32, Integer
from torch import Tensor

from momos.codec import Geometry, Model, Numbering, Stream, lattice

STATES = tuple(1 << v for v in lattice.STATES)  # of a trellis; 1 means no trellis


class Place(Protocol):
    """A tensor of blocks: a placement, or a record."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def axis(self) -> int: ...


class Code(Protocol):
    """Codes streams of at most `STREAM_SYMBOLS` blocks, starting at block `first` of a tensor.

    With `by_channel`, blocks are coded output channel by output channel.
    """

    by_channel: ClassVar[bool]

    def encode(
        self, indices: Integer[Tensor, " n"], place: Place, first: int
    ) -> Stream: ...

    def decode(
        self, stream: Stream, indices: Integer[Tensor, " n"], place: Place, first: int
    ) -> None:
        """Fills `indices`.

        Raises:
            CorruptError: if the stream does not hold that many blocks.
        """
        ...


@dataclass(frozen=True)
class ByUsage:
    """Codes the index of each motif; frequent motifs take fewer bits."""

    model: Model
    by_channel: ClassVar[bool] = False

    def encode(self, indices: Integer[Tensor, " n"], place: Place, first: int) -> Stream:
        return self.model.encode_best(indices)

    def decode(
        self, stream: Stream, indices: Integer[Tensor, " n"], place: Place, first: int
    ) -> None:
        self.model.decode(stream, indices)


@dataclass(frozen=True, eq=False)
class ByValue:
    """Codes the value of each motif, on a trellis of `states` states."""

    values: Int32[Tensor, " k"]
    states: int
    by_channel: ClassVar[bool] = True

    def encode(self, indices: Integer[Tensor, " n"], place: Place, first: int) -> Stream:
        values = self.values.index_select(0, indices.int())
        data = lattice.encode(
            values, _geometry(place, first), states=_exponent(self.states)
        )
        return Stream(0, data)

    def decode(
        self, stream: Stream, indices: Integer[Tensor, " n"], place: Place, first: int
    ) -> None:
        values = torch.empty(len(indices), dtype=torch.int32, device="cpu")
        geometry = _geometry(place, first)
        lattice.decode(stream.data, values, geometry, states=_exponent(self.states))
        indices.copy_(self._numbering.of(values))

    @cached_property
    def _numbering(self) -> Numbering:
        return Numbering(self.values)


def fits(values: Int32[Tensor, " n"], states: int) -> bool:
    """Whether each stream of `values` is a path of the trellis with that many states."""
    return lattice.fits(values, states=_exponent(states))


def _exponent(states: int) -> int:
    return states.bit_length() - 1


def _geometry(place: Place, first: int) -> Geometry:
    shape = list(place.shape)
    channels_first = [shape.pop(place.axis), *shape] if place.axis else shape
    return Geometry.of(channels_first).at(first)


def by_channel(indices: Integer[Tensor, " m"], place: Place) -> Integer[Tensor, " m"]:
    """The blocks of one weight of a tensor, output channel by output channel."""
    if not place.axis:
        return indices
    return indices.view(place.shape).movedim(place.axis, 0).reshape(-1)


def by_position(indices: Integer[Tensor, " m"], place: Place) -> Integer[Tensor, " m"]:
    """What `by_channel` gave, row-major again."""
    if not place.axis:
        return indices
    shape = list(place.shape)
    first = [shape.pop(place.axis), *shape]
    return indices.view(first).movedim(0, place.axis).reshape(-1)
