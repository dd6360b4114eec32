"""Which commands made the runs, at which commit, and how long they took."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from momos.study.recipes import RECIPES
from momos.study.report.markdown import markdown
from momos.study.report.page.tables import Table, table_of_runs
from momos.study.report.results.part import Part, recipe_of
from momos.study.store import Finished

OWN = {"task": "--task", "seeds": "--seeds"}  # settings with an option of their own


def origin_part(runs: Sequence[Finished]) -> Part:
    """A row for each command; equal cells of two recipes were run by the first of them."""
    if not runs:
        return Part()
    commands: dict[str, list[Finished]] = {}
    for run in runs:
        commands.setdefault(run.recipe, []).append(run)
    order = list(RECIPES)
    rows = [
        (
            f"`{command_of(recipe)}`",
            str(len(group)),
            f"{sum(run.seconds for run in group) / 60:.0f}",
            ", ".join(sorted({f"`{run.environment.get('commit', '')}`" for run in group})),
        )
        for recipe, group in sorted(
            commands.items(), key=lambda pair: (_place(order, pair[1][0]), pair[0])
        )
    ]
    table = markdown(("command", "runs", "minutes of one core", "commit"), rows, left=1)
    return Part(f"{table}\n{_machines(runs)}\n", tables=[_runs(runs)])


def command_of(recipe: str) -> str:
    """What to type for a recipe that was saved as text, `name(setting=value, …)`."""
    name, values = _parsed(recipe)
    if name not in RECIPES:
        return recipe
    defaults = {each.name: each.default for each in fields(RECIPES[name])}
    words = [f"momos study run {name}"]
    for setting, value in values.items():
        if setting != "task" and value == defaults.get(setting, value):
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        text = f'"{text}"' if " " in text else text
        option = OWN.get(setting)
        words.append(f"{option} {text}" if option else f"--set {_set(setting, text)}")
    return " ".join(words)


def _set(setting: str, text: str) -> str:
    return f'"{setting}={text[1:-1]}"' if text.startswith('"') else f"{setting}={text}"


def _parsed(recipe: str) -> tuple[str, Mapping[str, Any]]:
    try:
        call = ast.parse(recipe, mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            values = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
            return call.func.id, values
    except (SyntaxError, ValueError):  # a sweep, or nothing
        pass
    return "", {}


def _place(order: Sequence[str], run: Finished) -> int:
    name = recipe_of(run)
    return order.index(name) if name in order else len(order)


def _machines(runs: Sequence[Finished]) -> str:
    """What they ran on, and with what."""
    found = {}
    for run in runs:
        machine, versions = (run.environment.get(n, {}) for n in ("machine", "versions"))
        words = [f"{name} {version}" for name, version in versions.items() if version]
        place = f"{machine.get('processor', '')}, {machine.get('cores', '?')} cores"
        threads = f"{machine.get('threads', '?')} thread a run"
        found[f"{place}, {threads}; {', '.join(words)}."] = None
    return "\n".join(found)


def _runs(runs: Sequence[Finished]) -> Table:
    """Every run as a row, without folders, which are of the machine."""
    table = table_of_runs(runs, Path())
    return replace(table, columns=table.columns[:-1], rows=[row[:-1] for row in table.rows])
