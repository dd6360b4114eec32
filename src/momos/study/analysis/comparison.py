"""Two sets of runs against each other, task by task and seed by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from momos.study.analysis.cohort import cohorts
from momos.study.analysis.metric import Runs, metric_difference, metric_of
from momos.study.analysis.quantities import Quantity, quantities_of
from momos.study.analysis.statistics import Estimate
from momos.study.store import Finished


@dataclass(frozen=True)
class Compared:
    """One quantity of one task: means over the shared seeds that have it, and their relation.

    `found` is first / second where it `is_ratio`, else first − second; None where `unavailable`
    says why. `unit` is that of the means.
    """

    task: str
    name: str
    unit: str
    first: float | None = None
    second: float | None = None
    found: Estimate | None = None
    unavailable: str = ""
    is_ratio: bool = True

    @property
    def decided(self) -> bool:
        """Whether the difference is beyond chance."""
        return self.found is not None and self.found.excludes(1 if self.is_ratio else 0)


@dataclass(frozen=True)
class Comparison:
    """`labels` name both sets; `lone` are the seeds of each task that only one of them has."""

    labels: tuple[str, str]
    rows: tuple[Compared, ...]
    lone: Mapping[str, tuple[int, ...]]


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
    for task, one in ours.items():
        other = theirs[task]
        shared = sorted(one.keys() & other.keys())
        if not shared:
            listed = (", ".join(map(str, sorted(runs))) for runs in (one, other))
            raise ValueError(
                f"first and second must share a seed of {task}, got {' and '.join(listed)}"
            )
        if seeds := one.keys() ^ other.keys():
            lone[task] = tuple(sorted(seeds))
        rows += _rows(
            task, *({seed: runs[seed] for seed in shared} for runs in (one, other))
        )
    labels = (_label(first, "first"), _label(second, "second"))
    return Comparison(labels, tuple(rows), lone)


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


def _rows(task: str, first: Runs, second: Runs) -> list[Compared]:
    runs = [*first.values(), *second.values()]
    names = sorted({run.metric_name for run in runs})
    if len(names) > 1:
        raise ValueError(f"runs of {task} must have one metric, got {', '.join(names)}")
    quantities = [_quantity(task, each, first, second) for each in quantities_of(runs)]
    return [_metric(task, first, second), *quantities]


def _metric(task: str, first: Runs, second: Runs) -> Compared:
    metric = metric_of(next(iter(second.values())))
    about = (task, metric.label, metric.difference_unit)
    try:
        found = metric_difference(first, second)
    except ValueError as error:
        return Compared(*about, unavailable=str(error), is_ratio=False)
    ours, theirs = (
        metric.scale * fmean(r.metric for r in runs.values()) for runs in (first, second)
    )
    return Compared(*about, ours, theirs, found, is_ratio=False)


def _quantity(task: str, quantity: Quantity, first: Runs, second: Runs) -> Compared:
    values, others = quantity.values(first), quantity.values(second)
    about, shared = (task, str(quantity), quantity.unit), values.keys() & others.keys()
    if not shared:
        why = f"no seed has it in both ({quantity.why_not(first, second)})"
        return Compared(*about, unavailable=why)
    ours, theirs = (fmean(each[seed] for seed in shared) for each in (values, others))
    return Compared(*about, ours, theirs, quantity.against(first, second).ratio)


def _label(finished: Sequence[Finished], name: str) -> str:
    labels = {cohort.full_label for cohort in cohorts(finished)}
    return f"{name}: {labels.pop()}" if len(labels) == 1 else name
