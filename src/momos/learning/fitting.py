"""Motifs and indices for the blocks of a network: the steps that learning alternates.

`start` is k-means; `assign` gives each block its best motif, code length included; `move` puts
each motif to the mean of its blocks. Nothing here holds state: blocks, motifs and indices come in
and go out. Parameters of one group use only the rows of the bank that are theirs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from momos.blocks import Layout, Placement, grouped
from momos.config import MosaicConfig
from momos.learning.importance import Importance
from momos.mosaic import usage_of
from momos.vq.gather import sum_by_motif
from momos.vq.motifs import farthest, kmeans_motifs
from momos.vq.nearest import searcher
from momos.vq.rate import code_lengths, penalized_searcher
from momos.vq.weighted import weighted_means, weighted_nearest


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

    `importance` weighs squared errors; None weighs all alike.
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
        """Which motifs are zero for good: the first of each group, where config says so."""
        zeros = torch.zeros(self.num_motifs, dtype=torch.bool, device="cpu")
        if self.config.zero_motif:
            zeros[[share.first for share in self.shares]] = True
        return zeros

    def start(
        self, blocks: Float[Tensor, "m s"], *, generator: torch.Generator
    ) -> tuple[Float[Tensor, "k s"], Int32[Tensor, " m"]]:
        """Motifs by k-means, and the indices without regard to code length.

        A group with fewer different blocks than motifs leaves its last motifs zero, unused.
        """
        motifs = blocks.new_zeros(self.num_motifs, self.layout.block_size)
        for share in self.shares:
            found = kmeans_motifs(
                blocks[share.rows],
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
        """Each block's best motif; code lengths are by the `usage`, without one not counted."""
        indices = torch.empty(len(blocks), dtype=torch.int32, device=blocks.device)
        rated = usage is not None and rate_weight > 0
        per_bit = rate_weight * self._mean_square(blocks) if rated else 0.0
        for share in self.shares:
            among = motifs[share.motifs]
            penalties = None
            if usage is not None and rated:
                penalties = per_bit * code_lengths(usage[share.motifs])
            for rows, importance in self._parts(share):
                found = _best(blocks[rows], among, penalties, importance)
                indices[rows] = found.int() + share.first
        return indices

    def move(
        self,
        blocks: Float[Tensor, "m s"],
        indices: Int32[Tensor, " m"],
        motifs: Float[Tensor, "k s"],
        *,
        revive: bool,
    ) -> Float[Tensor, "k s"]:
        """Motifs at the mean of their blocks, by importance; the zero motif and unused ones stay.

        With `revive`, unused ones move to the blocks farthest from their own motifs instead.
        """
        if self.importance is not None and self.importance.by_weight is not None:
            weights = self.importance.by_weight.to(blocks.device)
            moved = weighted_means(blocks, weights, indices, unused=motifs)
        else:
            moved = self._means(blocks, indices, motifs)
        if revive:
            usage = usage_of(indices, len(motifs))
            for share in self.shares:
                self._revive(share, blocks, motifs, usage, moved)
        return moved.masked_fill(self.zero_motifs.to(moved.device)[:, None], 0)

    def _mean_square(self, blocks: Tensor) -> float:
        """Of the weights, the unit of the rate weight; scaled ones have 1 by definition."""
        if self.config.scales != "none":
            return 1.0
        return float(blocks.double().square().sum()) / self.layout.num_weights

    def _means(self, blocks: Tensor, indices: Tensor, motifs: Tensor) -> Tensor:
        """Means of the blocks of each motif, every tensor's by its importance."""
        parts = [(slice(None), 1.0)]
        if self.importance is not None:
            weights = self.importance.by_tensor
            places = self.layout.placements
            parts = [(slice(p.start, p.stop), weights[p.name]) for p in places]
        sums = motifs.new_zeros(motifs.shape, dtype=torch.float64)
        total = motifs.new_zeros(len(motifs), 1, dtype=torch.float64)
        for rows, weight in parts:
            own = sum_by_motif(blocks[rows], indices[rows], len(motifs))
            sums += weight * own.double()
            total += weight * usage_of(indices[rows], len(motifs)).double()[:, None]
        means = sums / total.clamp(min=torch.finfo(total.dtype).tiny)
        return torch.where(total > 0, means.to(motifs.dtype), motifs)

    def _parts(
        self, share: Share
    ) -> Iterator[tuple[Int[Tensor, " r"] | slice, float | Tensor]]:
        """Blocks of one importance each, or all of a share with a weight for each value."""
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
            far = farthest(blocks[share.rows], motifs[share.motifs], len(dead))
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
