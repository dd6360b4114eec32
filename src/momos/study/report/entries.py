"""Finished runs of the recipes `sizes` and `ablations` as lines among the others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from math import isfinite
from pathlib import Path

from momos.study.cells import Cell
from momos.study.cohorts import seedless
from momos.study.preparation import epochs_of, optimization_of
from momos.study.recipes import Recipe, recipe_of
from momos.study.recipes.ablations import Ablations
from momos.study.recipes.sizes import Sizes
from momos.study.report.lines import Line, checked
from momos.study.store import Finished
from momos.study.tasks import TASKS, Task
from momos.study.treatments import PUBLISHED

ABLATIONS = "ablations"  # the file of all of them; others are named by their task


def line_of(run: Finished, task: Task, *, command: str, ablation: str = "") -> Line:
    """A run that `command` asks for as a line; with `ablation`, as that row of its task's.

    A start or teacher is named by the folder of its cell, with the key of seed 0. A published
    network is a dense one, trained for no epochs at no learning rate.
    """
    cell = run.cell
    published = cell.treatment == PUBLISHED
    return Line(
        task=cell.task,
        treatment="dense" if published else cell.treatment,
        settings=cell.settings,
        seed=cell.seed,
        epochs=float(epochs_of(cell, task)),
        learning_rate=0.0 if published else optimization_of(cell, task).learning_rate,
        start=_name(cell.start),
        teacher=_name(cell.teacher),
        metric_name=run.metric_name,
        metric=run.metric,
        file_bytes=round(run.lengths["file"] / 8),
        dense_bytes=round(run.lengths["dense"] / 8),
        seconds=run.seconds,
        versions=run.environment["versions"],
        cores=run.environment["machine"]["cores"],
        group=cell.task if ablation else "",
        ablation=ablation,
        command=command,
        commit=run.environment["commit"],
        key=cell.key,
    )


def lines_of(runs: Sequence[Finished]) -> dict[str, list[Line]]:
    """The lines of runs, by the file that they belong to.

    Runs are told by the recipes that made one of them: what is a cell of such a recipe has a
    line, and one in each table that it is in. Lines know nothing of held-out samples or of
    precision, and of no metric that is not finite, so runs of these have none; nor have runs
    that do not say where they took place.
    """
    by_key = {run.cell.key: run for run in runs}
    task_of = cache(lambda name: TASKS[name]())
    found: dict[str, dict[tuple[str, str], Line]] = {}
    for text in dict.fromkeys(run.recipe for run in runs):
        recipe = recipe_of(text)
        for name, ablation, cell in _entries(recipe):
            run = by_key.get(cell.key)
            if recipe is not None and run is not None and _has_line(run):
                task = task_of(cell.task)
                line = line_of(run, task, command=recipe.command, ablation=ablation)
                found.setdefault(name, {}).setdefault((cell.key, ablation), line)
    return {name: list(lines.values()) for name, lines in found.items()}


def with_new(folder: Path, new: Mapping[str, Sequence[Line]]) -> dict[str, list[str]]:
    """The texts of all files of lines in a folder, by name, and those of new lines.

    A line that is there stays as it is, and its run is not added again.

    Raises:
        ValueError: naming file and line, if one is wrong, or two runs are the same row.
    """
    names = sorted({path.stem for path in folder.glob("*.jsonl")} | new.keys())
    texts = {}
    for name in names:
        path = folder / f"{name}.jsonl"
        old = path.read_text("utf-8").splitlines() if path.exists() else []
        known = {(line.key, line.ablation) for line in checked(old, path)}
        added = [
            each for each in new.get(name, ()) if (each.key, each.ablation) not in known
        ]
        texts[name] = [*old, *(_text(line) for line in added)]
        checked(texts[name], path)
    return texts


def _entries(recipe: Recipe | None) -> list[tuple[str, str, Cell]]:
    """File, row among ablations, and cell of all that is on the page of a recipe."""
    if recipe is None or not recipe.is_plain:
        return []
    if isinstance(recipe, Sizes):
        return [(recipe.task, "", cell) for cell in recipe.cells()]
    if isinstance(recipe, Ablations):
        return [(ABLATIONS, row, cell) for row, of in recipe.rows().items() for cell in of]
    return []


def _has_line(run: Finished) -> bool:
    place, machine = run.environment, run.environment.get("machine", {})
    versions = place.get("versions", {}).values()
    known = {"versions", "commit"} <= place.keys() and type(machine.get("cores")) is int
    return isfinite(run.metric) and known and all(isinstance(v, str) for v in versions)


def _name(cell: Cell | None) -> str:
    if cell is None:
        return ""
    of_any = seedless(cell)
    return of_any.folder.replace(f"seed-0-{of_any.key}", f"seed-{{seed}}-{of_any.key}")


def _text(line: Line) -> str:
    empty = [name for name in ("group", "ablation") if not getattr(line, name)]
    values = {name: v for name, v in asdict(line).items() if name not in empty}
    return json.dumps(values)
