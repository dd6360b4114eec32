"""Runs that differ in their seed alone, and the subjects that they are of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from statistics import fmean
from typing import Any

from momos._util.escaping import visible
from momos.study.cells import Cell
from momos.study.cohorts import PLAIN, cohorts
from momos.study.report.metric import METRICS, Metric
from momos.study.report.page.estimate import Estimate
from momos.study.report.page.looks import plain
from momos.study.store import Finished


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one cell but for the seed, at least one; `label` tells them from their subject's."""

    runs: tuple[Finished, ...]
    label: str

    @property
    def first(self) -> Finished:
        return self.runs[0]

    @property
    def treatment(self) -> str:
        return self.first.cell.treatment

    @property
    def settings(self) -> dict[str, Any]:
        return self.first.cell.settings

    @property
    def metric(self) -> Metric:
        return metric_of(self.first)

    @cached_property
    def score(self) -> Estimate | None:
        """The metric, in its unit."""
        return self.estimate(lambda run: self.metric.scale * run.metric)

    @property
    def mean(self) -> float:
        return self.score.mean if self.score else float("nan")

    @cached_property
    def bits_per_weight(self) -> float:
        """What the file takes of the 32 bits that every parameter has."""
        return fmean(32 / run.factor for run in self.runs)

    @property
    def factor(self) -> float:
        return 32 / self.bits_per_weight

    def estimate(self, value: Callable[[Finished], float | None]) -> Estimate | None:
        return Estimate.of(value(run) for run in self.runs)


@dataclass(frozen=True, eq=False)
class Subject:
    """One task and one network: what treatments are compared on."""

    task: str
    network: str
    groups: tuple[Group, ...]

    @property
    def title(self) -> str:
        return visible(f"{self.task}, {self.network}" if self.network else self.task)

    @property
    def metric(self) -> Metric:
        return self.groups[0].metric

    @property
    def treatments(self) -> list[str]:
        """Dense and published first, the others as they are named."""
        names = {group.treatment for group in self.groups}
        return sorted(names, key=lambda name: (name not in PLAIN, name))

    @property
    def dense(self) -> Group | None:
        """The plain dense networks: of most seeds, and with nothing of their own."""
        found = [group for group in self.groups if group.treatment in PLAIN]
        return max(found, key=lambda g: (len(g.runs), -len(g.label)), default=None)


def subjects_of(runs: Sequence[Finished]) -> list[Subject]:
    """The subjects of runs, in the order of their names."""
    found: dict[tuple[str, str, str], list[Finished]] = {}
    for run in runs:
        key = (run.cell.task, run.cell.network, run.metric_name)
        found.setdefault(key, []).append(run)
    return [
        Subject(task, network, tuple(_groups(found[task, network, metric])))
        for task, network, metric in sorted(found)
    ]


def metric_of(run: Finished) -> Metric:
    """How the metric of a run is written: as it is, if nothing is known of it."""
    name = visible(run.metric_name)
    plainly = Metric(name, "", 3, name, higher_is_better=run.higher_is_better)
    return METRICS.get(run.metric_name, plainly)


def most_of(metric: Metric) -> float:
    """The best that can be: of shares, all."""
    return 100.0 if metric.unit == " %" else inf


def seeds_of(groups: Iterable[Group]) -> str:
    """`n = 5 seeds`, or from the least to the most."""
    counts = sorted({len(group.runs) for group in groups})
    if not counts:
        return "n = 0 seeds"
    return "n = " + (
        f"{counts[0]} seed{'s' if counts[0] > 1 else ''}"
        if counts[0] == counts[-1]
        else f"{counts[0]} to {counts[-1]} seeds"
    )


def _groups(runs: Sequence[Finished]) -> list[Group]:
    """Of two runs that differ only in how often they were measured, the one measured most."""
    found = cohorts(sorted(runs, key=lambda run: -run.cell.measure_every))
    members = [tuple(cohort.runs[s] for s in sorted(cohort.runs)) for cohort in found]
    groups = map(Group, members, _labels([cohort.cell for cohort in found]))
    return sorted(groups, key=lambda g: (g.treatment not in PLAIN, g.treatment, g.label))


def _labels(cells: Sequence[Cell]) -> list[str]:
    """A label for each cell; those that would be the same say more."""
    short = [replace(cell, network="").label for cell in cells]
    long = [
        f"{label} ({_rest(cell)})" if short.count(label) > 1 else label
        for label, cell in zip(short, cells, strict=True)
    ]
    return [
        plain(f"{label} [{cell.key[:6]}]" if long.count(label) > 1 else label)
        for label, cell in zip(long, cells, strict=True)
    ]


def _rest(cell: Cell) -> str:
    words = ["trained further"] if cell.start else ["from scratch"]
    if cell.teacher:
        words.append("taught")
    if cell.epochs is not None:
        words.append(f"{cell.epochs:g} epochs")
    if cell.learning_rate is not None:
        words.append(f"rate {cell.learning_rate:g}")
    return ", ".join(words)
