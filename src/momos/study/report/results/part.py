"""A part of the page: text, and the pictures and tables that go with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import fmean

from momos._util.escaping import visible
from momos.study.cells import Cell, ordered
from momos.study.claims import LEAST, comparable
from momos.study.cohorts import Cohort, cohorts
from momos.study.quantities import metric_difference
from momos.study.recipes import Recipe, recipe_of
from momos.study.report.metric import Metric, number
from momos.study.report.page.estimate import Estimate
from momos.study.report.page.groups import most_of
from momos.study.report.page.picture import Picture, write_csv
from momos.study.report.page.tables import Table
from momos.study.statistics import Ratio
from momos.study.store import Finished
from momos.study.treatments import PUBLISHED

NONE = "–"
MOST_ROWS = 1000  # of the table beside a picture


@dataclass(frozen=True)
class Part:
    """`text` is Markdown, empty if nothing of it was run."""

    text: str = ""
    pictures: Sequence[Picture] = field(default=())
    tables: Sequence[Table] = field(default=())

    def write(self, folder: Path) -> None:
        """PNG and CSV of pictures, CSV of tables; long ones are left to the report."""
        for picture in self.pictures:
            path = folder / f"{picture.name}.png"
            picture.figure.savefig(path, metadata={"Software": None})
            if len(picture.rows) <= MOST_ROWS:
                write_csv(folder / f"{picture.name}.csv", picture.header, picture.rows)
        for table in self.tables:
            table.write(folder)


def recipe_name(run: Finished) -> str:
    """The name of the recipe that ran it."""
    return run.recipe.partition("(")[0]


def of_recipe(runs: Sequence[Finished], name: str) -> list[Finished]:
    """The runs that a recipe asks for, whichever recipe ran them first."""
    keys: set[str] = set()
    for text in dict.fromkeys(run.recipe for run in runs):
        recipe = parsed(text)
        if recipe is not None and recipe.name == name:
            keys |= {cell.key for cell in ordered(recipe.runs())}
    return [run for run in runs if run.cell.key in keys or recipe_name(run) == name]


def parsed(text: str) -> Recipe | None:
    """The recipe that was saved as text; None if there is none of such settings today."""
    try:
        return recipe_of(text)
    except ValueError:
        return None


def by_task(runs: Iterable[Finished]) -> dict[tuple[str, str], list[Cohort]]:
    """Cohorts by task and network, in the order of their names."""
    found: dict[tuple[str, str], list[Cohort]] = {}
    for cohort in cohorts(runs):
        found.setdefault((cohort.cell.task, cohort.cell.network), []).append(cohort)
    return dict(sorted(found.items()))


def title(task: str, network: str) -> str:
    return visible(f"{task}, {network}" if network else task)


def seeds_said(count: int) -> str:
    return f"n = {count} seed{'s' * (count != 1)}"


def trained_as(cell: Cell) -> str:
    if cell.treatment == PUBLISHED:
        return PUBLISHED
    decay = cell.weight_decay
    return "as usual" if decay is None else f"weight decay {decay:g}"


def score(cohort: Cohort, metric: Metric) -> str:
    """The metric, its mean over seeds with its interval; and of how many it is not finite."""
    values = [metric.scale * run.metric for run in cohort.runs.values()]
    lost = sum(not isfinite(value) for value in values)
    diverged = f" ({lost} of {len(values)} diverged)" if lost else ""
    found = Estimate.of(values)
    if found is None:
        return f"{NONE}{diverged}"
    high = min(found.high, most_of(metric))
    return _with_ends(found.mean, found.low, high, found.n, metric.decimals) + diverged


def compared(cohort: Cohort, reference: Cohort) -> tuple[str, str]:
    """The difference of metrics with its interval, and whether they are comparable."""
    try:
        found = metric_difference(cohort.runs, reference.runs)
    except ValueError:  # no shared seed, or one that diverged
        return NONE, NONE
    words = {"supported": "yes", "not supported": "no", "undecided": "undecided"}
    difference = _with_ends(found.mean, found.low, found.high, found.n, 2, sign=True)
    return difference, words[comparable(cohort, reference)]


def factor(cohort: Cohort) -> str:
    """How many times smaller the files are than all parameters in 32 bits, on the mean."""
    return number(fmean(run.factor for run in cohort.runs.values()), 1)


def times(found: Ratio, decimals: int = 3) -> str:
    return _with_ends(found.mean, found.low, found.high, found.n, decimals)


def _with_ends(
    mean: float, low: float, high: float, n: int, decimals: int, *, sign: bool = False
) -> str:
    text = number(mean, decimals, sign=sign)
    if n < LEAST:
        return text
    ends = ", ".join(number(end, decimals, sign=sign) for end in (low, high))
    return f"{text} [{ends}]"
