"""A mosaic whose blocks are held as the streams of its file, for networks of any size."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int, Int8
from torch import Tensor

from momos.blocks import Layout, Placement
from momos.codec import STREAM_SYMBOLS, Stream
from momos.config import LatticeConfig
from momos.files.coding import ByValue, by_position
from momos.mosaic import index_dtype, scaled
from momos.scales import spread


@dataclass(frozen=True, eq=False)
class CodedMosaic:
    """Blocks of one weight, coded by value, and what a file needs to know of them.

    `streams` are those of each parameter, `counts` how many blocks each motif is, `used` how
    many different motifs each parameter has.
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
        """How many blocks each motif is."""
        return self.counts

    def scale(self, placement: Placement) -> Float32[Tensor, " c"]:
        """What the motifs of one parameter are multiplied by."""
        places = self.layout.placements
        return self.scales[bisect_left(places, placement.start, key=lambda p: p.start)]

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
        """The blocks of a parameter; all at once where streams do not have them in order."""
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
