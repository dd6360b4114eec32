"""A folder that runners share: one process at a time is at work on a cell, on any machine.

The system, or the file server, frees the locks of a process that is killed; a task that was taken
for dead while its machine could not be reached keeps its own.
"""

import errno
import fcntl
import platform
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from filelock import FileLock, Timeout

NEW = 60.0  # seconds in which a mark has certainly been locked
MARK = ".shared-"  # begins the names of marks
LOCKS = ".running"  # a folder of empty files; that of a cell's key is locked
LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # from lock calls


class Busy(RuntimeError):
    """Another process is at work on a cell."""


@contextmanager
def shared(root: Path) -> Iterator[Path]:
    """Makes the folder, and in it a mark by which other machines know it, for so long."""
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    with NamedTemporaryFile(prefix=MARK, dir=root) as mark:
        if not _locked(mark, root):
            raise OSError(f"locks in {root} must be free where nothing holds them")
        yield Path(mark.name)


def check_shared(mark: Path, needed: Iterable[Path]) -> None:
    """Refuses a machine that does not see the folder of `mark`, its locks, or `needed` results.

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
    for result in needed:
        if not result.exists():
            raise FileNotFoundError(
                f"{result.parent} must hold a result, but {machine} sees none"
            )


@contextmanager
def alone(root: Path, key: str, *, wait: bool = True) -> Iterator[None]:
    """Keeps all others from the cell of that key, after they are done with it.

    Where the file system has no locks there is a warning, and nobody is kept away.

    Raises:
        Busy: if another process is at work on it, and this one is not to `wait`.
    """
    (root / LOCKS).mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(
                FileLock(root / LOCKS / f"{key}.lock", timeout=-1 if wait else 0)
            )
        except Timeout:
            raise Busy(f"another process is at work on the cell {key} in {root}") from None
        except OSError as error:
            if error.errno not in LOCKLESS:
                raise
            warnings.warn(
                f"{root} should be on a file system with locks, but: {error}; a second runner in "
                "it would run the same cells at the same time",
                stacklevel=3,
            )
        yield


def _sweep(root: Path) -> None:
    """Removes marks of processes that were killed: nobody holds their locks, new ones apart."""
    for path in root.glob(f"{MARK}*"):
        with suppress(FileNotFoundError), path.open("r+b") as file:
            old = time.time() - path.stat().st_mtime > NEW
            if old and _locked(file, root):
                path.unlink()


def _locked(file: IO[Any] | Any, root: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise OSError(f"{root} must be on a file system with locks, but: {error}") from None
    return True
