"""The command `momos`.

It exits with 0 if all went well, 1 if a file or a value is not what it must be, 2 if the command
line is wrong, 3 if a file cannot be read or written, and 130 if it was interrupted.
"""

from typing import Annotated

import typer

import momos
from momos.cli.demo import demo
from momos.cli.files import compress, expand, inspect, verify
from momos.cli.measure import measure
from momos.cli.study import study

app = typer.Typer(
    help=momos.__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, compress, expand, inspect, verify, measure):
    app.command()(command)


app.add_typer(study, name="study")


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
