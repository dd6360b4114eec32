"""Runs cells from the shell: estimate, progress, outcome."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from momos.cli.outcome import WRONG
from momos.cli.terminal import console as plain_console
from momos.cli.terminal import say
from momos.escaping import visible

if TYPE_CHECKING:
    from momos.study.cell import Cell
    from momos.study.plane import Wanted
    from momos.study.runner import Event, Report
    from momos.study.store import Asked


@dataclass(frozen=True)
class Options:
    recipe: "Asked"
    runs: Path
    processes: int | None
    retry: bool
    logger: str = "csv"
    ray: str | None = None


def run_cells(
    cells: Sequence["Cell"], options: Options, planes: Sequence["Wanted"] = ()
) -> None:
    """Runs what is not finished; exits with 1 if a run failed."""
    from momos.study.cell import ordered
    from momos.study.store import finished
    from momos.study.training.surroundings import check_logger

    check_logger(options.logger)
    console, everything = plain_console(), ordered(cells)
    left = [cell for cell in everything if not finished(options.runs / cell.folder)]
    console.print(f"{len(everything)} runs, {len(everything) - len(left)} finished before")
    try:
        done = _run(console, cells, left, options)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
        console.print(
            f"Stopped. Finished runs are whole in {options.runs}; the same command goes on.",
            markup=False,
        )
        raise
    if planes and not done.failed:
        from momos.study.training.landscape import write_plane

        for wanted in planes:
            console.print(str(write_plane(wanted, options.runs)), soft_wrap=True)
    for folder, reason in done.failed.items():
        say(f"momos: {folder} failed: {reason}", error=True)
    console.print(
        f"{len(done.ran)} runs finished now, {len(done.failed)} failed; in {options.runs}"
    )
    if done.failed:
        raise typer.Exit(WRONG)


def _run(
    console: Console, cells: Sequence["Cell"], left: list["Cell"], options: Options
) -> "Report":
    """Runs `cells`, of which some are `left`, here or on a cluster."""
    from momos.study.execution.cluster import connected
    from momos.study.execution.processes import cores
    from momos.study.runner import run_all

    processes, cluster = options.processes or cores(), None
    with ExitStack() as using:
        if left and options.ray:
            connection = connected(options.ray, processes=options.processes)
            with console.status("Connecting to Ray"):
                cluster = using.enter_context(connection)
            processes = cluster.tasks
        if left:
            _tell_estimate(console, left, processes, options)
        with _shown(console, len(left)) as tell:
            return run_all(
                cells,
                options.runs,
                recipe=options.recipe,
                logger=options.logger,
                processes=processes,
                cluster=cluster,
                retry=options.retry,
                tell=tell,
            )


def _tell_estimate(
    console: Console, cells: Sequence["Cell"], processes: int, options: Options
) -> None:
    """What the cells will take, and what this machine seems too small for."""
    from momos.study.training.estimate import estimate

    with console.status("Trying a few steps"):
        expected = estimate(cells, processes=processes)
    console.print(
        f"about {duration(expected.seconds)} in {processes} processes, "
        f"{expected.memory / 2**30:.1f} GiB of memory, {expected.disk / 2**20:.0f} MiB of disk",
        highlight=False,
    )
    if options.ray in (None, "local"):  # other machines may have more
        for warning in expected.warnings(options.runs):
            console.print(f"Warning: {warning}", style="yellow")


def duration(seconds: float) -> str:
    """In words, as coarse as an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


class _shown:
    """A bar over runs, and the last line of each."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns, console=console, transient=True)
        self.total = total

    def __enter__(self) -> Callable[["Event"], None]:
        self.progress.start()
        self.bar = self.progress.add_task("runs", total=self.total)
        return self.tell

    def tell(self, event: "Event") -> None:
        name = f"{event.cell.task} {event.cell.label}, seed {event.cell.seed}"
        if event.line is not None:
            about = f"{name}: epoch {event.line['epoch']}, {event.line['metric']:.4g}"
            self.progress.update(self.bar, description=escape(visible(about[:70])))
        else:
            self.progress.advance(self.bar)
            if event.failure:
                failed = visible(f"{name} failed: {event.failure}")
                self.progress.console.print(failed, style="red")

    def __exit__(self, *error: object) -> None:
        self.progress.stop()
