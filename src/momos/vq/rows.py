"""Blocks of which this process holds some, numbered as one array of all of them.

Motifs are chosen from such blocks (`momos.vq.motifs`) without a process ever holding all. What
is the same on all ranks is computed by each of them; what depends on all blocks is reduced.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from momos.shards import ALONE, Ranks


@dataclass(frozen=True)
class Rows:
    """The blocks `own` of `total` ones: runs of `lengths` consecutive numbers from `starts`.

    Runs are in ascending order. The methods are collective: all of `ranks` call them.
    """

    own: Float[Tensor, "r s"]
    total: int
    starts: Int64[Tensor, " n"]
    lengths: Int64[Tensor, " n"]
    ranks: Ranks = ALONE

    @classmethod
    def of(cls, blocks: Float[Tensor, "m s"]) -> "Rows":
        """All blocks, in one process."""
        number = len(blocks)
        start = torch.zeros(1, dtype=torch.int64, device="cpu")
        return cls(blocks, number, start, torch.full_like(start, number))

    def take(self, numbers: Int64[Tensor, " c"]) -> Float[Tensor, "c s"]:
        """The blocks of these numbers, which are the same on all ranks."""
        if not self.ranks.groups:
            return self.own[numbers.to(self.own.device)]
        return self.assemble(*self.find(numbers))

    def find(
        self, numbers: Int64[Tensor, " c"]
    ) -> tuple[Bool[Tensor, " c"], Int64[Tensor, " c"]]:
        """Which of the numbers are own blocks, and which; 0 for the others."""
        if not len(self.starts):
            return torch.zeros_like(numbers, dtype=torch.bool), torch.zeros_like(numbers)
        run = (torch.searchsorted(self.starts, numbers, right=True) - 1).clamp(min=0)
        within = numbers - self.starts[run]
        held = (within >= 0) & (within < self.lengths[run])
        return held, (self._before[run] + within).where(held, 0)

    def assemble(
        self, held: Bool[Tensor, " c"], at: Int64[Tensor, " c"]
    ) -> Float[Tensor, "c s"]:
        """Blocks each of which one rank holds, as its own number `at`."""
        if not self.ranks.groups:
            return self.own[at.to(self.own.device)]
        found = self.own.new_zeros(len(at), self.own.shape[1])
        there = held.to(found.device)
        found[there] = self.own[at.to(found.device)[there]]
        return self.ranks.union(found)

    def numbers(self, at: Int64[Tensor, " c"]) -> Int64[Tensor, " c"]:
        """The numbers of own blocks among all."""
        at = at.cpu()
        if not self.ranks.groups or not len(at):
            return at
        run = torch.searchsorted(self._before, at, right=True) - 1
        return self.starts[run] + at - self._before[run]

    def cumulative(self, masses: Int64[Tensor, " r"]) -> tuple[Int64[Tensor, " r"], int]:
        """The sums of the masses of all blocks up to each own one, and the sum of all."""
        sums = masses.cumsum(0)
        if not self.ranks.groups:
            return sums, int(sums[-1])
        ends = torch.cat([sums.new_zeros(1), sums])[self._before.to(sums.device)].cpu()
        last = sums[-1:].cpu() if len(sums) else ends.new_zeros(1)
        each = torch.cat([ends, last]).diff() if len(ends) else ends
        own, number = self._among_all
        every = each.new_zeros(number)
        every[own] = each
        passed = self.ranks.sum(every).cumsum(0)
        shift = (passed[own] - each - ends).repeat_interleave(self.lengths)
        return sums + shift.to(sums.device), int(passed[-1])

    @cached_property
    def _among_all(self) -> tuple[Int64[Tensor, " n"], int]:
        """Which of the runs of all ranks, in order, the own ones are, and how many there are."""
        starts = torch.cat(self.ranks.gather(self.starts)).sort().values
        return torch.searchsorted(starts, self.starts), len(starts)

    @cached_property
    def bound(self) -> float:
        """The largest magnitude of a value."""
        most = self.own.abs().amax() if self.own.numel() else self.own.new_zeros(())
        return float(self.ranks.largest(most.double()))

    @cached_property
    def _before(self) -> Int64[Tensor, " n"]:
        return self.lengths.cumsum(0) - self.lengths
