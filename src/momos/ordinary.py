"""Opening files to read, ordinary ones only."""

import os
import stat
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_ordinary(path: str | os.PathLike[str]) -> BufferedReader:
    """The file at `path`, open for reading; a pipe is refused, not waited for.

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
