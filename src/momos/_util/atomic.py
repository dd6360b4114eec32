"""Writing a file whole or not at all.

Bytes go to a part: a file of a random name next to the target, locked while it is written and
renamed once it is on the disk. A process that dies leaves at most its part, which the next save
to the same target removes.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TOKEN = 8  # random bytes in the name of a part
LONGEST_NAME = 143  # of a part, in bytes; some file systems (eCryptfs) take no longer ones
ATTEMPTS = 10  # processes that start at the same moment see each other and all step back
LONGEST_PAUSE = 0.01  # seconds between attempts
ABANDONED_AFTER = 24 * 3600  # seconds without a write, where no lock can tell
CALLER = 7  # frames up from here is who called save, compress or expand
CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` if the block ends without an error.

    Until then it is found under its own `name`. On a file system without locks a warning says
    so; if several processes then write `path` at once, the file of the last one stays.

    Raises:
        OSError: if `path` cannot be written there, or another process is writing it.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"a file must be written to a file name, got {path}")
    old = target.stat() if target.exists() else None
    if old is not None and not stat.S_ISREG(old.st_mode):
        raise OSError(f"only an ordinary file can be replaced, got {path}")
    # Created no wider than the old file, in case its mode cannot be set afterwards.
    with _claimed(target, 0o666 if old is None else stat.S_IMODE(old.st_mode)) as file:
        if old is not None:
            _keep_mode(file, stat.S_IMODE(old.st_mode), target)
        yield file
        file.flush()
        _sync(file)
        os.replace(file.name, target)
    _sync_folder(target.parent)


def refuse_same(sources: Iterable[Path], path: str | os.PathLike[str]) -> None:
    """Refuses to overwrite a file that is read, under whatever name.

    Raises:
        ValueError: if `path` is one of `sources`.
    """
    try:
        target = os.stat(path)
    except OSError:  # not there, or out of reach, which writing will report
        return
    for source in sources:
        if os.path.samestat(os.stat(source), target):
            name = "one of them" if source == Path(path) else str(source)
            raise ValueError(
                f"the result must be written beside the files that are read, but "
                f"{os.fspath(path)} is {name}"
            )


@contextmanager
def _claimed(target: Path, mode: int) -> Iterator[BinaryIO]:
    """A new part of `target`, the only one that is being written where locks can tell."""
    for attempt in range(ATTEMPTS):
        if attempt:  # not by `random`, whose state belongs to the user
            time.sleep(LONGEST_PAUSE * secrets.randbelow(1000) / 1000)
        if _others_write(target):
            continue
        with _new_part(target, mode) as file:
            refusal = _lock(file)
            if isinstance(refusal, BlockingIOError) or not _is_still(
                file.fileno(), file.name
            ):  # another process took it for abandoned before it was locked
                continue
            if _others_write(target, file):
                continue
            if refusal is not None:
                warnings.warn(
                    f"{target} is written without a lock, which its file system refuses "
                    f"({refusal.strerror}): two processes must not write it at once",
                    stacklevel=CALLER,
                )
            yield file
            return
    raise BlockingIOError(
        f"one process at a time can write a file, but another is writing {target}"
    )


@contextmanager
def _new_part(target: Path, mode: int) -> Iterator[BinaryIO]:
    """A file that did not exist before; removed at the end unless it was renamed."""

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    part = target.with_name(f"{_stem(target)}.{secrets.token_hex(TOKEN)}.part")
    try:
        file = open(part, "x+b", opener=create)  # noqa: SIM115, closed below
    except OSError as error:  # report the requested file, not its part
        raise type(error)(error.errno, error.strerror, str(target)) from None
    with file:
        try:
            yield file
        finally:
            with suppress(OSError):  # the error that led here matters more
                if _is_still(file.fileno(), file.name):
                    os.unlink(file.name)


def _stem(target: Path) -> str:
    """What the names of all parts of `target` begin with."""
    longest = LONGEST_NAME - len(f".{secrets.token_hex(TOKEN)}.part")
    if len(os.fsencode(target.name)) < longest:
        return f".{target.name}"
    return f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}"


def _lock(file: BinaryIO) -> OSError | None:
    """Locks `file`, or returns the reason why that was refused."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error
    return None


def _is_still(descriptor: int, name: str) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(name))
    except FileNotFoundError:
        return False


def _others_write(target: Path, own: BinaryIO | None = None) -> bool:
    """Whether a part of `target` other than `own` is being written. Removes abandoned parts."""
    named = re.compile(re.escape(_stem(target)) + rf"\.[0-9a-f]{{{2 * TOKEN}}}\.part")
    try:
        names = os.listdir(target.parent)
    except OSError:  # a folder may be written to without being listed
        return False
    # By the clock of the file system; without `own`, age tells nothing.
    now = os.fstat(own.fileno()).st_mtime if own else 0.0
    parts = [target.with_name(name) for name in names if named.fullmatch(name)]
    return any(_is_written(part, now) for part in parts if not own or str(part) != own.name)


def _is_written(part: Path, now: float) -> bool:
    """Whether a process is writing `part`, which is removed if it was abandoned."""
    try:
        # Neither a link nor a pipe is waited for or followed.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(part, flags)
    except OSError:  # gone, or not ours
        return False
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return False
        refusal = _lock(file)
        if isinstance(refusal, BlockingIOError):
            return True
        abandoned = refusal is None or now - about.st_mtime > ABANDONED_AFTER
        # Whoever is done with a part has renamed it before its lock became free.
        if abandoned and _is_still(descriptor, str(part)):
            with suppress(OSError):
                part.unlink()
    return False


def _keep_mode(file: BinaryIO, mode: int, target: Path) -> None:
    """Gives the new file the mode of the old one, where the file system allows that."""
    try:
        os.fchmod(file.fileno(), mode)
    except OSError as error:
        found = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if found != mode:
            warnings.warn(
                f"{target} gets the mode {found:o} instead of the {mode:o} that it had, "
                f"which its file system refuses ({error.strerror})",
                stacklevel=CALLER - 1,
            )


def _sync(file: BinaryIO) -> None:
    """Puts the bytes on the disk, where the file system knows how."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Puts the new name on the disk too, where that is allowed.

    Network and FUSE file systems answer EINVAL or EPERM, and a folder may be writable without
    being readable. The file is whole by now, so none of that is an error.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
