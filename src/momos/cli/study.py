"""`momos study`: runs recipes and sweeps, reports on runs and compares them."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from rich.table import Table

from momos._util.escaping import visible
from momos.cli.tables import of_study, table_of_comparison
from momos.cli.terminal import WRONG, console, reported, say

STUDY = (
    "lightning",
    "matplotlib",
    "sklearn",
    "scipy",
    "constriction",
    "safetensors",
    "jinja2",
    "filelock",
    "pydantic",
)
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
DeviceName = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="Train on auto, cpu, cuda or cuda:N."),
]
PerDevice = Annotated[
    int, typer.Option("--per-device", min=1, help="Runs that share a GPU at a time.")
]
Devices = Annotated[
    int, typer.Option("--devices", min=1, help="Devices that train one run together.")
]
RUNS = Path("runs/study")


@contextmanager
def study_packages(command: str = "study") -> Iterator[None]:
    """Names the extra to install if a package of the study is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "ray":
            say(f"momos: {error}", error=True)
            raise typer.Exit(WRONG) from None
        if missing not in STUDY:
            raise
        say(
            f'momos {command} needs {missing}: pip install "mosaic-of-motifs[study]"',
            error=True,
        )
        raise typer.Exit(WRONG) from None


if TYPE_CHECKING:
    from momos.study.cell import Cell
    from momos.study.execution.cluster import Cluster
    from momos.study.plane import Wanted
    from momos.study.runner import Event, Report
    from momos.study.store import Asked, Broken, Finished


@dataclass(frozen=True)
class Options:
    recipe: "Asked"
    runs: Path
    processes: int | None
    retry: bool
    logger: str = "csv"
    ray: str | None = None
    device: str = "cpu"
    per_device: int = 1

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"


def run_cells(
    cells: Sequence["Cell"],
    options: Options,
    planes: Sequence["Wanted"] = (),
) -> None:
    """Runs cells that are not finished; exits with 1 if one failed."""
    from momos.study.cell import ordered
    from momos.study.store import finished
    from momos.study.training.surroundings import check_logger

    check_logger(options.logger)
    out, everything = console(), ordered(cells)
    left = [cell for cell in everything if not finished(options.runs / cell.folder)]
    out.print(f"{len(everything)} runs, {len(everything) - len(left)} finished before")
    try:
        done = _run(out, cells, left, options)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
        out.print(
            f"Stopped. Finished runs are whole in {options.runs}; the same command goes on.",
            markup=False,
        )
        raise
    if planes and not done.failed:
        from momos.study.training.landscape import write_plane

        for wanted in planes:
            out.print(str(write_plane(wanted, options.runs)), soft_wrap=True)
    for folder, reason in done.failed.items():
        say(f"momos: {folder} failed: {reason}", error=True)
    out.print(
        f"{len(done.ran)} runs finished now, {len(done.failed)} failed; in {options.runs}"
    )
    if done.failed:
        raise typer.Exit(WRONG)


