"""Saving a sharded model: the first rank writes, and fetches one whole tensor at a time.

The other ranks serve: they learn which tensor is asked for, and add what they hold of it. No
rank ever holds more than the largest tensor besides its shards.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float32, Integer
from torch import Tensor, nn

from momos.blocks import Layout, Placement
from momos.config import MosaicConfig
from momos.mosaic import Mosaic
from momos.sharded import ShardedLayout
from momos.shards import Ranks, gathered


class Gathering:
    """Tensors of a sharded model and indices of its mosaic, by name, whole on the first rank.

    All of `ranks` make one. Then the first calls `tensor` and `indices`, and at last `end`; the
    others call `serve`, which returns after that.
    """

    def __init__(
        self, ranks: Ranks, model: nn.Module | None, mosaic: Mosaic | None
    ) -> None:
        self.ranks, self.mosaic = ranks, mosaic
        named = (*model.named_parameters(), *model.named_buffers()) if model else ()
        self._held = dict(named)
        self._last: tuple[Any, Tensor] = None, torch.empty(0, device="cpu")

    def tensor(self, name: str) -> Tensor:
        """All values of a tensor, flat, on the CPU."""
        return self._asked("tensor", name)

    def indices(self, name: str) -> Tensor:
        """The indices of all blocks of a parameter."""
        return self._asked("indices", name)

    def end(self) -> None:
        """Lets the other ranks stop serving."""
        self.ranks.message(None)

    def serve(self) -> None:
        """Answers the first rank until it is done."""
        while (wanted := self.ranks.message()) is not None:
            self._gathered(*wanted)

    def _asked(self, kind: str, name: str) -> Tensor:
        if self._last[0] != (kind, name):
            self._last = None, self._last[1][:0]  # before the next one is made
            self.ranks.message((kind, name))
            self._last = (kind, name), self._gathered(kind, name)
        return self._last[1]

    def _gathered(self, kind: str, name: str) -> Tensor:
        return self._tensor(name) if kind == "tensor" else self._indices(name)

    def _tensor(self, name: str) -> Tensor:
        return gathered(name, self._held[name], self.ranks).reshape(-1).cpu()

    def _indices(self, name: str) -> Tensor:
        mosaic = self.mosaic
        assert mosaic is not None
        layout = mosaic.layout
        assert isinstance(layout, ShardedLayout)
        number = layout.number(next(p for p in layout.placements if p.name == name))
        first, own = layout.own_rows(number)
        whole = mosaic.indices.new_zeros(layout.whole.placements[number].num_blocks)
        whole[first.to(whole.device)] = mosaic.indices[own]
        return self.ranks.union(whole).cpu()


class FetchedMosaic(Mosaic):
    """The mosaic of all ranks, on the first one; indices are fetched when they are read."""

    def __init__(self, own: Mosaic, fetch: Callable[[str], Integer[Tensor, " m"]]) -> None:
        layout = own.layout
        assert isinstance(layout, ShardedLayout)
        for name, value in (
            ("motifs", own.motifs),
            ("indices", own.indices[:0]),
            ("layout", layout.whole),
            ("scales", _whole_scales(own, layout)),
            ("config", own.config),
            ("_fetch", fetch),
            ("_usage", own.usage()),
        ):
            object.__setattr__(self, name, value)

    def usage(self) -> Tensor:
        return self.__dict__["_usage"]

    def part(self, placement: Placement) -> Tensor:
        return self.__dict__["_fetch"](placement.name)


def _whole_scales(
    mosaic: Mosaic, layout: ShardedLayout
) -> tuple[Float32[Tensor, " c"], ...] | None:
    """The scales of whole parameters; each rank has those of its channels."""
    if mosaic.scales is None:
        return None
    config, found = mosaic.config, []
    by_channel = isinstance(config, MosaicConfig) and config.scales == "channel"
    counts = torch.tensor([len(scale) for scale in mosaic.scales], device="cpu")
    counts = layout.ranks.largest(counts).tolist()
    groups = zip(mosaic.scales, layout.parts, layout.whole.placements, counts, strict=True)
    for scale, part, place, count in groups:
        if count == 1 and not (by_channel and len(place.shape) > 1):
            found.append(scale)
            continue
        axis = place.axis
        whole = scale.new_zeros(place.shape[axis])
        begins = not any(n for dim, n in enumerate(part.offset) if dim != axis)
        if part.counts and part.num_held and begins:  # one of those that hold a channel
            whole[part.box[axis]] = scale
        found.append(layout.ranks.union(whole))
    return tuple(found)


def local_scales(
    scales: tuple[Float32[Tensor, " c"], ...] | None, layout: Layout
) -> tuple[Float32[Tensor, " c"], ...] | None:
    """Those of the scales of whole parameters that are for the channels on this rank."""
    if scales is None or not isinstance(layout, ShardedLayout):
        return scales
    found = []
    for scale, part, place in zip(scales, layout.parts, layout.placements, strict=True):
        if len(scale) > 1:
            first = part.offset[place.axis]
            scale = (
                scale[first : first + part.held[place.axis]] if part.num_held else scale[:1]
            )
        found.append(scale)
    return tuple(found)
