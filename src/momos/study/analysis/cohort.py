"""Cohorts: finished runs that differ by their seeds only, and the dense ones to compare with."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from momos._util.escaping import visible
from momos.study.analysis.metric import Metric, counted, metric_of
from momos.study.analysis.statistics import Estimate
from momos.study.cell import DENSE, PLAIN, PUBLISHED, Cell
from momos.study.store import Finished


@dataclass(frozen=True, eq=False)
class Cohort:
    """Runs by seed, at least one; `cell` is what all their cells are, but for seeds.

    `label` tells it from the others that it was made with.
    """

    cell: Cell
    runs: Mapping[int, Finished]
    label: str

    @property
    def first(self) -> Finished:
        return next(iter(self.runs.values()))

    @property
    def treatment(self) -> str:
        return self.cell.treatment

    @property
    def settings(self) -> dict[str, Any]:
        return self.cell.settings

    @property
    def full_label(self) -> str:
        """How it was made, whatever other cohorts there are."""
        return ", ".join([self.cell.label, *_further(self.cell)])

    @property
    def is_mosaic(self) -> bool:
        """Whether the networks are mosaics, which alone have a bound."""
        return any("bound" in run.lengths for run in self.runs.values())

    @property
    def is_distilled(self) -> bool:
        """Whether these are dense networks that start afresh and learn from another."""
        cell = self.cell
        return cell.treatment == DENSE and cell.teacher is not None and cell.start is None

    @property
    def is_dense(self) -> bool:
        """Whether these are networks that nothing makes simpler but training."""
        return self.treatment in PLAIN and not self.is_distilled

    @property
    def is_published(self) -> bool:
        """Whether it is one network that its authors trained, against starts of all seeds."""
        return self.treatment == PUBLISHED

    @property
    def metric(self) -> Metric:
        return metric_of(self.first)

    @property
    def values(self) -> dict[int, float]:
        """The metric by seed, in its unit."""
        return {seed: self.metric.scale * run.metric for seed, run in self.runs.items()}

    @cached_property
    def score(self) -> Estimate | None:
        """The metric over seeds; None if no run has a finite one."""
        return Estimate.of_finite(self.values.values())

    @property
    def mean(self) -> float:
        return self.score.mean if self.score else float("nan")

    @cached_property
    def bits_per_weight(self) -> float:
        """What the file takes of the 32 bits that every parameter has."""
        return fmean(32 / run.factor for run in self.runs.values())

    @property
    def factor(self) -> float:
        return 32 / self.bits_per_weight

    @property
    def file_bytes(self) -> float:
        return fmean(run.lengths["file"] / 8 for run in self.runs.values())


@dataclass(frozen=True, eq=False)
class Subject:
    """One task and one network: what treatments are compared on."""

    task: str
    network: str
    cohorts: tuple[Cohort, ...]

    @property
    def title(self) -> str:
        return visible(f"{self.task}, {self.network}" if self.network else self.task)

    @property
    def metric(self) -> Metric:
        return self.cohorts[0].metric

    @property
    def treatments(self) -> list[str]:
        """Dense and published first, the others as they are named."""
        names = {cohort.treatment for cohort in self.cohorts}
        return sorted(names, key=lambda name: (name not in PLAIN, name))

    @property
    def dense(self) -> Cohort | None:
        """The plain dense networks: of most seeds, and with the shortest label."""
        found = [cohort for cohort in self.cohorts if cohort.treatment in PLAIN]
        return max(found, key=lambda c: (len(c.runs), -len(c.label)), default=None)


def cohorts(finished: Iterable[Finished]) -> list[Cohort]:
    """The cohorts of runs, by task and in the order of the first run of each.

    Of runs that differ in how often they measured complexity, that which did so most counts.
    """
    found: dict[str, tuple[Cell, dict[int, Finished]]] = {}
    for run in finished:
        cell, seed = seedless(run.cell), run.cell.seed
        _, runs = found.setdefault(cell.key, (cell, {}))
        if seed not in runs or run.cell.measure_every > runs[seed].cell.measure_every:
            runs[seed] = run
    labels = _labels([cell for cell, _ in found.values()])
    pairs = zip(found.values(), labels, strict=True)
    everything = [
        Cohort(cell, dict(sorted(own.items())), name) for (cell, own), name in pairs
    ]
    tasks = list(dict.fromkeys(cohort.cell.task for cohort in everything))
    return sorted(everything, key=lambda cohort: tasks.index(cohort.cell.task))


def subjects_of(runs: Sequence[Finished]) -> list[Subject]:
    """The subjects of runs, in the order of their names; dense cohorts come first."""
    found: dict[tuple[str, str, str], list[Finished]] = {}
    for run in runs:
        key = (run.cell.task, run.cell.network, run.metric_name)
        found.setdefault(key, []).append(run)
    return [
        Subject(task, network, tuple(sorted(cohorts(own), key=_place)))
        for (task, network, _), own in sorted(found.items(), key=lambda pair: pair[0])
    ]


def reference_of(
    cohort: Cohort, others: Iterable[Cohort]
) -> tuple[Cohort, str] | tuple[None, str]:
    """The dense cohort that a treated one is compared with, and what that is to it.

    The one of as many epochs, the same start and teacher; else that of the start. For a distilled
    network, that of its teacher.
    """
    cell = cohort.cell
    if cohort.is_distilled:
        wanted = [(cell.teacher, "its teacher")]
    else:
        twin = replace(cell, treatment=DENSE, settings={})
        wanted = [(twin, "the dense network"), (cell.start, "its dense start")]
    by_key = {other.cell.key: other for other in others if other.treatment in PLAIN}
    for each, name in wanted:
        if each is not None and each.key in by_key:
            return by_key[each.key], name
    return None, ""


def seedless(cell: Cell) -> Cell:
    """What all cells are that differ by their seeds, and those of the cells they need."""
    return replace(
        cell,
        seed=0,
        measure_every=0,
        start=cell.start and seedless(cell.start),
        teacher=cell.teacher and seedless(cell.teacher),
    )


def seeds_of(found: Iterable[Cohort]) -> str:
    """`n = 5 seeds`, or from the least to the most."""
    counts = sorted({len(cohort.runs) for cohort in found}) or [0]
    if counts[0] == counts[-1]:
        return f"n = {counted(counts[0], 'seed')}"
    return f"n = {counts[0]} to {counts[-1]} seeds"


def _place(cohort: Cohort) -> tuple[bool, str, str]:
    return cohort.treatment not in PLAIN, cohort.treatment, cohort.label


def _labels(cells: Sequence[Cell]) -> list[str]:
    """A label for each cell; those that would be the same say more."""
    labels = [replace(cell, network="").label for cell in cells]
    for more in (lambda cell: f" ({_rest(cell)})", lambda cell: f" [{cell.key[:6]}]"):
        pairs = list(zip(labels, cells, strict=True))
        counts = Counter((cell.task, cell.network, label) for label, cell in pairs)
        labels = [
            label + more(cell) * (counts[cell.task, cell.network, label] > 1)
            for label, cell in pairs
        ]
    return list(map(plain, labels))


def _rest(cell: Cell) -> str:
    words = ["trained further"] if cell.start else ["from scratch"]
    if cell.teacher:
        words.append("taught")
    if cell.epochs is not None:
        words.append(f"{cell.epochs:g} epochs")
    if cell.learning_rate is not None:
        words.append(f"rate {cell.learning_rate:g}")
    return ", ".join(words)


def _further(cell: Cell) -> list[str]:
    words = []
    if cell.epochs is not None:
        words.append(f"{cell.epochs:g} epochs")
    if cell.learning_rate is not None:
        words.append(f"learning rate {cell.learning_rate:g}")
    if cell.start is not None:
        words.append("from trained weights")
    if cell.teacher is not None:
        words.append("with a teacher")
    return words


def plain(text: str) -> str:
    """Words that a figure can show: hidden characters are escaped, and no legend hides them."""
    seen = visible(text)
    return f" {seen}" if seen.startswith("_") else seen
