"""All treatments side by side: metric, size, and every measure against the dense network."""

from collections.abc import Iterator, Sequence

import numpy as np

from momos.study.claims import comparable
from momos.study.cohorts import DENSE, Cohort, cohorts, reference_of
from momos.study.quantities import (
    FILE_LENGTH,
    Quantity,
    metric_difference,
    metric_of,
    quantities_of,
)
from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.page.groups import subjects_of
from momos.study.report.page.lengths import accuracy_against_length
from momos.study.report.page.picture import Picture
from momos.study.report.results.part import (
    LEAST,
    NONE,
    Part,
    by_task,
    differing,
    of_recipe,
    score,
)
from momos.study.statistics import Ratio
from momos.study.store import Finished


def compressors_part(runs: Sequence[Finished]) -> Part:
    """A table for each task, of all networks that its treatments left."""
    own = of_recipe(runs, "compressors")
    tables = []
    tasks = dict.fromkeys(task for task, _ in by_task(own))
    for task in tasks:
        found = [run for run in own if run.cell.task == task]
        tables.append(f"### {task}\n\n{_table(found)}")
    return Part("\n".join(tables), [*_pictures(own)])


def _pictures(runs: Sequence[Finished]) -> Iterator[Picture]:
    for subject in subjects_of(runs):
        picture = accuracy_against_length(subject)
        if picture is not None and len(subject.groups) > 1:
            yield picture


def _table(runs: Sequence[Finished]) -> str:
    everything = sorted(cohorts(runs), key=_order)
    dense = everything[0].runs.values()
    quantities = [q for q in quantities_of(dense) if q.name != FILE_LENGTH]
    label = metric_of(runs[0]).label
    unit = metric_of(runs[0]).difference_unit
    header = (
        *("treatment", "against", "seeds", label, f"difference, {unit}", "comparable"),
        *("times smaller", *(f"{q.name} ({q.kind})" for q in quantities)),
    )
    rows = [_row(cohort, everything, quantities) for cohort in everything]
    return markdown(header, rows, left=2)


def _order(cohort: Cohort) -> tuple[bool, bool, bool]:
    """The start, the same trained on, what they are compared with."""
    return cohort.is_distilled, not cohort.is_dense, cohort.cell.start is not None


def _row(
    cohort: Cohort, everything: Sequence[Cohort], quantities: Sequence[Quantity]
) -> tuple[str, ...]:
    runs = list(cohort.runs.values())
    found = (
        None if cohort.cell.treatment == "published" else reference_of(cohort, everything)
    )
    start = (
        _name(cohort),
        NONE if found is None or found[0] is cohort else found[1],
        str(len(runs)),
        score(cohort, metric_of(runs[0])),
    )
    factor = number(float(np.mean([run.factor for run in runs])), 1)
    if found is None or found[0] is cohort:
        return (*start, NONE, NONE, factor, *[NONE] * len(quantities))
    reference, _ = found
    ratios = (_ratio(quantity, cohort, reference) for quantity in quantities)
    return (*start, *_metric(cohort, reference), factor, *ratios)


def _name(cohort: Cohort) -> str:
    cell = cohort.cell
    if cohort.is_distilled:
        return f"{cell.network or 'the same network'}, distilled"
    if cohort.is_published or cell.treatment != DENSE:
        return cell.label
    return f"{cell.label}, {'the start' if cell.start is None else 'trained on'}"


def _metric(cohort: Cohort, reference: Cohort) -> tuple[str, str]:
    try:
        found = metric_difference(cohort.runs, reference.runs)
    except ValueError:
        return NONE, NONE
    words = {"supported": "yes", "not supported": "no", "undecided": "undecided"}
    return differing(found), words[comparable(cohort, reference)]


def _ratio(quantity: Quantity, cohort: Cohort, reference: Cohort) -> str:
    """The ratio, with an arrow where its interval leaves 1 out."""
    try:
        found = quantity.against(cohort.runs, reference.runs).ratio
    except ValueError:
        return NONE
    return f"{number(found.mean, 3)}{_arrow(found)}"


def _arrow(found: Ratio) -> str:
    if found.n < LEAST or not found.decided:
        return ""
    return " ↓" if found.high < 1 else " ↑"
