"""What is drawn as one line: the points of one treatment, trained for equally long."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Protocol, TypeVar

import numpy as np

from momos.study.report.metric import Metric
from momos.study.report.points import Point


class Placed(Protocol):
    """What has a place in the picture of a metric against size."""

    @property
    def factor(self) -> float: ...
    @property
    def mean(self) -> float: ...
    @property
    def metric(self) -> Metric: ...


P = TypeVar("P", bound=Placed)


@dataclass(frozen=True)
class Series:
    """`points` by size, largest files first, and those that the line goes through.

    Where more than one setting varies, settings compete at equal size, and the line is the
    envelope: the points that no other one beats in both size and metric. Else it is all points.
    """

    points: tuple[Point, ...]
    line: tuple[Point, ...]

    @property
    def treatment(self) -> str:
        return self.points[0].treatment

    @property
    def epochs(self) -> float:
        return self.points[0].epochs

    @property
    def competing(self) -> bool:
        return len(self.line) < len(self.points)

    def at(self, factor: float) -> float | None:
        """The metric where the line is so small, linear in the logarithm of size.

        Larger than all of its files, the line is taken to go on level from its largest, since a
        smaller file that does as well is no worse. Smaller than all, there is None.
        """
        if factor > self.line[-1].factor:
            return None
        return self._interpolated(factor, [point.mean for point in self.line])

    def by_seed(self, factor: float) -> dict[int, float]:
        """The same for each seed that all points of the line have, at sizes that are means."""
        values = [point.values for point in self.line]
        seeds = set.intersection(*(set(each) for each in values))
        return {
            seed: self._interpolated(factor, [each[seed] for each in values])
            for seed in sorted(seeds)
        }

    def _interpolated(self, factor: float, values: Sequence[float]) -> float:
        factors = [point.factor for point in self.line]
        return float(np.interp(log(factor), np.log(factors), values))


def series_of(points: Sequence[Point]) -> list[Series]:
    """Series by treatment and number of epochs, in the order of the points."""
    groups: dict[tuple[str, float], list[Point]] = {}
    for point in points:
        groups.setdefault((point.treatment, point.epochs), []).append(point)
    return [_series(group) for group in groups.values()]


def envelope(points: Sequence[P]) -> list[P]:
    """The points that no other is as good as and smaller, or as small as and better."""
    kept: list[P] = []
    for point in sorted(points, key=lambda point: (-point.factor, -_goodness(point))):
        if not kept or _goodness(point) > _goodness(kept[-1]):
            kept.append(point)
    return kept[::-1]


def varied(points: Sequence[Point]) -> list[str]:
    """Names of settings that the points differ in."""
    names = sorted({name for point in points for name in point.lines[0].settings})
    return [
        name
        for name in names
        if len({repr(point.lines[0].settings.get(name)) for point in points}) > 1
    ]


def _series(group: Sequence[Point]) -> Series:
    points = sorted(group, key=lambda point: point.factor)
    line = envelope(points) if len(varied(points)) > 1 else points
    return Series(tuple(points), tuple(line))


def _goodness(point: Placed) -> float:
    return point.mean if point.metric.higher_is_better else -point.mean
