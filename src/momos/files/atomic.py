"""Writing a file whole or not at all.

Bytes go to a file of a fixed name beside the target, which is locked while it is written and
renamed when it is on the disk. A process that dies leaves at most that one file, and the next
that saves to the same target takes it over.
"""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` if the block ends without an error.

    Raises:
        OSError: if `path` cannot be written there, or another process is writing it.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"a file must be written to a file name, got {path}")
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise OSError(f"only an ordinary file can be replaced, got {path}")
    part = _part_of(target)
    with _locked(part, target) as file, ExitStack() as undo:
        undo.callback(_remove, file, part)
        file.truncate(0)
        if target.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(part, target)
        undo.pop_all()
    _sync_folder(target.parent)


def _part_of(target: Path) -> Path:
    """The file beside `target` that is written first; long names are shortened by a hash."""
    name = f".{target.name}.part"
    if len(os.fsencode(name)) > 255:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}.part"
    return target.with_name(name)


def refuse_same(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Refuses to write over what is read.

    Raises:
        ValueError: if both paths are one file.
    """
    if os.path.realpath(source) == os.path.realpath(path):
        raise ValueError(
            f"the result must be written beside the checkpoint, got {path} twice"
        )


@contextmanager
def _locked(part: Path, target: Path) -> Iterator[BinaryIO]:
    while True:
        try:
            if part.is_symlink():  # which somebody else has laid there
                part.unlink()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(part, flags, 0o666)
        except OSError as error:  # told of the file that was asked for
            raise type(error)(error.errno, error.strerror, str(target)) from None
        with os.fdopen(descriptor, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"one process at a time can write a file, but another is writing {target}"
                ) from None
            if _is_still(file, part):
                yield file
                return


def _is_still(file: BinaryIO, part: Path) -> bool:
    """Whether nobody renamed or removed `part` between its opening and its locking."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
    except FileNotFoundError:
        return False


def _remove(file: BinaryIO, part: Path) -> None:
    if _is_still(file, part):  # it may be another process's by now
        part.unlink()


def _sync_folder(folder: Path) -> None:
    """Puts the new name on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
