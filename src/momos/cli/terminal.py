"""All output of the commands: text, warnings, errors with exit codes, progress bars.

Names in files and runs are untrusted: characters that a terminal would obey or hide are escaped.
Characters that its encoding lacks are replaced.
"""

import codecs
import io
import os
import sys
import time
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import Progress, TaskID
from rich.segment import Segment
from rich.text import Text

from momos._util.escaping import visible
from momos._util.work import Progress as Report

OUTPUT, ERROR = "standard output", "standard error"
REPLACING = "momos"  # name of the error handler for characters that an encoding lacks
# ASCII replacements for characters in our own output; all others become \uXXXX.
PLAIN = str.maketrans(
    {"×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "·": ".", "•": "*", "±": "+-"}
    | {
        "→": "->",
        "≤": "<=",
        "≥": ">=",
        "≈": "~",
        "‖": "||",
        "Σ": "sum",
        "²": "^2",
        "√": "sqrt",
    }
    | {"“": '"', "”": '"', "‘": "'", "’": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " "}
)
WRONG, UNREADABLE, INTERRUPTED = 1, 3, 130
PATIENCE = 1.0  # seconds before a bar appears


def say(text: str, *, error: bool = False) -> None:
    """Prints one line."""
    write(f"{visible(text)}\n", error=error)


def write(text: str, *, error: bool = False) -> None:
    """Prints text that is already printable; `typer.echo` would send UTF-8 to an ASCII terminal."""
    print(text, end="", file=sys.stderr if error else sys.stdout, flush=True)


def writable(text: str, encoding: str) -> str:
    """`text` as a stream with this encoding shows it, so that its width is known."""
    codecs.register_error(REPLACING, _replaced)
    return text.encode(encoding, REPLACING).decode(encoding)


def console(*, error: bool = False) -> Console:
    """A console for tables and progress that interprets no markup in names."""
    return _Console(stderr=error, markup=False, emoji=False, highlight=False)


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_lines(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield segment._replace(text=_lines(segment.text))


def _lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


@contextmanager
def standard_streams() -> Iterator[None]:
    """Makes every character writable, and names the stream in errors of failing writes.

    A reader that went away, such as `head`, is not reported; the exit code says it.
    """
    codecs.register_error(REPLACING, _replaced)
    sys.stdout = _writable(sys.stdout, OUTPUT)
    sys.stderr = _writable(sys.stderr, ERROR)
    warnings.showwarning = show_warning
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()


def is_closed_pipe(error: OSError) -> bool:
    """Whether the reader of standard output or standard error is gone."""
    return isinstance(error, BrokenPipeError) and error.filename in (OUTPUT, ERROR)


class _Named(io.FileIO):
    """A standard stream that is named in errors of its writes."""

    def __init__(self, descriptor: int, about: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.about = about

    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            # Discard what is still buffered, so that one failure is reported once.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            error.filename = self.about
            raise


def _writable(stream: Any, about: str) -> Any:
    """`stream`, replacing what its encoding lacks; unchanged if it is not a file."""
    try:
        descriptor = stream.fileno()
        stream.flush()
    except (AttributeError, OSError, ValueError):
        return stream
    errors = REPLACING if stream.errors in ("strict", "surrogateescape") else stream.errors
    named = io.BufferedWriter(_Named(descriptor, about))
    terminal = stream.isatty() or about == ERROR
    return io.TextIOWrapper(
        named, encoding=stream.encoding, errors=errors, line_buffering=terminal
    )


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    if not text.isascii():
        text = "".join(map(_ascii, text))
    return text, error.end


def _ascii(character: str) -> str:
    name = unicodedata.name(character, "")
    if name.startswith(("BOX DRAWINGS", "BRAILLE PATTERN")):  # rules and spinners
        return "-"
    return character.encode("ascii", "backslashreplace").decode()


def show_warning(message: Warning | str, *where: object, **more: object) -> None:
    """Prints a warning as one line, without its place in the code."""
    with suppress(OSError):
        say(f"momos: warning: {message}", error=True)


@contextmanager
def reported() -> Iterator[None]:
    """Reports errors and warnings on standard error without tracebacks, and exits with their code."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        raise typer.Exit(code_of(error)) from None
    except (ValueError, TypeError, MemoryError) as error:
        _say_problem(str(error) or "more memory is needed than there is")
        raise typer.Exit(WRONG) from None


def code_of(error: OSError) -> int:
    """The exit code for `error`, which is reported unless the reader is gone."""
    if not is_closed_pipe(error):
        _say_problem(_describe(error))
    return UNREADABLE


def _describe(error: OSError) -> str:
    if error.errno is None or error.strerror is None:
        return str(error)
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return f"{where}{error.strerror}"


def _say_problem(problem: str) -> None:
    with suppress(OSError):  # if standard error takes nothing, the exit code must do
        say(f"momos: {problem}", error=True)


@contextmanager
def bars() -> Iterator[Report]:
    """A function that shows progress on standard error, if that is a terminal."""
    started = time.monotonic()
    shown: dict[str, TaskID] = {}
    progress = Progress(console=console(error=True), transient=True)

    def report(doing: str, done: int, total: int) -> None:
        if time.monotonic() - started < PATIENCE or not progress.console.is_terminal:
            return
        if doing not in shown:
            progress.start()
            shown[doing] = progress.add_task(doing, total=total)
        progress.update(shown[doing], completed=done, total=total)

    try:
        yield report
    finally:
        if shown:
            progress.stop()
