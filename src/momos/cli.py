"""The command `momos`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import momos

STUDY = ("lightning", "matplotlib", "sklearn")  # what the extra "study" brings

app = typer.Typer(
    help=momos.__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    app(prog_name="momos")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"momos {momos.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
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
) -> None:
    """Train one MLP on handwritten digits, dense and as two mosaics, and compare."""
    console = Console()
    try:
        with console.status("Loading Lightning"):
            from momos.study.demo import demo as run
            from momos.study.recipes import Recipe

        recipe = Recipe() if epochs is None else Recipe(epochs=epochs)
        run(output, seeds=seeds, recipe=recipe, console=console)
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
