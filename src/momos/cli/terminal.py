"""The one place where text goes out to standard output and standard error.

Names in files and runs are written by others: what a terminal would obey or hide is escaped. What
its encoding lacks is replaced.
"""

import codecs
import io
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from momos._util.escaping import visible

OUTPUT, ERROR = "standard output", "standard error"
REPLACING = "momos"  # the handler of what an encoding lacks
# What an ASCII terminal gets in place of what this package writes; all else becomes \uXXXX.
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


def say(text: str, *, error: bool = False) -> None:
    """Prints one line."""
    write(f"{visible(text)}\n", error=error)


def write(text: str, *, error: bool = False) -> None:
    """Prints what is printable already; `typer.echo` would send UTF-8 to an ASCII terminal."""
    print(text, end="", file=sys.stderr if error else sys.stdout, flush=True)


def writable(text: str, encoding: str) -> str:
    """`text` as a stream of this encoding shows it, so that its width is known."""
    codecs.register_error(REPLACING, _replaced)
    return text.encode(encoding, REPLACING).decode(encoding)


def console(*, error: bool = False) -> Console:
    """A console for tables and progress, to which names are nothing but text."""
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
    """Makes every character writable, and a failing write an error that says which stream.

    A reader that went away, as `head` does, is no error to tell; the exit code says it.
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
    """Whether nobody reads standard output or standard error any more."""
    return isinstance(error, BrokenPipeError) and error.filename in (OUTPUT, ERROR)


class _Named(io.FileIO):
    """A standard stream that is named in the errors of its writes."""

    def __init__(self, descriptor: int, about: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.about = about

    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            # What is still buffered goes nowhere, so that one failure is told once.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            error.filename = self.about
            raise


def _writable(stream: Any, about: str) -> Any:
    """`stream` with what its encoding lacks replaced; itself if it is no file."""
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
    """A warning as one line, without the place in the code."""
    with suppress(OSError):
        say(f"momos: warning: {message}", error=True)
