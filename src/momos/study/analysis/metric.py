"""How a metric is written, and what a difference in it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from momos._util.escaping import visible
from momos.study.analysis.statistics import Estimate, shared_seeds
from momos.study.store import Finished

Runs = Mapping[int, Finished]  # by seed


@dataclass(frozen=True)
class Metric:
    """`unit` of values, `difference_unit` of differences, each with so many decimals.

    Differences are in the unit of values, or in per cent of the reference where `relative`.
    """

    label: str
    unit: str
    decimals: int
    difference_unit: str
    scale: float = 1
    higher_is_better: bool = True
    relative: bool = False

    @property
    def name(self) -> str:
        """The label without its unit."""
        return self.label.partition(",")[0]

    @property
    def best(self) -> float:
        """What no value is above: of shares, all."""
        return 100.0 if self.unit == " %" else math.inf

    def difference(self, value: float, reference: float) -> float:
        """How far a value is above the reference."""
        return 100 * (value / reference - 1) if self.relative else value - reference

    def gain(self, value: float, reference: float) -> float:
        """How much better than the reference a value is."""
        difference = self.difference(value, reference)
        return difference if self.higher_is_better else -difference

    def goodness(self, value: float) -> float:
        """A number that is larger for better values."""
        return value if self.higher_is_better else -value

    def amount(self, difference: float) -> str:
        """A difference with its unit."""
        unit = self.difference_unit
        one = unit == "points" and difference == 1
        return f"{difference:g} {unit[:-1] if one else unit}"

    def text(self, value: float) -> str:
        return number(value, self.decimals)


METRICS = {
    "accuracy": Metric("accuracy, %", " %", 2, "points", scale=100),
    "bits per character": Metric(
        "bits per character", "", 3, "%", higher_is_better=False, relative=True
    ),
}


def metric_of(run: Finished) -> Metric:
    """How a metric is written; one that nobody described is compared in per cent."""
    name, better = visible(run.metric_name), run.higher_is_better
    unknown = Metric(name, "", 4, "%", higher_is_better=better, relative=True)
    return METRICS.get(run.metric_name, unknown)


def metric_difference(first: Runs, second: Runs) -> Estimate:
    """How far the metric of `first` is above that of `second`, in the metric's unit."""
    differences = []
    for seed in shared_seeds(first, second):
        for run in (first[seed], second[seed]):
            if not math.isfinite(run.metric):
                raise ValueError(
                    f"{run.metric_name} must be finite, got {run.metric} for seed {seed}"
                )
        metric = metric_of(second[seed])
        value, reference = (metric.scale * runs[seed].metric for runs in (first, second))
        if metric.relative and not reference:
            raise ValueError(f"{metric.label} must not be 0 for seed {seed}, but is")
        differences.append(metric.difference(value, reference))
    return Estimate.of(differences)


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """A number with a true minus sign; with a plus sign as well if wanted."""
    rounded = round(value, decimals) + 0.0  # no negative zero
    return f"{rounded:{'+' if sign else ''}.{decimals}f}".replace("-", "−")


def factor_text(value: float) -> str:
    """A factor with four decimals, so that what is just below 1 can be seen to be."""
    return f"{value:.4f}" if 0.1 <= value < 10 else f"{value:.3g}"


def grouped(count: float) -> str:
    """A whole number, its thousands set apart."""
    return f"{count:,.0f}".replace(",", " ")


def counted(count: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count} {plural(count, noun)}"


def plural(count: int, noun: str) -> str:
    return noun + "s" * (count != 1)
