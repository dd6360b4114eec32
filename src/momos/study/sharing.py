"""A folder that machines share: each sees it, and one process at a time is at work on a cell.

A process that holds a lock may be killed, or its machine: the system, or the file server, then
gives the lock to the next. So no lock outlives who held it, and a task that was taken for dead
while its machine could not be reached keeps its own.
"""

import errno
import fcntl
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from momos.study.store import finished

NEW = 60.0  # seconds in which a mark has certainly been locked
MARK = ".shared-"  # begins the names of marks
LOCKS = ".locks"  # an empty file; its byte at a cell's key is what is locked


@contextmanager
def shared(root: Path) -> Iterator[Path]:
    """Makes the folder, and in it a mark by which other machines know it, for so long.

    Raises:
        OSError: if the file system has no locks.
    """
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    with NamedTemporaryFile(prefix=MARK, dir=root) as mark:
        if not _locked(mark, root):
            raise OSError(f"locks in {root} must be free where nothing holds them")
        yield Path(mark.name)


def check_shared(mark: Path, needed: Iterable[Path]) -> None:
    """Refuses a machine that does not see the folder of `mark`, its locks, or `needed` runs.

    Raises:
        OSError: names the machine and what it does not see.
    """
    root, machine = mark.parent, platform.node()
    try:
        with mark.open("r+b") as file:
            free = _locked(file, root)
    except FileNotFoundError:
        message = f"{root} must be a folder that all machines share, but {machine} does not"
        raise FileNotFoundError(f"{message} see what is in it") from None
    if free:
        message = f"locks in {root} must be seen by all machines, but {machine} does not"
        raise OSError(f"{message} see those of others")
    for folder in needed:
        if not finished(folder):
            raise FileNotFoundError(f"{folder} must hold a result, but {machine} sees none")


@contextmanager
def alone(root: Path, key: str) -> Iterator[None]:
    """Waits until nobody else is at work on the cell of that key, and keeps others waiting."""
    with (root / LOCKS).open("ab") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, int(key, 16))
        yield


def _sweep(root: Path) -> None:
    """Removes marks of processes that were killed: nobody holds their locks, new ones apart."""
    for path in root.glob(f"{MARK}*"):
        with suppress(FileNotFoundError), path.open("r+b") as file:
            old = time.time() - path.stat().st_mtime > NEW
            if old and _locked(file, root):
                path.unlink()


def _locked(file: IO[Any] | Any, root: Path) -> bool:
    """Locks a file, unless it is locked."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise OSError(f"{root} must be on a file system with locks, but: {error}") from None
    return True
