"""`momos demo`: trains one network in four ways; prints the table and where the pictures are."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from momos.cli.study import study_packages
from momos.cli.tables import of_study
from momos.cli.terminal import console, reported

if TYPE_CHECKING:
    from momos.study.cell import Cell
    from momos.study.recipes.questions import Demo
    from momos.study.runner import Event


def demo(
    output: Annotated[
        Path,
        typer.Option(
            file_okay=False,
            help="Folder for runs and pictures; those of an earlier demo are replaced.",
        ),
    ] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each network.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each run.")] = 25,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time, if not one for each core.")
    ] = None,
) -> None:
    """Train one MLP on handwritten digits: dense, as two mosaics, with learned motifs."""
    out = console()
    with reported(), study_packages("demo"):
        with out.status("Loading Lightning"):
            from momos.study.execution.processes import cores
            from momos.study.recipes.questions import Demo

        recipe = Demo(seeds=seeds, epochs=epochs)
        demonstrate(output, recipe, console=out, processes=processes or cores())


def demonstrate(
    folder: Path, recipe: "Demo", *, console: Console, processes: int = 1
) -> None:
    """Runs the recipe afresh, each run in a folder in `folder`; table and pictures of all.

    Those of an earlier demo in `folder` are removed first. Results do not depend on the number
    of processes.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after saying what is left; finished runs are.
        ValueError: if a run failed (says which and why).
    """
    from momos.study import demonstration
    from momos.study.report.listings import table_of_demo
    from momos.study.store import finished, read

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    if demonstration.clear(folder):
        say(f"Replacing the results of an earlier demo in {folder}")
    console.print(str(recipe), style="dim", highlight=False)
    start, cells = time.perf_counter(), recipe.runs()
    try:
        _run(cells, folder, recipe, console, processes)
        runs = [read(folder / cell.folder) for cell in cells]
        demonstration.draw(runs, folder)
    except KeyboardInterrupt:
        done = sum(finished(folder / cell.folder) for cell in cells)
        left = f"they are whole in {folder}" if done else "nothing was finished"
        say(f"Stopped. {done} of {len(cells)} runs had finished; {left}")
        raise
    console.print(of_study(table_of_demo(demonstration.cohorts_of(runs))))
    say(f"\n{len(runs)} runs in {time.perf_counter() - start:.0f} s")
    for name, content in demonstration.PICTURES.items():
        say(f"{folder / name}  {content}")
    say(
        f"{folder}  a folder for each run: its network as a file, its history, its measures"
    )


def _run(
    cells: list["Cell"], folder: Path, recipe: "Demo", console: Console, processes: int
) -> None:
    from momos.study.demonstration import titled
    from momos.study.runner import run_all
    from momos.study.training.preparation import prepared

    label = TextColumn("{task.description}")
    columns = (label, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    epochs = prepared(cells[0]).last_epoch
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(cells) * (epochs + 1))

        def tell(event: "Event") -> None:
            name = f"{titled(event.cell)}, seed {event.cell.seed + 1} of {recipe.seeds}"
            progress.update(bar, advance=event.line is not None, description=f"{name:30}")

        done = run_all(cells, folder, recipe=recipe.asked, processes=processes, tell=tell)
    for name, reason in done.failed.items():
        raise ValueError(f"every run must finish, but {name} failed: {reason}")
