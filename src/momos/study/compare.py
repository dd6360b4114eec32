"""Two sets of runs against each other, task by task and seed by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.table import Table
from rich.text import Text

from momos._util.escaping import visible
from momos.study.cohorts import cohorts
from momos.study.quantities import (
    Quantity,
    factor_text,
    metric_difference,
    metric_of,
    quantities_of,
)
from momos.study.report.metric import number
from momos.study.statistics import Difference, Ratio
from momos.study.store import Finished

NOTHING = "–"


@dataclass(frozen=True)
class Compared:
    """One quantity of one task: means over the shared seeds that have it, and their relation.

    `found` is first − second for the metric, first / second for all else; None where
    `unavailable` says why. `unit` is that of the means.
    """

    task: str
    name: str
    unit: str
    first: float | None
    second: float | None
    found: Difference | Ratio | None
    unavailable: str = ""


@dataclass(frozen=True)
class Comparison:
    """`labels` name both sets; `lone` are the seeds of each task that only one of them has."""

    labels: tuple[str, str]
    rows: tuple[Compared, ...]
    lone: Mapping[str, tuple[int, ...]]

    def __getitem__(self, key: tuple[str, str]) -> Compared:
        """The row of a task and a name.

        Raises:
            KeyError: if there is none.
        """
        for row in self.rows:
            if (row.task, row.name) == key:
                return row
        known = ", ".join(f"{row.task}: {row.name}" for row in self.rows)
        raise KeyError(f"rows are {known}, got {key!r}")


def compare(first: Sequence[Finished], second: Sequence[Finished]) -> Comparison:
    """Metric, file length and every measure of `first` against `second`, with 95 % intervals.

    Each must have one run for each task and seed.

    Raises:
        ValueError: if one has no runs, or several of a task and seed; if their tasks or the
            metrics of a task differ; or if they share no seed of a task.
    """
    ours, theirs = _by_task("first", first), _by_task("second", second)
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"first and second must be of the same tasks, got {', '.join(sorted(ours))} and "
            f"{', '.join(sorted(theirs))}"
        )
    rows: list[Compared] = []
    lone = {}
    for task in ours:
        one, other = ours[task], theirs[task]
        shared = sorted(one.keys() & other.keys())
        if not shared:
            raise ValueError(
                f"first and second must share a seed of {task}, got {_listed(one)} and "
                f"{_listed(other)}"
            )
        lone[task] = tuple(sorted(one.keys() ^ other.keys()))
        one, other = ({seed: runs[seed] for seed in shared} for runs in (one, other))
        rows += _rows(task, one, other)
    return Comparison(
        (_label(first, "first"), _label(second, "second")),
        tuple(rows),
        {task: seeds for task, seeds in lone.items() if seeds},
    )


def table(comparison: Comparison) -> Table:
    """A comparison as a table; what differs beyond chance is bold, and says so."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("task", "of"):
        shown.add_column(name, overflow="fold")
    numbers = (*comparison.labels, "first to second", "95 % interval", "n", "differ")
    for name in numbers:
        shown.add_column(Text(visible(name)), justify="right")
    for row in comparison.rows:
        style = "bold" if row.found is not None and row.found.decided else ""
        shown.add_row(*(Text(visible(cell), style=style) for cell in _cells(row)))
    notes = [
        f"{task}: left out, as only one has them: seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}"
        for task, seeds in comparison.lone.items()
    ]
    notes += [
        f"{row.task}, {row.name}: {row.unavailable}"
        for row in comparison.rows
        if row.unavailable
    ]
    shown.caption = Text("\n".join(map(visible, notes))) if notes else None
    shown.caption_justify = "left"
    return shown


def _by_task(name: str, finished: Sequence[Finished]) -> dict[str, dict[int, Finished]]:
    if not finished:
        raise ValueError(f"{name} must have at least one run, got none")
    found: dict[str, dict[int, Finished]] = {}
    for run in finished:
        runs, seed = found.setdefault(run.cell.task, {}), run.cell.seed
        if seed in runs:
            raise ValueError(
                f"{name} must have one run for each task and seed, got "
                f"{runs[seed].folder.name} and {run.folder.name}"
            )
        runs[seed] = run
    return found


def _rows(
    task: str, first: Mapping[int, Finished], second: Mapping[int, Finished]
) -> list[Compared]:
    runs = [*first.values(), *second.values()]
    names = sorted({run.metric_name for run in runs})
    if len(names) > 1:
        raise ValueError(f"runs of {task} must have one metric, got {', '.join(names)}")
    quantities = quantities_of(runs)
    return [
        _metric(task, first, second),
        *(_quantity(task, quantity, first, second) for quantity in quantities),
    ]


def _metric(
    task: str, first: Mapping[int, Finished], second: Mapping[int, Finished]
) -> Compared:
    metric = metric_of(next(iter(second.values())))
    name = metric.label
    try:
        found = metric_difference(first, second)
    except ValueError as error:
        return Compared(task, name, metric.difference_unit, None, None, None, str(error))
    ours, theirs = (
        metric.scale * fmean(run.metric for run in runs.values())
        for runs in (first, second)
    )
    return Compared(task, name, metric.difference_unit, ours, theirs, found)


def _quantity(
    task: str,
    quantity: Quantity,
    first: Mapping[int, Finished],
    second: Mapping[int, Finished],
) -> Compared:
    values, others = quantity.values(first), quantity.values(second)
    shared = values.keys() & others.keys()
    if not shared:
        why = f"no seed has it in both ({quantity.why_not(first, second)})"
        return Compared(task, str(quantity), quantity.unit, None, None, None, why)
    ours, theirs = (fmean(each[seed] for seed in shared) for each in (values, others))
    found = quantity.against(first, second).ratio
    return Compared(task, str(quantity), quantity.unit, ours, theirs, found)


def _cells(row: Compared) -> tuple[str, ...]:
    if row.found is None or row.first is None or row.second is None:
        return (row.task, row.name, *[NOTHING] * 6)
    found, means = row.found, (row.first, row.second)
    if isinstance(found, Difference):
        texts = [number(value, 3) for value in means]
        mean = f"{number(found.mean, 2, sign=True)} {row.unit}"
        ends = f"{number(found.low, 2, sign=True)} to {number(found.high, 2, sign=True)}"
    else:
        texts = [f"{v:,.0f}" if v >= 1000 else f"{v:.5g}" for v in means]
        mean = f"× {factor_text(found.mean)}"
        ends = f"{factor_text(found.low)} to {factor_text(found.high)}"
    if found.n == 1:
        return (row.task, row.name, *texts, mean, NOTHING, "1", NOTHING)
    differ = "yes" if found.decided else "no"
    return (row.task, row.name, *texts, mean, ends, str(found.n), differ)


def _label(finished: Sequence[Finished], name: str) -> str:
    """`name`, and what the runs are where all tasks say the same."""
    labels = {cohort.label for cohort in cohorts(finished)}
    return f"{name}: {labels.pop()}" if len(labels) == 1 else name


def _listed(seeds: Mapping[int, Finished]) -> str:
    return ", ".join(map(str, sorted(seeds)))
