"""The table of docs/sizes.md that holds the smallest files against published ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean

from momos._util.escaping import visible
from momos.study.analysis.cohort import Cohort, cohorts
from momos.study.analysis.metric import grouped, number
from momos.study.recipes.smallest import Records
from momos.study.report.listings import NONE
from momos.study.store import Finished
from momos.study.treatments import TREATMENTS
from page_parts import NOT_RUN, markdown, recipes_in, shell_command

RECORDS = "records"


@dataclass(frozen=True)
class Mark:
    """A published file: its size in bytes, its error in per cent, and who made it."""

    num_bytes: int
    error: float
    source: str


MARKS = {
    "lenet300": (Mark(8560, 1.9, "Oktay et al. 2020"),),
    "lenet5": (
        Mark(2840, 1.0, "Oktay et al. 2020"),
        Mark(1520, 0.96, "Havasi et al. 2019 (MIRACLE)"),
    ),
    "fashion": (),
}


def records_part(runs: Sequence[Finished]) -> str:
    """For each task of the recipe `records`: published files, dense networks, and ours."""
    usable = {r.cell.key: r for r in runs if isfinite(r.metric) and not r.cell.options}
    rows, commands = [], []
    for task, marks in MARKS.items():
        recipes = [r for r in recipes_in(runs) if isinstance(r, Records) and r.task == task]
        keys = dict.fromkeys(cell.key for recipe in recipes for cell in recipe.runs())
        found = [usable[key] for key in keys if key in usable]
        rows += [_published(task, mark) for mark in marks]
        rows += [_own(cohort) for cohort in cohorts(found)] if found else [_missing(task)]
        if found:
            most = max(recipes, key=lambda recipe: len(recipe.runs()))
            commands.append(f"`{visible(shell_command(most))}`")
    header = ("task", "how", "file, bytes", "times smaller", "test error, %", "seeds")
    text = markdown((*header, "minutes a run"), rows, left=2)
    made = f"By {' and '.join(commands)}." if commands else NOT_RUN.strip()
    return f"{text}\n{made}\n"


def _published(task: str, mark: Mark) -> tuple[str, ...]:
    size = grouped(mark.num_bytes)
    return task, mark.source, size, NONE, number(mark.error, 2), NONE, NONE


def _missing(task: str) -> tuple[str, ...]:
    return task, "ours: not run", *[NONE] * 5


def _own(cohort: Cohort) -> tuple[str, ...]:
    runs = [*cohort.runs.values()]
    target = cohort.settings.get("target_bytes")
    label = TREATMENTS[cohort.treatment].label
    values = [100 - value for value in cohort.values.values()]
    error = number(mean(values), 2)
    if len(values) > 1:
        error += f" ({number(min(values), 2)} to {number(max(values), 2)})"
    return (
        cohort.cell.task,
        f"{label}, target {grouped(target)} bytes" if target else label,
        grouped(cohort.file_bytes),
        number(cohort.first.lengths["dense"] / 8 / cohort.file_bytes, 1),
        error,
        str(len(runs)),
        number(mean(run.seconds for run in runs) / 60, 1),
    )
