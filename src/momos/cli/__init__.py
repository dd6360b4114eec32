"""The command `momos`.

Exit codes: 0 on success, 1 if a file or a value is invalid, 2 if the command line is wrong, 3 if a
file cannot be read or written, 130 if interrupted.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import momos
from momos._util.escaping import visible
from momos.cli.compress import compress
from momos.cli.demo import demo
from momos.cli.export import export
from momos.cli.files import expand, inspect, verify
from momos.cli.measure import measure
from momos.cli.study import study
from momos.cli.terminal import code_of, say, standard_streams

USAGE_ERROR: Any = typer.BadParameter.__base__  # click's, wherever typer keeps it


class Commands(TyperGroup):
    """Commands whose usage errors are printable, even if a file name in them is not."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        try:
            return super().make_context(*arguments, **more)
        except USAGE_ERROR as error:
            error.message = visible(error.message)
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except USAGE_ERROR as error:
            error.message = visible(error.message)
            raise


app = typer.Typer(
    cls=Commands,
    help=momos.__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, compress, expand, export, inspect, verify, measure):
    app.command()(command)


app.add_typer(study, name="study")


def main() -> None:
    try:
        with standard_streams():
            app(prog_name="momos")
    except OSError as error:  # of what is printed last, or of help
        sys.exit(code_of(error))


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"momos {momos.__version__}")
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
