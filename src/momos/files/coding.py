"""The two codes of a tensor's blocks: by the usage of the motifs, or by their values.

The second serves blocks of one weight whose motifs are whole numbers: what lies next to a weight
in its filter tells much about its size, which the number of its motif does not show.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from jaxtyping import Int32, Integer
from torch import Tensor

from momos.codec import Geometry, Model, Numbering, Stream, lattice

STATES = tuple(1 << v for v in lattice.MEMORIES)  # that a trellis may have; 1 is none


class Place(Protocol):
    """A tensor of blocks: a placement, or a record."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def axis(self) -> int: ...


class Code(Protocol):
    """Streams of at most `STREAM_SYMBOLS` blocks, from block `first` of a tensor on.

    Where it is `by_channel`, blocks come output channel by output channel.
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
            CorruptError: if the stream is not one of so many blocks.
        """
        ...


@dataclass(frozen=True)
class ByUsage:
    """Motifs are told by number; the more usual ones take fewer bits."""

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
    """Motifs are told by value, on a trellis of `states` states."""

    values: Int32[Tensor, " k"]
    states: int
    by_channel: ClassVar[bool] = True

    def encode(self, indices: Integer[Tensor, " n"], place: Place, first: int) -> Stream:
        values = self.values.index_select(0, indices.int())
        return Stream(0, encoded(values, self.states, place, first))

    def decode(
        self, stream: Stream, indices: Integer[Tensor, " n"], place: Place, first: int
    ) -> None:
        values = torch.empty(len(indices), dtype=torch.int32, device="cpu")
        geometry = _geometry(place, first)
        lattice.decode(stream.data, values, geometry, memory=_bits_of(self.states))
        indices.copy_(self._numbering.of(values))

    @cached_property
    def _numbering(self) -> Numbering:
        return Numbering(self.values)


def encoded(values: Int32[Tensor, " n"], states: int, place: Place, first: int) -> bytes:
    """The stream of some values of a tensor, the first of which is number `first`."""
    return lattice.encode(values, _geometry(place, first), memory=_bits_of(states))


def fits(values: Int32[Tensor, " n"], states: int) -> bool:
    """Whether each stream of `values` is a path of the trellis of so many states."""
    return lattice.fits(values, memory=_bits_of(states))


def _bits_of(states: int) -> int:
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
