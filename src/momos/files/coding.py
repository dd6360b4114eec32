"""The two codes of a tensor's blocks: by the usage of the motifs, or by their values.

The second is for blocks of one weight whose motifs are whole numbers: the neighbours of a weight
in its filter predict its magnitude, which the index of its motif does not show. `CodedMosaic` holds a
mosaic of any size as such streams.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float, Float32, Int, Int8, Int32, Integer
from torch import Tensor

from momos.blocks import Layout, Placement
from momos.codec import STREAM_SYMBOLS, Geometry, Model, Numbering, Stream, lattice
from momos.config import LatticeConfig
from momos.mosaic import index_dtype, scaled
from momos.stored import spread


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
        return Stream(0, encoded(values, self.states, place, first))

    def decode(
        self, stream: Stream, indices: Integer[Tensor, " n"], place: Place, first: int
    ) -> None:
        values = torch.empty(len(indices), dtype=torch.int32, device="cpu")
        geometry = geometry_of(place, first)
        lattice.decode(stream.data, values, geometry, memory=_bits_of(self.states))
        indices.copy_(self._numbering.of(values))

    @cached_property
    def _numbering(self) -> Numbering:
        return Numbering(self.values)


def encoded(values: Int32[Tensor, " n"], states: int, place: Place, first: int) -> bytes:
    """The stream of values of a tensor, starting at value `first`."""
    return lattice.encode(values, geometry_of(place, first), memory=_bits_of(states))


def fits(values: Int32[Tensor, " n"], states: int) -> bool:
    """Whether each stream of `values` is a path of the trellis with that many states."""
    return lattice.fits(values, memory=_bits_of(states))


def _bits_of(states: int) -> int:
    return states.bit_length() - 1


def geometry_of(place: Place, first: int) -> Geometry:
    """Where block `first` of a tensor lies, output channels first."""
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


@dataclass(frozen=True, eq=False)
class CodedMosaic:
    """A mosaic held as the streams of its file: blocks of one weight, coded by value.

    `streams` are those of each parameter, `counts` is the usage of each motif, `used` the number
    of distinct motifs of each parameter.
    """

    motifs: Float[Tensor, "k 1"] | Int8[Tensor, "k 1"]
    layout: Layout
    scales: tuple[Float32[Tensor, " c"], ...]
    config: LatticeConfig
    code: ByValue
    streams: Mapping[str, list[bytes]]
    counts: Int[Tensor, " k"]
    used: Mapping[str, int]

    @property
    def num_motifs(self) -> int:
        return len(self.motifs)

    def usage(self) -> Int[Tensor, " k"]:
        """How many blocks use each motif."""
        return self.counts

    def scale(self, placement: Placement) -> Float32[Tensor, " c"]:
        """Factors of the motifs in one parameter."""
        return self.scales[self.layout.number(placement)]

    def rebuilt(self, placement: Placement) -> Iterator[tuple[int, Tensor]]:
        """First weight and values of successive pieces of one parameter, flat, in its dtype."""
        scale, start = self.scale(placement), 0
        for indices in self._indices(placement):
            flat = self.motifs[:, 0].index_select(0, indices.int())
            stop = start + len(flat)
            own = spread(scale, placement, start, stop)
            yield start, scaled(flat, own, placement.dtype)
            start = stop

    def _indices(self, place: Placement) -> Iterator[Tensor]:
        """The blocks of a parameter; all at once if streams have them in another order."""
        parts = (
            self._decoded(place, number) for number in range(len(self.streams[place.name]))
        )
        if place.axis:
            yield by_position(torch.cat(list(parts)), place)
        else:
            yield from parts

    def _decoded(self, place: Placement, number: int) -> Tensor:
        first = number * STREAM_SYMBOLS
        count = min(STREAM_SYMBOLS, place.num_weights - first)
        indices = torch.empty(count, dtype=index_dtype(self.num_motifs), device="cpu")
        stream = Stream(0, self.streams[place.name][number])
        self.code.decode(stream, indices, place, first)
        return indices
