"""Reading ordinary files: opening them, reading by position, noticing that one changed.

Files are read, never mapped: a mapped file keeps all touched pages resident, and kills the
process if it shrinks.
"""

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from momos.errors import FormatError

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_ordinary(path: str | os.PathLike[str]) -> BufferedReader:
    """The file at `path`, open for reading; a pipe is refused instead of waited for.

    Raises:
        OSError: if it cannot be read, or is not an ordinary file.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    _check(os.stat(path).st_mode, path)  # opening a device can have effects of its own
    with ExitStack() as undo:
        file = undo.enter_context(open(path, "rb", opener=opener))
        _check(os.fstat(file.fileno()).st_mode, path)  # it may have been replaced since
        undo.pop_all()
    return file


def _check(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(
            f"a file must be an ordinary one, got the folder {Path(path)}"
        )
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(f"a file must be an ordinary one, but {Path(path)} is {kind}")


def read_piece(path: Path, start: int, dtype: torch.dtype, count: int) -> Tensor:
    """`count` values of `dtype` that begin at byte `start` of the file at `path`.

    Raises:
        FormatError: if the file ends before them.
        OSError: if it cannot be read.
    """
    values = torch.empty(count, dtype=dtype, device="cpu")
    raw = memoryview(values.view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
    with open_ordinary(path) as file:
        file.seek(start)
        while len(raw):
            read = file.readinto(raw)
            if not read:
                raise FormatError(path, "values", "must be whole, but the file ends early")
            raw = raw[read:]
    return values


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
