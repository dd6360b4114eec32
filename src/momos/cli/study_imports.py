"""The packages that the study needs, and what to do where they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from momos.cli.outcome import WRONG
from momos.cli.terminal import say

STUDY = (
    "lightning",
    "matplotlib",
    "sklearn",
    "scipy",
    "constriction",
    "safetensors",
    "jinja2",
    "filelock",
    "pydantic",
)


@contextmanager
def imported(command: str = "study") -> Iterator[None]:
    """Names the extra where a package of the study is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "ray":
            say(f"momos: {error}", error=True)
            raise typer.Exit(WRONG) from None
        if missing not in STUDY:
            raise
        say(
            f'momos {command} needs {missing}: pip install "mosaic-of-motifs[study]"',
            error=True,
        )
        raise typer.Exit(WRONG) from None
