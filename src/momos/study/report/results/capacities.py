"""Accuracy by block size and capacity, and what is lost against the dense network."""

from collections.abc import Sequence

from momos.study.claims import COMPARABLE, comparable
from momos.study.cohorts import Cohort, reference_of
from momos.study.quantities import metric_of
from momos.study.report.markdown import markdown
from momos.study.report.page.capacities import accuracy_against_capacity
from momos.study.report.page.groups import subjects_of
from momos.study.report.results.part import (
    NONE,
    Part,
    by_task,
    compared,
    factor,
    of_recipe,
    score,
    title,
)
from momos.study.store import Finished


def capacity_part(runs: Sequence[Finished]) -> Part:
    """A table for each task, and the paper's figure."""
    own = of_recipe(runs, "capacity")
    tables = [
        f"### {title(task, network)}\n\n{_table(found)}"
        for (task, network), found in by_task(own).items()
    ]
    pictures = [
        p for subject in subjects_of(own) for p in accuracy_against_capacity(subject)
    ]
    return Part("\n".join(tables), pictures)


def _table(found: Sequence[Cohort]) -> str:
    metric = metric_of(next(iter(found[0].runs.values())))
    header = (
        *("block size s", "capacity c, %", "seeds", metric.label),
        *(f"difference, {metric.difference_unit}", "comparable", "times smaller"),
    )
    rows = [_row(cohort, found) for cohort in sorted(found, key=_order)]
    limit = metric.amount(COMPARABLE[metric.difference_unit])
    least = "; ".join(_least(size, found) for size in _sizes(found))
    text = (
        f"The least capacity from which on no more than {limit} are lost, by the whole "
        f"interval: {least}.\n"
    )
    return f"{markdown(header, rows, left=0)}\n{text}"


def _order(cohort: Cohort) -> tuple[int, float]:
    """Block size and capacity, 0 for dense networks."""
    settings = cohort.cell.settings
    return settings.get("block_size", 0), settings.get("capacity", 0)


def _sizes(found: Sequence[Cohort]) -> list[int]:
    return sorted({_order(each)[0] for each in found if each.cell.settings})


def _row(cohort: Cohort, found: Sequence[Cohort]) -> tuple[str, ...]:
    runs = list(cohort.runs.values())
    size, capacity = _order(cohort)
    reference = reference_of(cohort, found)
    ends = (NONE, NONE)
    if reference is not None and reference[0] is not cohort:
        ends = compared(cohort, reference[0])
    return (
        f"{size:g}" if size else "dense",
        f"{100 * capacity:g}" if capacity else NONE,
        str(len(runs)),
        score(cohort, metric_of(runs[0])),
        *ends,
        factor(cohort),
    )


def _least(size: int, found: Sequence[Cohort]) -> str:
    """The least capacity of a block size from which on all are comparable."""
    own = sorted((each for each in found if _order(each)[0] == size), key=_order)
    least = None
    for cohort in reversed(own):
        reference = reference_of(cohort, found)
        if reference is None or comparable(cohort, reference[0]) != "supported":
            break
        least = _order(cohort)[1]
    return f"s = {size}, " + ("none of these" if least is None else f"{100 * least:g} %")
