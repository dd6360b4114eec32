"""Cohorts: finished runs that differ by their seeds only, and the dense ones to compare with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from momos.study.cells import Cell
from momos.study.store import Finished
from momos.study.treatments import PUBLISHED

DENSE = "dense"
PLAIN = (DENSE, PUBLISHED)  # treatments that make nothing simpler but by training


@dataclass(frozen=True, eq=False)
class Cohort:
    """`cell` is what the cells of all of them are, but for seeds; `runs` are by seed."""

    cell: Cell
    runs: Mapping[int, Finished]

    @property
    def label(self) -> str:
        """What makes it differ from other cohorts of its task."""
        cell = self.cell
        words = [cell.label]
        if cell.epochs is not None:
            words.append(f"{cell.epochs:g} epochs")
        if cell.learning_rate is not None:
            words.append(f"learning rate {cell.learning_rate:g}")
        if cell.start is not None:
            words.append("from trained weights")
        if cell.teacher is not None:
            words.append("with a teacher")
        return ", ".join(words)

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
        return self.cell.treatment in PLAIN and not self.is_distilled

    @property
    def is_published(self) -> bool:
        """Whether it is one network that its authors trained, against starts of all seeds."""
        return self.cell.treatment == PUBLISHED


def cohorts(finished: Iterable[Finished]) -> list[Cohort]:
    """The cohorts of runs, by task and in the order of the first run of each.

    How often complexity was measured on the way makes no difference. Of two runs of one cell
    the first counts.
    """
    found: dict[str, tuple[Cell, dict[int, Finished]]] = {}
    for run in finished:
        cell = seedless(run.cell)
        _, runs = found.setdefault(cell.key, (cell, {}))
        runs.setdefault(run.cell.seed, run)
    everything = [Cohort(cell, runs) for cell, runs in found.values()]
    tasks = list(dict.fromkeys(cohort.cell.task for cohort in everything))
    return sorted(everything, key=lambda cohort: tasks.index(cohort.cell.task))


def reference_of(cohort: Cohort, others: Iterable[Cohort]) -> tuple[Cohort, str] | None:
    """The dense cohort that a treated one is compared with, and what that is to it.

    The one trained likewise: in as many epochs, from the same start, with the same teacher. If
    there is none, that of the start. For a distilled network, that of its teacher.
    """
    cell = cohort.cell
    if cohort.is_distilled:
        wanted = [(cell.teacher, "its teacher")]
    else:
        twin = replace(cell, treatment=DENSE, settings={})
        wanted = [(twin, "the dense network"), (cell.start, "its dense start")]
    by_key = {other.cell.key: other for other in others if other.cell.treatment in PLAIN}
    for each, name in wanted:
        if each is not None and each.key in by_key:
            return by_key[each.key], name
    return None


def seedless(cell: Cell) -> Cell:
    """What all cells are that differ by their seeds, and those of the cells they need."""
    return replace(
        cell,
        seed=0,
        measure_every=0,
        start=cell.start and seedless(cell.start),
        teacher=cell.teacher and seedless(cell.teacher),
    )
