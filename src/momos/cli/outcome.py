"""How a command ends: its exit code, and one line that says why."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from momos.escaping import visible

WRONG, UNREADABLE, INTERRUPTED = 1, 3, 130


@contextmanager
def told() -> Iterator[None]:
    """What goes wrong inside is told on standard error, without a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        _tell(_describe(error))
        raise typer.Exit(UNREADABLE) from None
    except (ValueError, TypeError, MemoryError) as error:
        _tell(str(error) or "more memory is needed than there is")
        raise typer.Exit(WRONG) from None


def _describe(error: OSError) -> str:
    if error.errno is None or error.strerror is None:
        return str(error)
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return f"{where}{error.strerror}"


def _tell(problem: str) -> None:
    lines = map(visible, problem.splitlines())  # they may quote names that strangers gave
    typer.echo("momos: " + "\n".join(lines), err=True)
