"""A mean over seeds, and how sure it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from momos.study.statistics import interval

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` values, and the ends of its interval: bootstrap, 95 %."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Estimate | None":
        """That of the finite values among them; None if there are none."""
        finite = [value for value in values if value is not None and isfinite(value)]
        if not finite:
            return None
        mean = fmean(finite)
        low, high = interval(finite, level=LEVEL)
        return cls(mean, min(low, mean), max(high, mean), len(finite))

    @property
    def bars(self) -> list[list[float]]:
        """As matplotlib takes the lengths of error bars."""
        return [[self.mean - self.low], [self.high - self.mean]]
