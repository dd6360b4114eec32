"""`momos demo`: dense and mosaic networks side by side."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

STUDY = ("lightning", "matplotlib", "sklearn")  # what the extra "study" brings


def demo(
    output: Annotated[
        Path,
        typer.Option(
            file_okay=False,
            help="Folder for results and pictures; those of an earlier demo are replaced.",
        ),
    ] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each network.")] = 3,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each run, if not the recipe's.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time, if not one for each core.")
    ] = None,
) -> None:
    """Train one MLP on handwritten digits: dense, as two mosaics, with learned motifs."""
    console = Console()
    try:
        with console.status("Loading Lightning"):
            from momos.study.demo import demo as run
            from momos.study.processes import cores
            from momos.study.recipes.demo import Recipe

        recipe = Recipe() if epochs is None else Recipe(epochs=epochs)
        processes = processes or cores()
        run(output, seeds=seeds, recipe=recipe, console=console, processes=processes)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in STUDY:
            raise
        typer.echo(
            f'momos demo needs {missing}: pip install "mosaic-of-motifs[study]"', err=True
        )
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
