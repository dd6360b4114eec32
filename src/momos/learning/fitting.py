"""Fits motifs and indices to the blocks of a network: the steps that learning alternates.

`start` is k-means, `assign` finds the best motif of each block, code length included, and `move`
puts each motif at the mean of its blocks. Nothing here holds state. Parameters of one group use
only the rows of the bank that belong to it. `Importance` weights the errors, by tensor or by weight.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float32, Int, Int32
from torch import Tensor, nn

from momos.blocks import Layout, Placement, grouped
from momos.codec import in_order
from momos.config import MosaicConfig, Scales
from momos.learning.whole import whole_indices
from momos.mosaic import usage_of
from momos.stored import num_scales, rounded_roots, spread
from momos.vq.gather import sum_by_motif
from momos.vq.motifs import farthest, kmeans_motifs
from momos.vq.nearest import (
    code_lengths,
    penalized_searcher,
    searcher,
    weighted_means,
    weighted_nearest,
)
from momos.vq.rows import Rows

LEAST = 1e-6  # the least importance of a tensor, so that none is neglected entirely


@dataclass(frozen=True, eq=False)
class Importance:
    """Factors of the squared errors of scaled blocks.

    `by_tensor` suffices if all weights of each tensor are equally important; otherwise `by_weight`
    has a number for each. The geometric mean over the network is 1, tensor by tensor, so that a
    rate weight means the same with importance and without.
    """

    by_tensor: dict[str, float]
    by_weight: Float32[Tensor, "m s"] | None = None

    @classmethod
    def of(
        cls,
        layout: Layout,
        given: Mapping[str, Tensor | float],
        scales: tuple[Float32[Tensor, " c"], ...] | None,
        *,
        device: torch.device | str = "cpu",
    ) -> "Importance":
        """The importance `given` by name, of the unscaled weights: a number, or one for each.

        It is on the `device` of the scales, whatever the device of the numbers.

        Raises:
            ValueError: if a parameter of the layout has none, or it does not fit its shape, is
                negative or not finite.
        """
        flat = {
            place.name: _flat(
                place, given, None if scales is None else scales[number], device
            )
            for number, place in enumerate(layout.placements)
        }
        means = {
            place.name: max(float(flat[place.name].double().mean()), 0.0)
            for place in layout.placements
        }
        largest = max(means.values())
        if largest <= 0:
            raise ValueError("importance must be above 0 somewhere, got 0 everywhere")
        means = {name: max(mean, LEAST * largest) for name, mean in means.items()}
        total = sum(p.num_weights * math.log(means[p.name]) for p in layout.placements)
        middle = math.exp(total / layout.num_weights)
        by_tensor = {name: mean / middle for name, mean in means.items()}
        if all(len(values) == 1 for values in flat.values()):
            return cls(by_tensor)
        rows = [_rows(layout, p, flat[p.name] / middle) for p in layout.placements]
        return cls(by_tensor, torch.cat(rows))


def _flat(
    place: Placement,
    given: Mapping[str, Tensor | float],
    scale: Tensor | None,
    device: torch.device | str,
) -> Float32[Tensor, " n"]:
    if place.name not in given:
        raise ValueError(f"importance must have parameter {place.name!r}, got none")
    values = torch.as_tensor(given[place.name]).detach().to(device, torch.float32)
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(
            f"importance of parameter {place.name!r} must be finite and at least 0"
        )
    if values.numel() == 1 and (scale is None or len(scale) == 1):
        return values.reshape(1) if scale is None else values.reshape(1) * scale.square()
    try:
        values = values.broadcast_to(place.shape).reshape(-1)
    except RuntimeError:
        raise ValueError(
            f"importance of parameter {place.name!r} must broadcast to {place.shape}, got "
            f"shape {tuple(values.shape)}"
        ) from None
    if scale is None:
        return values
    return values * spread(scale, place, 0, place.num_weights).square()


def _rows(layout: Layout, place: Placement, values: Tensor) -> Tensor:
    values = values.expand(place.num_weights) if len(values) == 1 else values
    padding = place.num_blocks * layout.block_size - place.num_weights
    return nn.functional.pad(values, (0, padding)).view(-1, layout.block_size)


def scales_of(
    weights: list[Tensor], kind: Scales
) -> tuple[Float32[Tensor, " c"], ...] | None:
    """The root mean square of each tensor, or of each of its output channels; None if "none"."""
    if kind == "none":
        return None
    squares = (weight.detach().double().square() for weight in weights)
    return tuple(
        rounded_roots(square.reshape(num_scales(kind, tuple(square.shape)), -1).mean(1))
        for square in squares
    )


def scaled_blocks(
    layout: Layout,
    weights: list[Tensor],
    scales: tuple[Float32[Tensor, " c"], ...] | None,
    dtype: torch.dtype,
) -> Float[Tensor, "m s"]:
    """The blocks of `weights`, divided by their scales."""
    size = layout.block_size
    for place, weight in zip(layout.placements, weights, strict=True):
        if tuple(weight.shape) != place.shape:
            raise ValueError(
                f"parameter {place.name!r} must have shape {place.shape}, got "
                f"{tuple(weight.shape)} (fully_shard is what may shard learned weights)"
            )
    blocks = weights[0].new_empty(layout.num_blocks, size, dtype=dtype)
    for number, (place, weight) in enumerate(zip(layout.placements, weights, strict=True)):
        own, count = blocks[place.start : place.stop].view(-1), place.num_weights
        flat = weight.detach().reshape(-1)
        if scales is None:
            own[:count] = flat
        else:
            scale = spread(scales[number], place, 0, count).to(dtype)
            torch.div(flat.to(dtype), scale, out=own[:count])
        own[count:] = 0
    return blocks


def finite_blocks(
    layout: Layout,
    weights: list[Tensor],
    scales: tuple[Float32[Tensor, " c"], ...] | None,
    dtype: torch.dtype,
) -> Float[Tensor, "m s"]:
    """`scaled_blocks`, if all are finite.

    Raises:
        ValueError: if one is not (names the parameter).
    """
    blocks = scaled_blocks(layout, weights, scales, dtype)
    # A sum is faster than checking each value, but the sum of finite values may overflow.
    if not bool(torch.isfinite(blocks.sum()) or torch.isfinite(blocks).all()):
        check_finite(layout, weights)
        raise ValueError("weights must be finite relative to their scales")
    return blocks


def check_finite(layout: Layout, weights: list[Tensor]) -> None:
    """Refuses weights that are NaN or infinite; names the first parameter that has any."""
    for place, weight in zip(layout.placements, weights, strict=True):
        if count := int((~torch.isfinite(weight)).sum()):
            raise ValueError(
                f"weights must be finite, got {count} of {weight.numel()} NaN or infinite in "
                f"parameter {place.name!r}"
            )


@dataclass(frozen=True, eq=False)
class Share:
    """The blocks of one group and the rows of the bank that they may use."""

    members: tuple[Placement, ...]
    rows: Int[Tensor, " r"] | slice
    first: int
    num_motifs: int

    @property
    def motifs(self) -> slice:
        return slice(self.first, self.first + self.num_motifs)


@dataclass(frozen=True, eq=False)
class Fitting:
    """How the blocks of `layout` find their motifs, by `config`.

    `importance` weights squared errors; None weights all equally.
    """

    layout: Layout
    config: MosaicConfig
    importance: Importance | None = None

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        places = list(grouped(self.layout.placements, self.config.groups))
        shares, first = [], 0
        for members in places:
            count = self.config.motifs_for(sum(place.num_blocks for place in members))
            rows = [torch.arange(p.start, p.stop, device="cpu") for p in members]
            shares.append(
                Share(
                    tuple(members),
                    torch.cat(rows) if len(places) > 1 else slice(None),
                    first,
                    count,
                )
            )
            first += count
        return tuple(shares)

    @property
    def num_motifs(self) -> int:
        return sum(share.num_motifs for share in self.shares)

    @property
    def zero_motifs(self) -> Bool[Tensor, " k"]:
        """Which motifs are zero motifs: the first of each group, if the config has them."""
        zeros = torch.zeros(self.num_motifs, dtype=torch.bool, device="cpu")
        if self.config.zero_motif:
            zeros[[share.first for share in self.shares]] = True
        return zeros

    def start(
        self, blocks: Float[Tensor, "m s"], *, generator: torch.Generator
    ) -> tuple[Float[Tensor, "k s"], Int32[Tensor, " m"]]:
        """Motifs by k-means, and indices that ignore code length.

        In a group with fewer distinct blocks than motifs, the last motifs are zero and unused.
        With `selection="whole"` motifs are the whole numbers, in the order 0, -1, 1, -2, 2, ...
        """
        if self.config.selection == "whole":
            numbers = in_order(torch.zeros(self.num_motifs, dtype=torch.uint32))
            motifs = numbers.to(blocks)[:, None]
            return motifs, whole_indices(blocks, self.num_motifs)
        motifs = blocks.new_zeros(self.num_motifs, self.layout.block_size)
        for share in self.shares:
            found = kmeans_motifs(
                self._rows(share, blocks),
                share.num_motifs,
                zero_motif=self.config.zero_motif,
                generator=generator,
            )
            motifs[share.first : share.first + len(found)] = found
        return motifs, self.assign(blocks, motifs)

    def assign(
        self,
        blocks: Float[Tensor, "m s"],
        motifs: Float[Tensor, "k s"],
        *,
        usage: Int[Tensor, " k"] | None = None,
        rate_weight: float = 0.0,
    ) -> Int32[Tensor, " m"]:
        """Each block's best motif; code lengths are those of `usage`, and ignored without it."""
        rated = usage is not None and rate_weight > 0
        per_bit = rate_weight * self._mean_square(blocks) if rated else 0.0
        indices = torch.empty(0, dtype=torch.int32, device=blocks.device)
        for share in self.shares:
            among = motifs[share.motifs]
            penalties = None
            if usage is not None and rated:
                penalties = per_bit * code_lengths(usage[share.motifs])
            for rows, importance in self._parts(share):
                found = _best(blocks[rows], among, penalties, importance)
                if len(self.shares) == 1 and self.importance is None:
                    return found.int()
                if not len(indices):
                    indices = indices.new_empty(len(blocks))
                indices[rows] = found.int() + share.first
        return indices

    def move(
        self,
        blocks: Float[Tensor, "m s"],
        indices: Int32[Tensor, " m"],
        motifs: Float[Tensor, "k s"],
        *,
        revive: bool,
        usage: Int[Tensor, " k"] | None = None,
    ) -> Float[Tensor, "k s"]:
        """Motifs at the weighted mean of their blocks; the zero motif and unused motifs do not move.

        With `revive`, unused motifs move to the blocks farthest from their own motifs instead.
        `usage` is that of `indices`, if it is known.
        """
        if usage is None:
            usage = self.usage(indices, len(motifs))
        if self.importance is not None and self.importance.by_weight is not None:
            weights = self.importance.by_weight.to(blocks.device)
            moved = self._weighted(blocks, weights, indices, motifs)
        else:
            moved = self._means(blocks, indices, motifs, usage)
        if revive:
            for share in self.shares:
                self._revive(share, blocks, motifs, usage, moved)
        return moved.masked_fill(self.zero_motifs.to(moved.device)[:, None], 0)

    def _mean_square(self, blocks: Tensor) -> float:
        """Mean square of the weights, the unit of the rate weight; 1 by definition if scaled."""
        if self.config.scales != "none":
            return 1.0
        return float(blocks.double().square().sum()) / self.layout.num_weights

    def _means(
        self, blocks: Tensor, indices: Tensor, motifs: Tensor, usage: Tensor
    ) -> Tensor:
        """Mean of the blocks of each motif, weighted by the importance of their tensors."""
        parts = [(slice(None), 1.0)]
        if self.importance is not None:
            weights = self.importance.by_tensor
            places = self.layout.placements
            parts = [(slice(p.start, p.stop), weights[p.name]) for p in places]
        sums = motifs.new_zeros(motifs.shape, dtype=torch.float64)
        total = motifs.new_zeros(len(motifs), 1, dtype=torch.float64)
        spans = [rows for rows, _ in parts]
        found = self._summed(blocks, indices, spans, usage)
        for (own, count), (_, weight) in zip(found, parts, strict=True):
            sums += weight * own.double()
            total += weight * count.double()[:, None]
        means = sums / total.clamp(min=torch.finfo(total.dtype).tiny)
        return torch.where(total > 0, means.to(motifs.dtype), motifs)

    # A fitting of sharded blocks overrides the following, which need the blocks of all ranks.

    def _summed(
        self, blocks: Tensor, indices: Tensor, parts: list[slice], usage: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The sum and the number of each motif's blocks, for each part of the rows.

        `usage` is that of all rows.
        """
        for rows in parts:
            own = sum_by_motif(blocks[rows], indices[rows], len(usage))
            whole = len(parts) == 1
            yield own, usage if whole else usage_of(indices[rows], len(usage))

    def _weighted(
        self, blocks: Tensor, weights: Tensor, indices: Tensor, motifs: Tensor
    ) -> Tensor:
        """Motifs at the mean of their blocks, weighted by the importance of each weight."""
        return weighted_means(blocks, weights, indices, unused=motifs)

    def usage(self, indices: Int32[Tensor, " m"], num_motifs: int) -> Int[Tensor, " k"]:
        """How many blocks have each motif."""
        return usage_of(indices, num_motifs)

    def _rows(self, share: Share, blocks: Tensor) -> Rows:
        """The blocks of a share."""
        return Rows.of(blocks[share.rows])

    def _parts(
        self, share: Share
    ) -> Iterator[tuple[Int[Tensor, " r"] | slice, float | Tensor]]:
        """Blocks that share one importance, or all of a share with one for each weight."""
        if self.importance is None:
            yield share.rows, 1.0
        elif self.importance.by_weight is not None:
            yield share.rows, self.importance.by_weight[share.rows]
        else:
            for place in share.members:
                yield (
                    slice(place.start, place.stop),
                    self.importance.by_tensor[place.name],
                )

    def _revive(
        self, share: Share, blocks: Tensor, motifs: Tensor, usage: Tensor, moved: Tensor
    ) -> None:
        dead = (usage[share.motifs] == 0).nonzero()[:, 0]
        dead = dead[dead >= int(self.config.zero_motif)] + share.first
        if len(dead):
            far = farthest(self._rows(share, blocks), motifs[share.motifs], len(dead))
            moved[dead[: len(far)]] = far


def _best(
    blocks: Tensor, motifs: Tensor, penalties: Tensor | None, importance: float | Tensor
) -> Tensor:
    """The motif of least error · importance + penalty for each block."""
    if isinstance(importance, Tensor):
        if penalties is None:
            penalties = motifs.new_zeros(len(motifs), dtype=torch.float64)
        return weighted_nearest(
            blocks, motifs, importance.to(blocks.device), penalty=penalties
        )
    if penalties is None:
        return searcher(motifs)(blocks)
    # An error that matters h times as much is a penalty that matters 1/h times as much.
    return penalized_searcher(motifs, penalties / importance)(blocks)
