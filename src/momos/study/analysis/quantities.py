"""What cohorts are compared by: measures and lengths, of which less is simpler."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from momos.study.analysis.metric import Runs
from momos.study.analysis.statistics import Estimate, ratio, shared_seeds
from momos.study.store import Finished, Row

FILE_LENGTH = "file length"


@dataclass(frozen=True)
class Split:
    """A ratio, and the part of it due to the arrangement of weights, if known.

    The rest is due to their values. Making one raises ValueError where no seed is shared.
    """

    ratio: Estimate
    arrangement: Estimate | None

    @classmethod
    def of(
        cls,
        values: Mapping[int, float],
        others: Mapping[int, float],
        arrangements: Mapping[int, float],
    ) -> "Split":
        """Of values by seed over others."""
        found, shared = ratio(values, others), shared_seeds(values, others)
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

    A rate, raw over compressed, is inverted, so that lower always means simpler.
    """

    name: str
    kind: str
    unit: str

    def __str__(self) -> str:
        if self.kind == "code":
            return f"{self.name} (code, {self.unit})"
        return f"{self.name} (score{', turned over' if self.unit == 'ratio' else ''})"

    def row(self, run: Finished) -> Row | None:
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
        """How many times the value of its initialization each run has."""
        return Split.of(self.values(runs), self.init_values(runs), self.arrangements(runs))

    def against(self, runs: Runs, others: Runs) -> Split:
        """How many times the value of the other run of its seed each run has."""
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


def measures_of(runs: Iterable[Finished]) -> list[Quantity]:
    """The same without the length of the file."""
    return [each for each in quantities_of(runs) if each.name != FILE_LENGTH]


def _positive(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: v for seed, v in values.items() if v is not None and 0 < v < math.inf}
