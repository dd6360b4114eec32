"""`momos demo`: the recipe of that name, its table and two pictures."""

import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from momos.study.cells import Cell
from momos.study.preparation import prepared
from momos.study.recipes.demo import Demo
from momos.study.report.accuracy import accuracy_against_length
from momos.study.report.mosaic import layer_by_motif
from momos.study.report.names import grouped, titled
from momos.study.report.table import table
from momos.study.runner import Event, run_all
from momos.study.store import CELL, Finished, finished, read

ACCURACY = "accuracy_against_length.png"
MOSAIC = "mosaic.png"
PICTURES = {
    ACCURACY: "test accuracy against bits per weight",
    MOSAIC: "a layer of each network, painted by motif",
}


def demo(folder: Path, recipe: Demo, *, console: Console, processes: int = 1) -> None:
    """Runs the recipe afresh, each run in a folder in `folder`; table and pictures of all.

    Those of an earlier demo in `folder` are removed first. Results do not depend on the number
    of processes.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after saying what is left; finished runs are.
        ValueError: if a run failed (says which and why).
    """
    _clear(folder, console)
    console.print(str(recipe), style="dim", highlight=False)
    start, cells = time.perf_counter(), recipe.runs()
    try:
        _run(cells, folder, recipe, console, processes)
        runs = [read(folder / cell.folder) for cell in cells]
        _draw(runs, folder)
    except KeyboardInterrupt:
        done = sum(finished(folder / cell.folder) for cell in cells)
        left = f"they are whole in {folder}" if done else "nothing was finished"
        stopped = f"Stopped. {done} of {len(cells)} runs had finished; {left}"
        console.print(stopped, highlight=False, soft_wrap=True)
        raise
    console.print(table(runs))
    seconds = time.perf_counter() - start
    console.print(f"\n{len(runs)} runs in {seconds:.0f} s", highlight=False)
    for name, content in PICTURES.items():
        console.print(f"{folder / name}  {content}", highlight=False, soft_wrap=True)
    about = "a folder for each run: its network as a file, its history, its measures"
    console.print(f"{folder}  {about}", highlight=False, soft_wrap=True)


def _clear(folder: Path, console: Console) -> None:
    """Makes the folder, without results of an earlier demo: old and new ones never mix."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [path.parent for path in folder.glob(f"*/{CELL}")]
    pictures = [folder / name for name in PICTURES if (folder / name).exists()]
    if runs or pictures:
        replacing = f"Replacing the results of an earlier demo in {folder}"
        console.print(replacing, highlight=False, soft_wrap=True)
    for path in runs:
        shutil.rmtree(path)
    for path in pictures:
        path.unlink()


def _run(
    cells: list[Cell], folder: Path, recipe: Demo, console: Console, processes: int
) -> None:
    label = TextColumn("{task.description}")
    columns = (label, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    epochs = int(recipe.epochs or prepared(cells[0])[0].optimization.epochs)
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(cells) * (epochs + 1))

        def tell(event: Event) -> None:
            name = f"{titled(event.cell)}, seed {event.cell.seed + 1} of {recipe.seeds}"
            progress.update(bar, advance=event.line is not None, description=f"{name:30}")

        done = run_all(cells, folder, recipe=str(recipe), processes=processes, tell=tell)
    for name, reason in done.failed.items():
        raise ValueError(f"every run must finish, but {name} failed: {reason}")


def _draw(runs: list[Finished], folder: Path) -> None:
    seeds = len({run.cell.seed for run in runs})
    title = (
        f"{runs[0].cell.task}, {grouped(runs[0].num_weights)} weights; "
        f"{seeds} seed{'s' * (seeds > 1)}"
    )
    accuracy_against_length(runs, title=title).savefig(folder / ACCURACY)
    layer_by_motif(runs).savefig(folder / MOSAIC)
