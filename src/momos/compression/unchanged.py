"""Noticing that a checkpoint changes while it is read."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path


def watch(files: Iterable[Path]) -> Callable[[], None]:
    """A function that raises ValueError once one of `files` has changed; names it.

    By its size, its time of change and what file it is, not by its bytes.
    """
    before = {file: _state(file) for file in files}

    def check() -> None:
        for file, state in before.items():
            if _state(file) != state:
                raise ValueError(
                    f"a checkpoint must stay as it is while it is read, but {file} has changed"
                )

    return check


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        about = os.stat(file)
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
