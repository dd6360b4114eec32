"""What learned motifs should reach, what they reach, and where they are not above the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from momos.study.report.points import LEAST, Point
from momos.study.report.series import Series
from momos.study.statistics import mean_of

FROM = 5.0  # times smaller, from which learned motifs are held against all others


@dataclass(frozen=True)
class Goal:
    """A file so many times smaller than dense, losing no more than `loss`.

    In the unit of the metric's differences.
    """

    name: str
    factor: float
    loss: float


GOALS = {
    "digits": (Goal("must", 35, 0.5), Goal("aim", 60, 0.5)),
    "fashion": (Goal("must", 30, 0.5), Goal("aim", 50, 0.5)),
    "resnet20": (Goal("must", 15, 1.0), Goal("aim", 39.5, 0.5)),
    "shakespeare": (Goal("must", 12, 2.0), Goal("aim", 30, 2.0)),
}


def smallest(points: Sequence[Point], reference: Point, loss: float) -> Point | None:
    """The point of the smallest file that loses no more on the mean over its seeds.

    Only points that have every seed of the reference count.
    """
    held = [
        point
        for point in points
        if point.values.keys() >= reference.values.keys()
        and loss_of(point, reference) <= loss
    ]
    return max(held, key=lambda point: point.factor, default=None)


def loss_of(point: Point, reference: Point) -> float:
    """How much worse than the reference a point is; they must share a seed."""
    difference = point.difference(reference)
    if difference is None:
        raise ValueError("a point and its reference must share a seed, got none")
    return -difference.mean if point.metric.higher_is_better else difference.mean


@dataclass(frozen=True)
class Comparison:
    """A point of another treatment, and the learned line at its size, for each seed as well."""

    point: Point
    learned: float
    by_seed: Mapping[int, float]
    smaller: (
        Point | None
    )  # the smallest learned point, no larger, that does at least as well

    @property
    def gain(self) -> float:
        """How much better the learned line is."""
        return self.point.metric.gain(self.learned, self.point.mean)

    @property
    def beyond_chance(self) -> bool | None:
        """Whether the 95 % interval of the gain over seeds leaves out zero; None without one."""
        values = self.point.values
        gains = [
            self.point.metric.gain(learned, values[seed])
            for seed, learned in self.by_seed.items()
            if seed in values
        ]
        return mean_of(gains).decided if len(gains) >= LEAST else None


def compare(series: Sequence[Series]) -> tuple[list[Comparison], list[Point]]:
    """Every point of other treatments that is small enough, with the learned line of as many
    epochs, best for the others first; and those for which no learned file is as small."""
    compared, beyond = [], []
    for each in series:
        if each.treatment in ("learned", "dense"):
            continue
        learned = learned_line(series, each.epochs)
        for point in each.points:
            if point.factor < FROM:
                continue
            value = None if learned is None else learned.at(point.factor)
            if learned is None or value is None:
                beyond.append(point)
            else:
                compared.append(
                    Comparison(
                        point,
                        value,
                        learned.by_seed(point.factor),
                        _smaller(learned, point),
                    )
                )
    return sorted(compared, key=lambda comparison: comparison.gain), beyond


def _smaller(learned: Series, point: Point) -> Point | None:
    found = [
        each
        for each in learned.points
        if each.factor >= point.factor and point.metric.gain(each.mean, point.mean) >= 0
    ]
    return max(found, key=lambda each: each.factor, default=None)


def learned_line(series: Sequence[Series], epochs: float) -> Series | None:
    """The learned series of so many epochs, if there is one."""
    found = [
        each for each in series if (each.treatment, each.epochs) == ("learned", epochs)
    ]
    return found[0] if found else None
