"""`momos demo`: dense and mosaic networks side by side."""

from pathlib import Path
from typing import Annotated

import typer

from momos.cli.outcome import told
from momos.cli.study_imports import imported
from momos.cli.terminal import console


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
    with told(), imported("demo"):
        with out.status("Loading Lightning"):
            from momos.study.demonstration import demo as run
            from momos.study.execution.processes import cores
            from momos.study.recipes.questions import Demo

        recipe = Demo(seeds=seeds, epochs=epochs)
        run(output, recipe, console=out, processes=processes or cores())
