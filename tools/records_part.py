"""The smallest files against published ones: table and figures of docs/sizes.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.ticker import FuncFormatter, NullLocator

from momos._util.escaping import visible
from momos.study.analysis.cohort import Cohort, cohorts
from momos.study.analysis.metric import grouped, metric_of, number
from momos.study.cell import DENSE
from momos.study.recipes.smallest import Records
from momos.study.report.figure import INK, STYLE, Canvas, look_of
from momos.study.report.listings import NONE
from momos.study.store import Finished
from momos.study.treatments import TREATMENTS
from page_parts import NOT_RUN, markdown, recipes_in, shell_command

RECORDS, FIGURES = "records", Path("results")


@dataclass(frozen=True)
class Mark:
    """A published file: its size in bytes, its accuracy in per cent, and who made it."""

    num_bytes: int
    accuracy: float
    source: str


MARKS: dict[str, tuple[Mark, ...]] = {
    "lenet300": (Mark(8560, 98.1, "Oktay et al. 2020"),),
    "lenet5": (
        Mark(2840, 99.0, "Oktay et al. 2020"),
        Mark(1520, 99.04, "Havasi et al. 2019 (MIRACLE)"),
    ),
    "fashion": (),
    "resnet20": (),
    "resnet20-wide": (
        Mark(66_000, 91.5, "Girish et al. 2022 (LilNetX)"),
        Mark(128_000, 91.2, "Oktay et al. 2020"),
    ),
    "shakespeare": (),
}


def records_part(runs: Sequence[Finished]) -> str:
    """For each task of the recipe `records`: published files, dense networks, and ours."""
    rows, commands, figures = [], [], []
    found = _found(runs)
    for task, marks in MARKS.items():
        recipes, own = found[task]
        rows += [_published(task, mark) for mark in marks]
        rows += [_own(cohort) for cohort in own] if own else [_missing(task)]
        if own:
            most = max(recipes, key=lambda recipe: len(recipe.runs()))
            commands.append(f"`{visible(shell_command(most))}`")
            figures.append(
                f"\n![{task}: {_metric(own)} against file size]({_figure(task)})\n"
            )
    header = ("task", "how", "file, bytes", "times smaller", "accuracy, % ¹", "seeds")
    text = markdown((*header, "minutes a run"), rows, left=2)
    made = f"By {' and '.join(commands)}." if commands else NOT_RUN.strip()
    note = "¹ For shakespeare bits per character; the lowest and highest seed in brackets."
    return f"{text}\n{note} {made}\n{''.join(figures)}"


def write_records(runs: Sequence[Finished], folder: Path) -> None:
    """Draws a figure for each task that was run."""
    for task, (_, own) in _found(runs).items():
        if own:
            with matplotlib.rc_context(STYLE):
                drawing = against_marks(task, own)
                drawing.savefig(folder / _figure(task).name, metadata={"Software": None})


Task = tuple[list[Records], list[Cohort]]


def _found(runs: Sequence[Finished]) -> Mapping[str, Task]:
    """By task: its recipes, and the cohorts of their runs."""
    usable = {r.cell.key: r for r in runs if isfinite(r.metric) and not r.cell.options}
    asked = [recipe for recipe in recipes_in(runs) if isinstance(recipe, Records)]
    found = {}
    for task in MARKS:
        recipes = [recipe for recipe in asked if recipe.task == task]
        keys = dict.fromkeys(cell.key for recipe in recipes for cell in recipe.runs())
        found[task] = recipes, cohorts([usable[key] for key in keys if key in usable])
    return found


def against_marks(task: str, own: Sequence[Cohort]) -> Canvas:
    """Metric against bytes: our means, bars to the lowest and highest seed, and the marks."""
    drawing = Canvas(figsize=(8, 4.6), dpi=130, layout="constrained")
    axes = drawing.subplots()
    metric = metric_of(own[0].first)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: grouped(int(x))))
    drawn: list[str] = []
    for cohort in own:
        name, values = cohort.treatment, [*cohort.values.values()]
        face = look_of(name, 0)["color"] if name not in drawn else "white"
        drawn.append(name)
        style, middle = look_of(name, 0), mean(values)
        bar = [[middle - min(values)], [max(values) - middle]]
        label = f"{_label(cohort)} (n = {len(values)})"
        look: dict[str, Any] = {key: style[key] for key in ("color", "marker")}
        look |= {"mfc": face}
        axes.errorbar(
            cohort.file_bytes, middle, bar, capsize=3, ms=7, ls="", label=label, **look
        )
    for mark, shape in zip(MARKS[task], "s^", strict=False):
        hollow: dict[str, Any] = {"color": INK, "mfc": "white", "ms": 8, "ls": ""}
        axes.plot(mark.num_bytes, mark.accuracy, marker=shape, label=mark.source, **hollow)
    sizes = [cohort.file_bytes for cohort in own]
    sizes += [mark.num_bytes for mark in MARKS[task]]
    axes.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)
    axes.set_xticks(_ticks(min(sizes) / 1.5, max(sizes) * 1.5))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("file, bytes")
    axes.set_ylabel(metric.label)
    axes.set_title(f"{task}, {grouped(own[0].first.num_weights)} weights")
    drawing.legend(loc="outside lower center", ncols=2, frameon=False)
    return drawing


def _ticks(low: float, high: float) -> list[float]:
    leads = (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 1000 else (1,)
    ticks = [lead * 10.0**power for power in range(1, 9) for lead in leads]
    return [tick for tick in ticks if low <= tick <= high]


def _figure(task: str) -> Path:
    return FIGURES / f"records-{task}.png"


def _metric(own: Sequence[Cohort]) -> str:
    return metric_of(own[0].first).label


def _published(task: str, mark: Mark) -> tuple[str, ...]:
    size = grouped(mark.num_bytes)
    return task, mark.source, size, NONE, number(mark.accuracy, 2), NONE, NONE


def _missing(task: str) -> tuple[str, ...]:
    return task, "ours: not run", *[NONE] * 5


def _label(cohort: Cohort) -> str:
    settings = cohort.settings
    label = TREATMENTS[cohort.treatment].label
    if target := settings.get("target_bytes"):
        epochs = cohort.cell.epochs
        more = "" if epochs is None else f", {epochs:g} epochs"
        return f"{label}, target {grouped(target)} bytes{more}"
    given = [f"{n}={settings[n]}" for n in ("sparsity", "bits") if n in settings]
    further = [f"{cohort.cell.epochs:g} epochs more"] if cohort.cell.start else []
    return ", ".join([label, *given, *(further if cohort.treatment == DENSE else [])])


def _own(cohort: Cohort) -> tuple[str, ...]:
    runs, metric = [*cohort.runs.values()], metric_of(cohort.first)
    values = [*cohort.values.values()]
    found = metric.text(mean(values))
    if len(values) > 1:
        found += f" ({metric.text(min(values))} to {metric.text(max(values))})"
    return (
        cohort.cell.task,
        _label(cohort),
        grouped(cohort.file_bytes),
        number(cohort.first.lengths["dense"] / 8 / cohort.file_bytes, 1),
        found,
        str(len(runs)),
        number(mean(run.seconds for run in runs) / 60, 1),
    )
