"""Which commands made the runs, at which commit, and how long they took."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from momos._util.escaping import visible
from momos.study.recipes import RECIPES
from momos.study.report.markdown import markdown
from momos.study.report.page.tables import Table, table_of_runs
from momos.study.report.results.part import Part, parsed, recipe_name
from momos.study.store import Finished


def origin_part(runs: Sequence[Finished]) -> Part:
    """A row for each command; equal cells of two recipes were run by the first of them."""
    if not runs:
        return Part()
    commands: dict[str, list[Finished]] = {}
    for run in runs:
        commands.setdefault(command_of(run.recipe), []).append(run)
    order = list(RECIPES)
    rows = [
        (
            f"`{command}`",
            str(len(group)),
            f"{sum(run.seconds for run in group) / 60:.0f}",
            ", ".join(sorted({f"`{run.environment.get('commit', '')}`" for run in group})),
        )
        for command, group in sorted(
            commands.items(), key=lambda pair: (_place(order, pair[1][0]), pair[0])
        )
    ]
    table = markdown(("command", "runs", "minutes, all runs", "commit"), rows, left=1)
    return Part(f"{table}\n{_machines(runs)}\n", tables=[_runs(runs)])


def command_of(text: str) -> str:
    """What to type for a recipe that was saved as text; the text, if there is no such recipe."""
    recipe = parsed(text)
    return text if recipe is None else recipe.command


def _place(order: Sequence[str], run: Finished) -> int:
    name = recipe_name(run)
    return order.index(name) if name in order else len(order)


def _machines(runs: Sequence[Finished]) -> str:
    """What they ran on, and with what."""
    found = {}
    for run in runs:
        machine, versions = (run.environment.get(n) or {} for n in ("machine", "versions"))
        words = [f"{name} {version}" for name, version in versions.items() if version]
        place = f"{machine.get('processor', '')}, {machine.get('cores', '?')} cores"
        threads = f"{machine.get('threads', '?')} thread a run"
        found[visible(f"{place}, {threads}; {', '.join(words)}.")] = None
    return "\n".join(found)


def _runs(runs: Sequence[Finished]) -> Table:
    """Every run as a row, without folders, which are of the machine."""
    table = table_of_runs(runs, Path())
    return replace(table, columns=table.columns[:-1], rows=[row[:-1] for row in table.rows])
