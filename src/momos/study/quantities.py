"""What runs are compared by: measures and lengths, of which less is simpler, and the metric."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from momos._util.escaping import visible
from momos.study.report.metric import METRICS, Metric
from momos.study.statistics import Difference, Ratio, paired, ratio, shared_seeds
from momos.study.store import Finished

FILE_LENGTH = "file length"
Runs = Mapping[int, Finished]  # by seed


@dataclass(frozen=True)
class Split:
    """A ratio, and the part of it that is due to the arrangement of weights, if that is known.

    The rest, ratio / arrangement, is due to what values there are.
    """

    ratio: Ratio
    arrangement: Ratio | None

    @classmethod
    def of(
        cls,
        values: Mapping[int, float],
        others: Mapping[int, float],
        arrangements: Mapping[int, float],
    ) -> "Split":
        """Of values by seed over others.

        Raises:
            ValueError: if they share no seed.
        """
        found = ratio(values, others)
        shared = shared_seeds(values, others)
        if not arrangements.keys() >= set(shared):
            return cls(found, None)
        return cls(found, ratio(arrangements, dict.fromkeys(shared, 1.0)))

    @property
    def rest(self) -> float | None:
        """What the other part is, on the geometric mean."""
        return None if self.arrangement is None else self.ratio.mean / self.arrangement.mean


@dataclass(frozen=True)
class Quantity:
    """The length of the file, or one measure of whole networks.

    A rate, raw over compressed, is turned over, so that less is simpler here as well.
    """

    name: str
    kind: str
    unit: str

    def __str__(self) -> str:
        if self.kind == "code":
            return f"{self.name} (code, {self.unit})"
        return f"{self.name} (score{', turned over' if self.unit == 'ratio' else ''})"

    def row(self, run: Finished) -> dict[str, Any] | None:
        return None if self.name == FILE_LENGTH else run.measure(self.name)

    def values(self, runs: Runs) -> dict[int, float]:
        """By seed, where there is one above 0, as a ratio needs."""
        if self.name == FILE_LENGTH:
            return _positive({seed: run.lengths.get("file") for seed, run in runs.items()})
        return self._of("value", runs)

    def init_values(self, runs: Runs) -> dict[int, float]:
        """Those of the initializations."""
        return self._of("init_value", runs)

    def arrangements(self, runs: Runs) -> dict[int, float]:
        """Values over those of shuffles of the same weights."""
        return self._of("arrangement", runs)

    def against_init(self, runs: Runs) -> Split:
        """How many times the value of its initialization each run has.

        Raises:
            ValueError: if no run has both.
        """
        return Split.of(self.values(runs), self.init_values(runs), self.arrangements(runs))

    def against(self, runs: Runs, others: Runs) -> Split:
        """How many times the value of the other run of its seed each run has.

        Raises:
            ValueError: if no seed has it in both.
        """
        ours, theirs = self.arrangements(runs), self.arrangements(others)
        arrangements = {seed: ours[seed] / theirs[seed] for seed in ours.keys() & theirs}
        return Split.of(self.values(runs), self.values(others), arrangements)

    def why_not(self, *several: Runs) -> str:
        """Why a value of the runs is missing, or one of their initializations."""
        rows = [self.row(run) for runs in several for run in runs.values()]
        reasons = {row.get("unavailable", "") for row in rows if row}
        return "; ".join(sorted(filter(None, reasons))) or "not measured, or 0"

    def _of(self, name: str, runs: Runs) -> dict[int, float]:
        rows = {seed: self.row(run) for seed, run in runs.items()}
        found = _positive({seed: row.get(name) for seed, row in rows.items() if row})
        if self.unit == "ratio":
            return {seed: 1 / value for seed, value in found.items()}
        return found


def quantities_of(runs: Iterable[Finished]) -> list[Quantity]:
    """The length of the file, then every measure that one of the runs has, in its order."""
    found = {FILE_LENGTH: Quantity(FILE_LENGTH, "code", "bits")}
    for run in runs:
        for row in run.measures:
            if not row["tensor"]:
                name = row["name"]
                found.setdefault(name, Quantity(name, row["kind"], row["unit"]))
    return list(found.values())


def metric_of(run: Finished) -> Metric:
    """How a metric is written; one that nobody described is told apart in per cent."""
    name = visible(run.metric_name)
    better = run.higher_is_better
    unknown = Metric(name, "", 4, "%", higher_is_better=better, relative=True)
    return METRICS.get(run.metric_name, unknown)


def metric_difference(first: Runs, second: Runs) -> Difference:
    """How far the metric of `first` is above that of `second`, in the metric's unit.

    Raises:
        ValueError: if they share no seed, or a metric is not finite (names the seed).
    """
    shared = shared_seeds(first, second)
    for seed in shared:
        for run in (first[seed], second[seed]):
            if not math.isfinite(run.metric):
                raise ValueError(
                    f"{run.metric_name} must be finite, got {run.metric} for seed {seed}"
                )
    differences = {}
    for seed in shared:
        metric = metric_of(second[seed])
        value, reference = (metric.scale * runs[seed].metric for runs in (first, second))
        if metric.relative and not reference:
            raise ValueError(f"{metric.label} must not be 0 for seed {seed}, but is")
        differences[seed] = metric.difference(value, reference)
    return paired(differences, dict.fromkeys(second, 0.0))


def factor_text(value: float) -> str:
    """A factor with four decimals, so that what is just below 1 can be seen to be."""
    return f"{value:.4f}" if 0.1 <= value < 10 else f"{value:.3g}"


def _positive(values: Mapping[int, float | None]) -> dict[int, float]:
    return {
        seed: value
        for seed, value in values.items()
        if value is not None and math.isfinite(value) and value > 0
    }
