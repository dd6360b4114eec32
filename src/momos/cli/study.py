"""`momos study`: recipes and sweeps, run, reported and compared."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from momos.cli.outcome import told
from momos.cli.study_imports import imported
from momos.cli.study_run import Options, run_cells
from momos.cli.terminal import console, say

study = typer.Typer(
    help="Repeat and extend the paper's study: recipes, sweeps, report.",
    no_args_is_help=True,
)
Root = Annotated[
    Path,
    typer.Option(
        "--runs", file_okay=False, help="Folder of run folders; finished ones stay."
    ),
]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time, if not one for each core.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Run again what failed earlier.")]
LoggerName = Annotated[
    str, typer.Option("--logger", help="csv, tensorboard, wandb or mlflow, in run folders.")
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Run on a Ray cluster: HOST:PORT, auto, or local to start one here.",
    ),
]
RUNS = Path("runs/study")


@study.command("list")
def listed(
    recipe: Annotated[str, typer.Argument(help="Show this one's settings.")] = "",
) -> None:
    """List recipes, or the settings of one."""
    with told(), imported():
        from momos.study.recipes import RECIPES, recipe_named

        if recipe:
            _show(recipe_named(recipe)())
            return
        table = Table("recipe", "what it asks", "runs", box=None, header_style="bold")
        for name, kind in RECIPES.items():
            about = (kind.__doc__ or "").strip().splitlines()[0]
            table.add_row(name, about, str(len(kind().runs())))
        console().print(table)


@study.command()
def run(
    recipe: Annotated[str, typer.Argument(help="One of those that `list` lists.")],
    task: Annotated[str | None, typer.Option(help="Short for --set task=….")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Short for --set seeds=….")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value.")
    ] = None,
    runs: Root = RUNS,
    processes: Processes = None,
    ray: Ray = None,
    retry: Retry = False,
    logger: LoggerName = "csv",
) -> None:
    """Run a recipe: every run that is not finished yet."""
    with told(), imported():
        from momos.study.recipes import recipe_named

        given = _pairs(settings or [])
        for name, value in (("task", task), ("seeds", seeds)):
            if value is not None:
                given[name] = str(value)
        chosen = recipe_named(recipe)().with_settings(given)
        console().print(str(chosen), style="dim")
        run_cells(
            chosen.runs(),
            Options(chosen.asked, runs, processes, retry, logger, ray),
            chosen.planes(),
        )


@study.command()
def sweep(
    grid: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A TOML file of a grid.")
    ],
    runs: Root = RUNS,
    processes: Processes = None,
    ray: Ray = None,
    retry: Retry = False,
    logger: LoggerName = "csv",
) -> None:
    """Run every cell of a grid that is not finished yet."""
    with told(), imported():
        from momos.study.sweep import Sweep

        found = Sweep.read(grid)
        run_cells(
            found.cells,
            Options(found.asked, runs, processes, retry, logger, ray),
        )


@study.command()
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or folders of them.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", file_okay=False, help="Folder to write to.")
    ] = Path("runs/report"),
) -> None:
    """Write a report of runs: one HTML file, and every figure as PNG, SVG and CSV."""
    with told(), imported():
        from momos.study.report.page import report as write

        say(str(write(runs or [RUNS], output)))


@study.command()
def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="Runs: a folder, or part of labels.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Runs to compare with them.")],
    runs: Root = RUNS,
) -> None:
    """Compare two groups of runs, paired by seed, with 95 % intervals."""
    with told(), imported():
        from momos.study.analysis.comparison import compare as compared
        from momos.study.report.listings import table_of_comparison
        from momos.study.report.table import terminal
        from momos.study.store import selected

        (ours, broken), (theirs, others) = selected(first, runs), selected(second, runs)
        for reason in dict.fromkeys(run.reason for run in (*broken, *others)):
            say(f"momos: left out: {reason}", error=True)
        console().print(terminal(table_of_comparison(compared(ours, theirs))))


def _show(recipe: object) -> None:
    from dataclasses import fields
    from inspect import getdoc

    out = console()
    out.print(getdoc(type(recipe)))
    table = Table("setting", "value", box=None, header_style="bold")
    for field in fields(recipe):  # type: ignore[arg-type]
        table.add_row(field.name, repr(getattr(recipe, field.name)))
    out.print(table)


def _pairs(settings: list[str]) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in settings]
    for name, equals, value in pairs:
        if not equals or not name:
            raise ValueError(f"--set must be KEY=VALUE, got {name + equals + value!r}")
    return {name: value for name, _, value in pairs}
