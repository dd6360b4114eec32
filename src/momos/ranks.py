"""Sums and shares over the processes of a run; the identity when there is one process.

Blocks are numbered over the whole network, so results do not depend on how many processes
share the work: each takes the rows between its `edges`, and sums are taken over all.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """One process among `size`."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if self.size != 1 or self.rank != 0:
            raise ValueError(
                f"ranks must be 0 of 1 (one process) in this version, got {self.rank} of "
                f"{self.size}"
            )

    def edges(self, total: int) -> tuple[int, int]:
        """First row and end of this process's share of `total` rows."""
        return self.rank * total // self.size, (self.rank + 1) * total // self.size

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes."""
        return values


ALONE = Ranks()
