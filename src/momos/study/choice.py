"""Which line of a history is the best, and whether training stops at the last.

Both follow from the lines alone, which are in every checkpoint: a resumed run decides as if it
had never been interrupted. Lightning's EarlyStopping forgets a stop that was decided before a
kill, compares in float32, and knows no lines that do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isnan
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """By `validation` of lines; those before `settled`, an epoch, and before training do not count.

    `patience` is how many lines in a row may be no better than the best before them; 0: all.
    """

    settled: int
    patience: int
    higher_is_better: bool

    @classmethod
    def of(
        cls,
        share: float,
        *,
        total_steps: int,
        steps_per_epoch: int,
        patience: int,
        higher_is_better: bool,
    ) -> "Choice":
        """With lines that count from a share of the steps on; the last always does."""
        settled = min(ceil(share * total_steps), total_steps)
        return cls(-(-settled // steps_per_epoch), patience, higher_is_better)

    def best(self, lines: Sequence[Line]) -> Line | None:
        """The first of the best lines; None if none counts."""
        return max(self._counted(lines), key=self._worth, default=None)

    def stops(self, lines: Sequence[Line]) -> bool:
        """Whether training ends with the last of these lines, for want of a better one."""
        counted = self._counted(lines)
        if not self.patience or not counted:
            return False
        worths = [self._worth(line) for line in counted]
        return len(worths) - 1 - worths.index(max(worths)) >= self.patience

    def _counted(self, lines: Sequence[Line]) -> list[Line]:
        return [line for line in lines if line["epoch"] >= max(1, self.settled)]

    def _worth(self, line: Line) -> float:
        value = line["validation"]
        if isnan(value):
            return -inf
        return value if self.higher_is_better else -value
