"""`momos demo`: the recipe of that name, its table and two pictures."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from momos.study.analysis.cohort import Cohort, cohorts, subjects_of
from momos.study.cell import Cell
from momos.study.recipes.questions import Demo
from momos.study.report.accuracy import accuracy_against_length
from momos.study.report.figure import STYLE
from momos.study.report.layers import layer_by_motif
from momos.study.report.listings import table_of_demo
from momos.study.report.table import terminal
from momos.study.runner import Event, run_all
from momos.study.store import CELL, Finished, finished, read
from momos.study.training.preparation import prepared

ACCURACY = "accuracy_against_length.png"
MOSAIC = "mosaic.png"
PICTURES = {
    ACCURACY: "test accuracy against bits per weight",
    MOSAIC: "a layer of each network, painted by motif",
}


def demo(
    folder: Path, recipe: Demo, *, console: Console, processes: int = 1, device: str = ""
) -> None:
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
        _run(cells, folder, recipe, console, processes, device)
        runs = [read(folder / cell.folder) for cell in cells]
        draw(runs, folder)
    except KeyboardInterrupt:
        done = sum(finished(folder / cell.folder) for cell in cells)
        left = f"they are whole in {folder}" if done else "nothing was finished"
        stopped = f"Stopped. {done} of {len(cells)} runs had finished; {left}"
        console.print(stopped, highlight=False, soft_wrap=True)
        raise
    console.print(terminal(table_of_demo(cohorts_of(runs))))
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
    cells: list[Cell],
    folder: Path,
    recipe: Demo,
    console: Console,
    processes: int,
    device: str,
) -> None:
    label = TextColumn("{task.description}")
    columns = (label, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    epochs = prepared(cells[0]).last_epoch
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(cells) * (epochs + 1))

        def tell(event: Event) -> None:
            name = f"{titled(event.cell)}, seed {event.cell.seed + 1} of {recipe.seeds}"
            progress.update(bar, advance=event.line is not None, description=f"{name:30}")

        done = run_all(
            cells,
            folder,
            recipe=recipe.asked,
            processes=processes,
            device=device,
            tell=tell,
        )
    for name, reason in done.failed.items():
        raise ValueError(f"every run must finish, but {name} failed: {reason}")


def titled(cell: Cell) -> str:
    """A treatment in a few words: motifs sampled or learned, their size and number."""
    settings, size = cell.settings, cell.settings.get("block_size", 2)
    if cell.treatment == "sampled" and "capacity" in settings:
        name = f"MoMos s={size}, c={100 * settings['capacity']:g} %"
    elif cell.treatment == "sampled":
        name = f"MoMos s={size}, k={settings.get('num_motifs')}"
    elif cell.treatment == "learned":
        name = f"learned s={size}, k={settings.get('num_motifs', 64)}"
    else:
        return cell.label
    return " ".join([name, *cell.option_words])


def cohorts_of(runs: Sequence[Finished]) -> list[Cohort]:
    """One for each treatment, in the order of the recipe, with names of a few words."""
    order = list(dict.fromkeys(titled(run.cell) for run in runs))
    named = [replace(cohort, label=titled(cohort.cell)) for cohort in cohorts(runs)]
    return sorted(named, key=lambda cohort: order.index(cohort.label))


def draw(runs: Sequence[Finished], folder: Path) -> None:
    """Both pictures; that of accuracy if there is one."""
    (subject,) = subjects_of(runs)
    with matplotlib.rc_context(STYLE):
        figure = accuracy_against_length(subject)
        if figure is not None:
            figure.write_png(folder / ACCURACY)
        layer_by_motif(cohorts_of(runs)).savefig(folder / MOSAIC, dpi="figure")
