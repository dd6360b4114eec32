"""`momos demo`: the same MLP dense and as mosaics, on equal terms; numbers, table, pictures."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

import momos
from momos.study.data import Split, digits
from momos.study.processes import Note, each
from momos.study.recipes.demo import DEMO, Recipe, Treatment
from momos.study.report.accuracy import accuracy_against_length
from momos.study.report.mosaic import layer_by_motif
from momos.study.report.table import grouped, table
from momos.study.results import HISTORY, RESULTS, append
from momos.study.runs import Run
from momos.study.train import train

ACCURACY = "accuracy_against_length.png"
MOSAIC = "mosaic.png"
NETWORK = "{}-seed-{}.momos"
FILES = {
    RESULTS: "one line per run",
    HISTORY: "accuracy and lengths after every epoch",
    ACCURACY: "test accuracy against bits per weight",
    MOSAIC: "a layer of each network, painted by motif",
    NETWORK.format("*", "*"): "the trained mosaics, as files",
}


def demo(
    folder: Path, *, seeds: int, recipe: Recipe, console: Console, processes: int = 1
) -> None:
    """Trains every treatment of `DEMO` from every seed, and writes `FILES` into `folder`.

    Results do not depend on the number of processes.

    Those of an earlier demo in `folder` are removed first.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after saying what is left; finished runs are.
    """
    _clear(folder, console)
    data = digits()
    about = f"{data}; {seeds} seed{'s' * (seeds > 1)}"
    console.print(f"{recipe}; {about}", style="dim", highlight=False)
    start = time.perf_counter()
    runs: list[Run] = []
    try:
        for run in _runs(seeds, recipe, data, console, processes):
            if run.treatment.mosaic is not None:
                run = _saved(run, folder)
            append(folder, run)
            runs.append(run)
        _draw(runs, folder, about)
    except KeyboardInterrupt:
        left = f"they are whole in {folder / RESULTS}" if runs else "nothing was written"
        stopped = f"Stopped. {len(runs)} of {len(DEMO) * seeds} runs had finished; {left}"
        console.print(stopped, highlight=False, soft_wrap=True)
        raise
    seconds = time.perf_counter() - start
    console.print(table(runs))
    console.print(f"\n{len(runs)} runs in {seconds:.0f} s", highlight=False)
    for name, content in FILES.items():
        console.print(f"{folder / name}  {content}", highlight=False, soft_wrap=True)


def _clear(folder: Path, console: Console) -> None:
    """Makes the folder, without results of an earlier demo: old and new ones never mix."""
    folder.mkdir(parents=True, exist_ok=True)
    earlier = [folder / name for name in FILES if (folder / name).exists()]
    earlier += folder.glob(NETWORK.format("*", "*"))
    if earlier:
        replacing = f"Replacing the results of an earlier demo in {folder}"
        console.print(replacing, highlight=False, soft_wrap=True)
    for path in earlier:
        path.unlink()


@dataclass(frozen=True)
class _Job:
    recipe: Recipe
    treatment: Treatment
    seed: int
    data: Split


def _run(job: _Job, note: Note) -> Run:
    """One run; a note says when an epoch is over."""
    return train(
        job.recipe, job.treatment, seed=job.seed, data=job.data, on_epoch=lambda _: note(1)
    )


def _runs(
    seeds: int, recipe: Recipe, data: Split, console: Console, processes: int
) -> Iterator[Run]:
    """Each run as it finishes; seeds outside, so that early results compare all treatments."""
    jobs = [
        _Job(recipe, treatment, seed, data) for seed in range(seeds) for treatment in DEMO
    ]
    label = TextColumn("{task.description}")
    columns = (label, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(f"0 of {len(jobs)} runs", total=len(jobs) * recipe.epochs)
        advance = partial(progress.advance, bar)
        for number, run in enumerate(
            each(_run, jobs, processes=processes, note=advance), 1
        ):
            progress.update(bar, description=f"{number} of {len(jobs)} runs")
            yield run


def _saved(run: Run, folder: Path) -> Run:
    """`run`, its network saved as a file in `folder`."""
    words = "".join(c if c.isalnum() else " " for c in run.treatment.name.lower()).split()
    path = folder / NETWORK.format("-".join(words), run.seed)
    return replace(run, file_bytes=momos.save(run.network, path).num_bytes)


def _draw(runs: list[Run], folder: Path, about: str) -> None:
    widths = "-".join(map(str, runs[0].recipe.widths))
    title = f"MLP {widths}, {grouped(runs[0].lengths.num_weights)} weights; {about}"
    accuracy_against_length(runs, title=title).savefig(folder / ACCURACY)
    layer_by_motif(runs).savefig(folder / MOSAIC)
