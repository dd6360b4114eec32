"""Start against trained network, measure by measure."""

from collections.abc import Iterator, Sequence

from momos.study.claims import verdict_of
from momos.study.cohorts import Cohort
from momos.study.quantities import FILE_LENGTH, Quantity, metric_of, quantities_of
from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.page.estimate import Estimate
from momos.study.report.results.part import (
    NONE,
    Part,
    by_task,
    of_recipe,
    score,
    seeds_said,
    times,
    title,
    trained_as,
)
from momos.study.store import Finished

HEADER = (
    "measure",
    "trained as",
    "start",
    "trained",
    "trained / start",
    "arrangement",
    "values",
    "verdict",
)


def simplify_part(runs: Sequence[Finished]) -> Part:
    """A table for each task: all measures, and under which training."""
    tables = []
    for (task, network), found in by_task(of_recipe(runs, "simplify")).items():
        cohorts = [each for each in found if each.is_dense and each.cell.start is None]
        if cohorts:
            tables.append(_table(title(task, network), cohorts))
    return Part("\n".join(tables))


def _table(heading: str, cohorts: Sequence[Cohort]) -> str:
    quantities = quantities_of(run for each in cohorts for run in each.runs.values())
    rows = [
        _row(quantity, cohort)
        for quantity in quantities
        if quantity.name != FILE_LENGTH
        for cohort in cohorts
    ]
    said = "; ".join(_said(each) for each in cohorts)
    return f"### {heading}\n\n{said}.\n\n{markdown(HEADER, rows, left=2)}"


def _said(cohort: Cohort) -> str:
    """How a cohort was trained, how well it does, and of how many seeds it is."""
    runs = list(cohort.runs.values())
    metric = metric_of(runs[0])
    if cohort.is_published:
        value = metric.text(metric.scale * runs[0].metric)
        return f"published: {value} {metric.label} (one network, n = {len(runs)} starts)"
    seeds = seeds_said(len(runs))
    return f"{trained_as(cohort.cell)}: {score(cohort, metric)} {metric.label} ({seeds})"


def _row(quantity: Quantity, cohort: Cohort) -> tuple[str, ...]:
    name = f"{quantity.name} ({quantity.kind})"
    try:
        found = quantity.against_init(cohort.runs)
    except ValueError:
        return (name, trained_as(cohort.cell), *[NONE] * 5, "undecided")
    return (
        name,
        trained_as(cohort.cell),
        *_levels(quantity, cohort),
        times(found.ratio, 4),
        NONE if found.arrangement is None else number(found.arrangement.mean, 4),
        NONE if found.rest is None else number(found.rest, 4),
        verdict_of(found.ratio),
    )


def _levels(quantity: Quantity, cohort: Cohort) -> Iterator[str]:
    """Bits per weight at the start and trained; of a score, the score."""
    for values in (quantity.init_values(cohort.runs), quantity.values(cohort.runs)):
        if quantity.kind != "code":
            found = Estimate.of(values.values())
            yield NONE if found is None else f"{found.mean:.4g}"
            continue
        sizes = {
            s: row["num_weights"]
            for s, run in cohort.runs.items()
            if (row := quantity.row(run)) and row.get("num_weights")
        }
        found = Estimate.of(values[seed] / sizes[seed] for seed in values.keys() & sizes)
        yield NONE if found is None else number(found.mean, 4)
