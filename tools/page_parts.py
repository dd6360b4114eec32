"""Parts of our own pages of results: Markdown that is made of finished runs.

A part goes between the lines `<!-- generated: NAME -->` and `<!-- end -->` of its page.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite, prod
from pathlib import Path
from shlex import quote

from momos._util.escaping import visible
from momos.study.analysis.claims import comparable
from momos.study.analysis.cohort import Cohort, cohorts
from momos.study.analysis.metric import counted, metric_difference, number
from momos.study.analysis.statistics import LEAST, Estimate
from momos.study.cell import PUBLISHED, Cell, ordered
from momos.study.recipes import RECIPES, Recipe
from momos.study.report.figure import Figure, write_csv
from momos.study.report.listings import NONE, Table
from momos.study.schema import checked, shown
from momos.study.store import Asked, Finished

PLACE = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
MOST_CELLS = 100_000  # of a recipe that a run folder names
NOT_RUN = "Not run.\n"
MOST_ROWS = 1000  # of the table beside a figure


@dataclass(frozen=True)
class Part:
    """`text` is Markdown, empty if nothing of it was run."""

    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()

    def write(self, folder: Path) -> None:
        """PNG and CSV of figures, CSV of tables; long ones are left to the report."""
        for figure in self.figures:
            figure.write_png(folder / f"{figure.name}.png")
            if len(figure.rows) <= MOST_ROWS:
                write_csv(folder / f"{figure.name}.csv", figure.header, figure.rows)
        for table in self.tables:
            table.write(folder)

    def markdown(self, folder: Path) -> str:
        """The text, and the figures as they are seen from the page."""
        text = self.text.replace("<", "&lt;") or NOT_RUN  # no markup, no end of a place
        place = folder.as_posix()
        return text + "".join(f"\n![{f.alt}]({place}/{f.name}.png)\n" for f in self.figures)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    """A table, whose first `left` columns are text and whose others are numbers."""
    marks = ["---"] * left + ["---:"] * (len(header) - left)
    cells = ([visible(cell).replace("|", "\\|") for cell in row] for row in (header, *rows))
    first, *others = (f"| {' | '.join(row)} |\n" for row in cells)
    return "".join([first, f"| {' | '.join(marks)} |\n", *others])


def fill(page: str, parts: Mapping[str, str]) -> str:
    """The page with every part at its place, and everything else as it was.

    Raises:
        ValueError: if a part has no place, or a place no part or more than one place.
    """
    places = [match[2] for match in PLACE.finditer(page)]
    if sorted(places) != sorted(parts):
        raise ValueError(
            f"the page must have one place for each of {', '.join(sorted(parts))}, "
            f"got {', '.join(sorted(places)) or 'none'}"
        )
    return PLACE.sub(lambda match: f"{match[1]}\n{parts[match[2]]}\n{match[3]}", page)


def recipe_of(asked: Asked) -> Recipe | None:
    """The recipe that a run folder names; None if it names something else, as a sweep.

    Raises:
        ValueError: if the settings are not, or no longer, the recipe's own.
    """
    if asked["name"] not in RECIPES:
        return None
    try:
        recipe = checked(RECIPES[asked["name"]], asked["settings"])
        values = (getattr(recipe, field.name) for field in fields(recipe))
        count = recipe.seeds * prod(len(v) for v in values if isinstance(v, tuple))
        if count > MOST_CELLS:
            raise ValueError(f"it must have at most {MOST_CELLS} runs, got about {count}")
        recipe.runs()
    except ValueError as error:
        message = f"recipe must be one of today's, got {shown(dict(asked))}: {error}"
        raise ValueError(message) from error
    return recipe


def parsed(asked: Asked) -> Recipe | None:
    """The recipe that asked for a run; None for a sweep, and where `outdated` says why."""
    try:
        return recipe_of(asked)
    except ValueError:
        return None


def outdated(asked: Asked) -> str:
    """Why what asked for a run is no recipe of today; empty if it is one, or a sweep."""
    name, rest, _ = asked["name"].partition("(")
    if rest and name in RECIPES and not asked["settings"]:
        return (
            f"recipe must be a name with settings, got the text {shown(asked['name'])} of an "
            "older folder, which `python tools/upgrade_runs.py RUNS` rewrites"
        )
    try:
        recipe_of(asked)
    except ValueError as error:
        return visible(str(error))
    return ""


def outdated_in(runs: Sequence[Finished]) -> list[str]:
    """A line for each recipe that is none of today: how many runs it asked for, and why."""
    counts = Counter(str(run.recipe) for run in runs)
    known = {str(run.recipe): run.recipe for run in runs}
    return [
        f"the recipe of {counted(count, 'run')}: {why}"
        for text, count in counts.items()
        if (why := outdated(known[text]))
    ]


def shell_command(recipe: Recipe) -> str:
    """What runs a recipe from the shell."""
    changed = [
        f"--set {quote(f'{f.name}={json.dumps(getattr(recipe, f.name))}')}"
        for f in fields(recipe)  # type: ignore[arg-type]
        if f.name != "task" and getattr(recipe, f.name) != f.default
    ]
    return " ".join([f"momos study run {recipe.name} --task {recipe.task}", *changed])


def recipes_in(runs: Iterable[Finished]) -> list[Recipe]:
    """The recipes that asked for runs, each once, in the order of the runs."""
    found = {str(run.recipe): run.recipe for run in runs}
    return [recipe for asked in found.values() if (recipe := parsed(asked)) is not None]


def of_recipe(runs: Sequence[Finished], name: str) -> list[Finished]:
    """The runs that a recipe asks for, whichever recipe ran them first."""
    recipes = [recipe for recipe in recipes_in(runs) if recipe.name == name]
    keys = {cell.key for recipe in recipes for cell in ordered(recipe.runs())}
    return [run for run in runs if run.cell.key in keys or run.recipe["name"] == name]


def by_task(runs: Iterable[Finished]) -> dict[tuple[str, str], list[Cohort]]:
    """Cohorts by task and network, in the order of their names."""
    found: dict[tuple[str, str], list[Cohort]] = {}
    for cohort in cohorts(runs):
        found.setdefault((cohort.cell.task, cohort.cell.network), []).append(cohort)
    return dict(sorted(found.items()))


def title(task: str, network: str) -> str:
    return visible(f"{task}, {network}" if network else task)


def trained_as(cell: Cell) -> str:
    if cell.treatment == PUBLISHED:
        return PUBLISHED
    decay = cell.weight_decay
    return "as usual" if decay is None else f"weight decay {decay:g}"


def score(cohort: Cohort) -> str:
    """The metric, its mean over seeds with its interval; and of how many it is not finite."""
    values, found, metric = cohort.values.values(), cohort.score, cohort.metric
    lost = sum(not isfinite(value) for value in values)
    diverged = f" ({lost} of {len(values)} diverged)" if lost else ""
    if found is None:
        return f"{NONE}{diverged}"
    within = Estimate(found.mean, found.low, min(found.high, metric.best), found.n)
    return with_ends(within, metric.decimals) + diverged


def compared(cohort: Cohort, reference: Cohort) -> tuple[str, str]:
    """The difference of metrics with its interval, and whether they are comparable."""
    words = {"supported": "yes", "not supported": "no", "undecided": "undecided"}
    try:
        found = metric_difference(cohort.runs, reference.runs)
    except ValueError:  # no shared seed, or one that diverged
        return NONE, NONE
    return with_ends(found, 2, sign=True), words[comparable(found, reference.metric)]


def with_ends(found: Estimate, decimals: int, *, sign: bool = False) -> str:
    """A mean, and its interval where there are seeds enough for one."""
    text = number(found.mean, decimals, sign=sign)
    if found.n < LEAST:
        return text
    ends = ", ".join(number(end, decimals, sign=sign) for end in (found.low, found.high))
    return f"{text} [{ends}]"
