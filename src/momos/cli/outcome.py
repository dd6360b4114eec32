"""How a command ends: its exit code, and one line that says why."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from momos.cli.terminal import is_closed_pipe, say, show_warning

WRONG, UNREADABLE, INTERRUPTED = 1, 3, 130


@contextmanager
def told() -> Iterator[None]:
    """Says on standard error what goes wrong inside, and warns there, without tracebacks."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        raise typer.Exit(code_of(error)) from None
    except (ValueError, TypeError, MemoryError) as error:
        _tell(str(error) or "more memory is needed than there is")
        raise typer.Exit(WRONG) from None


def code_of(error: OSError) -> int:
    """The exit code for `error`, which is told unless nobody is there to read."""
    if not is_closed_pipe(error):
        _tell(_describe(error))
    return UNREADABLE


def _describe(error: OSError) -> str:
    if error.errno is None or error.strerror is None:
        return str(error)
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return f"{where}{error.strerror}"


def _tell(problem: str) -> None:
    with suppress(OSError):  # if standard error takes nothing, the exit code must do
        say(f"momos: {problem}", error=True)