def _run(
    console: Console, cells: Sequence["Cell"], left: list["Cell"], options: Options
) -> "Report":
    """Runs `cells`, of which some are `left`, here or on a cluster."""
    from momos.study.execution.processes import cores
    from momos.study.runner import run_all

    size = max((cell.devices for cell in left), default=1)
    usual = options.per_device if options.on_gpu else max(1, cores() // size)
    processes, cluster = options.processes or usual, None
    with ExitStack() as using:
        if left and options.ray:
            connection = _connection(options.ray, options, size)
            with console.status("Connecting to Ray"):
                cluster = using.enter_context(connection)
            processes = cluster.tasks
        if left:
            _tell_estimate(console, left, processes, options)
        with _RunProgress(console, len(left)) as tell:
            return run_all(
                cells,
                options.runs,
                recipe=options.recipe,
                logger=options.logger,
                processes=processes,
                cluster=cluster,
                device=options.device,
                retry=options.retry,
                tell=tell,
            )


def _connection(
    address: str, options: Options, size: int
) -> AbstractContextManager["Cluster"]:
    from momos.study.execution.cluster import connected
    from momos.study.training.devices import device_count

    gpus = 1 / options.per_device if options.on_gpu else 0.0
    devices = device_count() if options.on_gpu else 0
    about: dict[str, Any] = {"gpus": gpus, "devices": devices, "size": size}
    return connected(address, processes=options.processes, **about)


def device_options(
    device: str, ray: str | None = None, devices: int = 1
) -> tuple[str, dict[str, Any]]:
    """The device's name, and the options of cells that are trained on so many of it."""
    from momos.study.training.devices import check_several, compute_of, options_for

    elsewhere = ray not in (None, "local")
    compute = compute_of(device, here=not elsewhere)
    if ray and ":" in compute.name:
        raise ValueError(
            f"device must be cuda with --ray, which chooses the GPU, got {device!r}"
        )
    if devices == 1:
        return compute.name, options_for(compute.kind)
    if not elsewhere:
        check_several(compute.name, devices)
    return compute.name, options_for(compute.kind) | {"devices": devices}


def _tell_estimate(
    console: Console, cells: Sequence["Cell"], processes: int, options: Options
) -> None:
    """Prints the expected time and memory, and warns if this machine seems too small."""
    from momos.study.training.devices import device_count
    from momos.study.training.estimate import estimate

    if options.on_gpu and not device_count():
        console.print("no estimate: torch sees no CUDA device here")
        return
    with console.status("Trying a few steps"):
        expected = estimate(cells, processes=processes, device=options.device)
    console.print(
        f"about {duration(expected.seconds)} in {processes} processes, "
        f"{expected.memory / 2**30:.1f} GiB of memory, {expected.disk / 2**20:.0f} MiB of disk",
        highlight=False,
    )
    if options.ray in (None, "local"):  # other machines may have more
        for warning in _too_small(expected.memory, expected.disk, options.runs):
            console.print(f"Warning: {warning}", style="yellow")


def _too_small(memory: int, disk: int, root: Path) -> Iterator[str]:
    """What this machine seems too small for, of so many bytes."""
    there = next(path for path in (root, *root.resolve().parents) if path.exists())
    free_memory, free_disk = _free_memory(), shutil.disk_usage(there).free
    if memory > free_memory:
        yield (
            f"about {memory / 2**30:.1f} GiB of memory are wanted, and "
            f"{free_memory / 2**30:.1f} are free: run fewer processes"
        )
    if disk > free_disk:
        yield (
            f"about {disk / 2**30:.1f} GiB of disk are wanted, and "
            f"{free_disk / 2**30:.1f} are free in {root}"
        )


def _free_memory() -> int:
    """What the system would give, in bytes."""
    with suppress(OSError):
        found = re.search(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text())
        if found:
            return 1024 * int(found[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def duration(seconds: float) -> str:
    """A duration in words, as coarse as an estimate."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


class _RunProgress:
    """Progress bar over runs, with the last line of each."""

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


@study.command("list")
def listed(
    recipe: Annotated[str, typer.Argument(help="Show this one's settings.")] = "",
) -> None:
    """List recipes, or the settings of one."""
    with reported(), study_packages():
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
    device: DeviceName = "cpu",
    devices: Devices = 1,
    per_device: PerDevice = 1,
) -> None:
    """Run a recipe: every run that is not finished yet.

    Runs on CUDA are others than those on the CPU, and by default in bfloat16 and channels-last.
    """
    with reported(), study_packages():
        from momos.study.recipes import recipe_named

        name, options = device_options(device, ray, devices)
        given = {key: json.dumps(value) for key, value in options.items()}
        given |= _pairs(settings or [])
        for key, value in (("task", task), ("seeds", seeds)):
            if value is not None:
                given[key] = str(value)
        chosen = recipe_named(recipe)().with_settings(given)
        console().print(str(chosen), style="dim")
        run_cells(
            chosen.runs(),
            Options(chosen.asked, runs, processes, retry, logger, ray, name, per_device),
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
    device: DeviceName = "cpu",
    devices: Devices = 1,
    per_device: PerDevice = 1,
) -> None:
    """Run every cell of a grid that is not finished yet.

    Cells that name no device are trained on this one.
    """
    with reported(), study_packages():
        from momos.study.sweep import Sweep

        name, options = device_options(device, ray, devices)
        found = Sweep.read(grid, options=options)
        run_cells(
            found.cells,
            Options(found.asked, runs, processes, retry, logger, ray, name, per_device),
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
    with reported(), study_packages():
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
    with reported(), study_packages():
        from momos.study.analysis.comparison import compare as compared

        (ours, broken), (theirs, others) = selected(first, runs), selected(second, runs)
        for reason in dict.fromkeys(run.reason for run in (*broken, *others)):
            say(f"momos: left out: {reason}", error=True)
        console().print(of_study(table_of_comparison(compared(ours, theirs))))


def selected(words: str, root: Path) -> tuple[list["Finished"], list["Broken"]]:
    """The finished runs in the folder named, or those under `root` that have all the words.

    Words are of task and label, as in "digits learned rate_weight=0.8". The second value is
    whatever is no finished run there.

    Raises:
        ValueError: if no run fits; lists what there is.
        FileNotFoundError: if there is no folder of runs.
    """
    from momos.study.store import read_all

    if Path(words).is_dir():
        return read_all([Path(words)])
    runs, broken = read_all([root])
    names = [f"{run.cell.task} {run.cell.label}" for run in runs]
    pairs, wanted = zip(runs, names, strict=True), set(words.split())
    found = [run for run, name in pairs if wanted <= {*name.split()}]
    if not found:
        known = "; ".join(sorted(set(names))) or "none"
        raise ValueError(
            f"runs must fit all words of {words!r}, but none does; there are {known} in {root}"
        )
    return found, broken


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
