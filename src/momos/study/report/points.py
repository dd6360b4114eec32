"""Runs of one treatment and one choice of settings, taken together over their seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from momos.study.report.lines import TREATMENTS, Line
from momos.study.report.metric import Metric, metric_of
from momos.study.statistics import Difference, mean_of

LEAST = 3  # seeds from which an interval is given
NOTHING = 1e-6  # a learning rate that trains nothing


@dataclass(frozen=True)
class Point:
    """One place in the picture: the lines of one cell, at least one."""

    lines: tuple[Line, ...]

    @property
    def treatment(self) -> str:
        return self.lines[0].treatment

    @property
    def label(self) -> str:
        return TREATMENTS[self.treatment]

    @property
    def epochs(self) -> float:
        return self.lines[0].epochs

    @property
    def given(self) -> bool:
        """Whether these are dense networks as their authors published them."""
        line = self.lines[0]
        return line.treatment == "dense" and not line.start and line.learning_rate < NOTHING

    @property
    def metric(self) -> Metric:
        return metric_of(self.lines[0].metric_name)

    @property
    def values(self) -> dict[int, float]:
        """The metric by seed."""
        return {line.seed: self.metric.scale * line.metric for line in self.lines}

    @property
    def mean(self) -> float:
        return mean(self.values.values())

    @property
    def deviation(self) -> float | None:
        values = list(self.values.values())
        return stdev(values) if len(values) > 1 else None

    @property
    def file_bytes(self) -> float:
        return mean(line.file_bytes for line in self.lines)

    @property
    def factor(self) -> float:
        """How many times smaller than all parameters in 32 bits the files are."""
        return self.lines[0].dense_bytes / self.file_bytes

    def difference(self, reference: "Point") -> Difference | None:
        """To another point, seed by seed, with a 95 % interval; None if they share no seed."""
        others = reference.values
        values = self.values
        found = [
            self.metric.difference(values[seed], others[seed])
            for seed in sorted(values.keys() & others.keys())
        ]
        return mean_of(found) if found else None


def points_of(lines: Iterable[Line]) -> list[Point]:
    """One point for each cell: by treatment, epochs and size, largest files first."""
    cells: dict[tuple, list[Line]] = {}
    for line in lines:
        cells.setdefault(line.cell, []).append(line)
    order = list(TREATMENTS)
    return sorted(
        (Point(tuple(group)) for group in cells.values()),
        key=lambda point: (order.index(point.treatment), point.epochs, point.factor),
    )


def reference_of(points: Sequence[Point]) -> Point:
    """The dense networks that the others start from.

    Raises:
        ValueError: if there are none, or dense networks were trained in several ways.
    """
    found = [
        point
        for point in points
        if point.treatment == "dense"
        and not (point.lines[0].start or point.lines[0].settings)
    ]
    if len(found) != 1:
        raise ValueError(
            f"dense networks must be trained from scratch in one way, got {len(found)}"
        )
    return found[0]


def seeds_of(points: Sequence[Point]) -> str:
    """How many seeds there are: one number, or the least and the greatest."""
    counts = sorted({len(point.lines) for point in points})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
