"""`momos demo`: trains one network in four ways; a table, and two pictures."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from momos.cli.study import DeviceName, PerDevice, device_options, study_packages
from momos.cli.tables import of_study
from momos.cli.terminal import console, reported

if TYPE_CHECKING:
    from momos.study.analysis.cohort import Cohort
    from momos.study.cell import Cell
    from momos.study.recipes.questions import Demo
    from momos.study.report.listings import Table
    from momos.study.runner import Event
    from momos.study.store import Finished

ACCURACY = "accuracy_against_length.png"
MOSAIC = "mosaic.png"
PICTURES = {
    ACCURACY: "test accuracy against bits per weight",
    MOSAIC: "a layer of each network, painted by motif",
}


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
    device: DeviceName = "cpu",
    per_device: PerDevice = 1,
) -> None:
    """Train one MLP on handwritten digits: dense, as two mosaics, with learned motifs."""
    out = console()
    with reported(), study_packages("demo"):
        with out.status("Loading Lightning"):
            from momos.study.execution.processes import cores
            from momos.study.recipes.questions import Demo

        name, options = device_options(device)
        recipe = Demo(seeds=seeds, epochs=epochs, **options)
        team = processes or (per_device if options else cores())
        demonstrate(output, recipe, console=out, processes=team, device=name)


def demonstrate(
    folder: Path,
    recipe: "Demo",
    *,
    console: Console,
    processes: int = 1,
    device: str = "",
) -> None:
    """Runs the recipe afresh, each run in a folder in `folder`; table and pictures of all.

    Those of an earlier demo in `folder` are removed first. Results do not depend on the number
    of processes.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after saying what is left; finished runs are.
        ValueError: if a run failed (says which and why).
    """
    from momos.study.runner import run_all
    from momos.study.store import finished, read

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    if clear(folder):
        say(f"Replacing the results of an earlier demo in {folder}")
    console.print(str(recipe), style="dim", highlight=False)
    start, cells = time.perf_counter(), recipe.runs()
    try:
        with _progress(cells, recipe, console) as tell:
            asked: Any = {"recipe": recipe.asked, "device": device}
            done = run_all(cells, folder, processes=processes, tell=tell, **asked)
        for name, reason in done.failed.items():
            raise ValueError(f"every run must finish, but {name} failed: {reason}")
        runs = [read(folder / cell.folder) for cell in cells]
        draw(runs, folder)
    except KeyboardInterrupt:
        done = sum(finished(folder / cell.folder) for cell in cells)
        left = f"they are whole in {folder}" if done else "nothing was finished"
        say(f"Stopped. {done} of {len(cells)} runs had finished; {left}")
        raise
    console.print(of_study(table_of_demo(cohorts_of(runs))))
    say(f"\n{len(runs)} runs in {time.perf_counter() - start:.0f} s")
    for name, content in PICTURES.items():
        say(f"{folder / name}  {content}")
    say(
        f"{folder}  a folder for each run: its network as a file, its history, its measures"
    )


@contextmanager
def _progress(
    cells: list["Cell"], recipe: "Demo", console: Console
) -> Iterator[Callable[["Event"], None]]:
    """A bar over the epochs of all runs."""
    from momos.study.training.preparation import prepared

    label = TextColumn("{task.description}")
    columns = (label, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    epochs = prepared(cells[0]).last_epoch
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(cells) * (epochs + 1))

        def tell(event: "Event") -> None:
            name = f"{titled(event.cell)}, seed {event.cell.seed + 1} of {recipe.seeds}"
            progress.update(bar, advance=event.line is not None, description=f"{name:30}")

        yield tell


def table_of_demo(cohorts: Sequence["Cohort"]) -> "Table":
    """Accuracy ± its deviation over seeds (with two or more), lengths, factors, motifs used."""
    from momos.study.analysis.metric import grouped
    from momos.study.report.listings import Table, words

    weights = grouped(cohorts[0].first.num_weights)
    columns = (
        *("test\naccuracy, %", "bits/\nbound", "weight:\nentropy", "\nfile"),
        *("factor:\nbound", "\nfile", "motifs\nused"),
    )
    return Table(
        name="demo",
        title="",
        caption="",
        columns=(f"network of\n{weights} weights", *columns),
        numeric=frozenset(columns),
        rows=[tuple(words(cohort.label, *_shown(cohort))) for cohort in cohorts],
    )


def _shown(cohort: "Cohort") -> Iterator[str]:
    from momos.study.analysis.metric import grouped
    from momos.study.report.listings import NONE

    runs = list(cohort.runs.values())
    values = list(cohort.values.values())
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    yield f"{fmean(values):.1f}{deviation}"
    weights, dense = cohort.first.num_weights, cohort.first.lengths["dense"]
    bound, entropy, file = (
        fmean(run.lengths.get(name, run.lengths["dense"]) for run in runs)
        for name in ("bound", "entropy", "file")
    )
    yield from (f"{length / weights:.2f}" for length in (bound, entropy, file))
    yield from (f"{dense / length:.2f}" for length in (bound, file))
    used = [run.motifs_used for run in runs if run.motifs_used is not None]
    yield grouped(fmean(used)) if used else NONE


def clear(folder: Path) -> bool:
    """Makes the folder, without results of an earlier demo; whether there were some."""
    from momos.study.store import CELL

    folder.mkdir(parents=True, exist_ok=True)
    runs = [path.parent for path in folder.glob(f"*/{CELL}")]
    pictures = [folder / name for name in PICTURES if (folder / name).exists()]
    for path in runs:
        shutil.rmtree(path)
    for path in pictures:
        path.unlink()
    return bool(runs or pictures)


def titled(cell: "Cell") -> str:
    """A treatment in a few words: motifs sampled or learned, their size and number."""
    from momos.study.treatments import TREATMENTS

    known = TREATMENTS[cell.treatment]
    settings = vars(known.kind(**cell.settings))
    if not known.short:
        return cell.label
    number = f"k={settings['num_motifs']}"
    if settings.get("capacity") is not None:
        number = f"c={100 * settings['capacity']:g} %"
    return " ".join(
        [f"{known.short} s={settings['block_size']}, {number}", *cell.option_words]
    )


def cohorts_of(runs: Sequence["Finished"]) -> list["Cohort"]:
    """One for each treatment, in the order of the recipe, with names of a few words."""
    from momos.study.analysis.cohort import cohorts

    order = list(dict.fromkeys(titled(run.cell) for run in runs))
    named = [replace(cohort, label=titled(cohort.cell)) for cohort in cohorts(runs)]
    return sorted(named, key=lambda cohort: order.index(cohort.label))


def draw(runs: Sequence["Finished"], folder: Path) -> None:
    """Both pictures; that of accuracy if there is one."""
    import matplotlib

    from momos.study.analysis.cohort import subjects_of
    from momos.study.report.accuracy import accuracy_against_length
    from momos.study.report.figure import STYLE
    from momos.study.report.tensors import layer_by_motif

    (subject,) = subjects_of(runs)
    with matplotlib.rc_context(STYLE):
        figure = accuracy_against_length(subject)
        if figure is not None:
            figure.write_png(folder / ACCURACY)
        layer_by_motif(cohorts_of(runs)).savefig(folder / MOSAIC, dpi="figure")
