"""How a command ends: its exit code, and one line that says why."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

WRONG, UNREADABLE, INTERRUPTED = 1, 3, 130


@contextmanager
def told() -> Iterator[None]:
    """Says on standard error what goes wrong inside, and warns there, without tracebacks."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
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


def _warn(message: Warning | str, *place: object, **more: object) -> None:
    _tell(f"warning: {message}")


def _tell(problem: str) -> None:
    typer.echo(f"momos: {problem}", err=True)
