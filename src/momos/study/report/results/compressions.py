"""All treatments side by side: metric, size, and every measure against the dense network."""

from collections.abc import Iterator, Sequence

from momos.study.claims import LEAST
from momos.study.cohorts import DENSE, Cohort, cohorts, reference_of
from momos.study.quantities import FILE_LENGTH, Quantity, metric_of, quantities_of
from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.page.groups import subjects_of
from momos.study.report.page.lengths import accuracy_against_length
from momos.study.report.page.picture import Picture
from momos.study.report.results.part import (
    NONE,
    Part,
    compared,
    factor,
    of_recipe,
    score,
    title,
)
from momos.study.statistics import Ratio
from momos.study.store import Finished


def compressors_part(runs: Sequence[Finished]) -> Part:
    """A table for each task, of all networks that its treatments left."""
    own = of_recipe(runs, "compressors")
    tables = []
    for task in sorted({run.cell.task for run in own}):
        found = [run for run in own if run.cell.task == task]
        tables.append(f"### {title(task, '')}\n\n{_table(found)}")
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
    found = None if cohort.is_published else reference_of(cohort, everything)
    start = (
        _name(cohort),
        NONE if found is None or found[0] is cohort else found[1],
        str(len(runs)),
        score(cohort, metric_of(runs[0])),
    )
    if found is None or found[0] is cohort:
        return (*start, NONE, NONE, factor(cohort), *[NONE] * len(quantities))
    reference, _ = found
    ratios = (_ratio(quantity, cohort, reference) for quantity in quantities)
    return (*start, *compared(cohort, reference), factor(cohort), *ratios)


def _name(cohort: Cohort) -> str:
    cell = cohort.cell
    if cohort.is_distilled:
        return f"{cell.network or 'the same network'}, distilled"
    if cohort.is_published or cell.treatment != DENSE:
        return cell.label
    return f"{cell.label}, {'the start' if cell.start is None else 'trained on'}"


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
