"""Leases: one process at a time is at work on a cell, on any machine that sees the folder of runs.

A process that begins a cell makes the cell's next lease, a file that only one process can make,
and appends to it for as long as it is at work. File systems need no locks for that, and machines
no common time: how long a lease has not grown is measured by the clock of the process that waits.
An owner that could not append for so long that others may have taken over must first make the next
lease itself. On one machine its system knows whether an owner lives, so nobody waits there.
"""

import json
import os
import platform
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread

LEASES = ".running"  # a folder of files KEY.1, KEY.2, ...: the leases of a cell
RENEWED = 10.0  # seconds between two renewals
LOST = 40.0  # seconds without one, after which a lease may not be relied on
EXPIRED = (
    120.0  # seconds without growth, after which others take over; network caches keep 60
)
POLL = 0.2  # seconds between looks at another's lease
ENDED = b"\nended\n"
MARK = "command-"  # begins the names of leases of folders, not cells


class Busy(RuntimeError):
    """Another process is at work on a cell."""


def now() -> float:
    """Seconds of a clock that nobody sets, and that runs while the machine sleeps if there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """The right to run a cell, renewed by a thread in a `with` block, and given back after it.

    Making one fails with FileExistsError if another process has made the lease of that number.
    """

    def __init__(self, root: Path, key: str, number: int) -> None:
        self.root, self.key = root, key
        self._ended, self._renewing = Event(), Lock()
        self._begin(number)

    @property
    def path(self) -> Path:
        return self.root / LEASES / f"{self.key}.{self._number}"

    def _begin(self, number: int) -> None:
        began = now()
        owner = {"machine": machine(), "process": own_process(), "expires": EXPIRED}
        with (self.root / LEASES / f"{self.key}.{number}").open("xb") as file:
            file.write(json.dumps(owner).encode() + b"\n")
        self._number, self._renewed = number, began

    def __enter__(self) -> "Lease":
        Thread(target=self._keep, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        with self._renewing, suppress(OSError):  # if it cannot be given back, it expires
            self._append(ENDED)

    def check(self) -> None:
        """Makes sure that no other process has taken the cell over; called before it is written to.

        Raises:
            Busy: if one has, as this one could not renew the lease for too long.
            OSError: if the lease cannot be renewed.
        """
        with self._renewing:
            if self._late:
                self._renew()

    @property
    def _late(self) -> bool:
        return now() - self._renewed > LOST

    def _keep(self) -> None:
        while not self._ended.wait(RENEWED):
            # What cannot be renewed now may be later, or else `check` raises it.
            with self._renewing, suppress(OSError, Busy):
                self._renew()

    def _renew(self) -> None:
        began = now()
        try:
            if self._late:
                self._begin(self._number + 1)
            else:
                self._append(b".")
                self._renewed = began
        except FileExistsError:
            raise Busy(
                f"another process has taken over the cell {self.key} in {self.root}, as this "
                f"one was not at work for {now() - self._renewed:.0f} seconds"
            ) from None

    def _append(self, text: bytes) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)  # and does not make it
        try:
            os.write(file, text)
        finally:
            os.close(file)


@contextmanager
def alone(root: Path, key: str, *, wait: bool = True) -> Iterator[Lease]:
    """Keeps all others from the cell of that key, after they are done with it.

    Raises:
        Busy: if another process is at work on it, and this one is not to `wait`.
    """
    (root / LEASES).mkdir(parents=True, exist_ok=True)
    watch, lease = _Watch(), None
    while lease is None:
        number = max(_numbers(root / LEASES, key), default=0)
        if not number or watch.is_over(root / LEASES / f"{key}.{number}"):
            with suppress(FileExistsError):  # another process was faster
                lease = Lease(root, key, number + 1)
        elif not wait:
            raise Busy(f"another process is at work on the cell {key} in {root}")
        else:
            time.sleep(POLL)
    with lease:
        yield lease


def _numbers(place: Path, key: str) -> Iterator[int]:
    for path in place.glob(f"{key}.*"):
        if path.suffix[1:].isdecimal():
            yield int(path.suffix[1:])


class _Watch:
    """For how long a lease has been seen not to grow."""

    def __init__(self) -> None:
        self.seen, self.since = ("", 0), now()

    def is_over(self, path: Path) -> bool:
        """Whether it was given back, its owner is dead, or it has not grown for too long."""
        text = (
            path.read_bytes()
        )  # opened anew, so that a network file system looks at it again
        if text.endswith(ENDED):
            return True
        if self.seen != (path.name, len(text)):
            self.seen, self.since = (path.name, len(text)), now()
        try:
            owner = json.loads(text.partition(b"\n")[0])
        except ValueError:  # it is being made
            owner = {"machine": "", "expires": EXPIRED}
        if owner["machine"] and owner["machine"] == machine():
            return not _lives(*owner["process"])
        return now() - self.since > owner["expires"]


def machine() -> str:
    """Names this machine as long as it runs, and the space of its process numbers; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not on macOS
        return ""


def own_process() -> tuple[int, str]:
    """The number of this process, and when it began, as numbers are used again."""
    return os.getpid(), _stat(os.getpid())[-1]


def _lives(number: int, began: str) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    state, found = _stat(number)
    return state not in ("Z", "X") and found == began


def _stat(number: int) -> tuple[str, str]:
    """State and beginning of a process."""
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return "X", ""
    fields = text.rpartition(")")[2].split()  # a name may have spaces
    return fields[0], fields[19]


@contextmanager
def shared(root: Path) -> Iterator[Path]:
    """Makes the folder, and in it a mark by which other machines know it, for so long."""
    (root / LEASES).mkdir(parents=True, exist_ok=True)
    for path in (root / LEASES).glob(f"{MARK}*"):  # of commands that were killed
        with suppress(FileNotFoundError):
            if _Watch().is_over(path):
                path.unlink()
    with alone(root, f"{MARK}{secrets.token_hex(8)}") as lease:
        try:
            yield lease.path
        finally:
            lease.path.unlink(missing_ok=True)


def check_shared(mark: Path, needed: Iterable[Path]) -> None:
    """Refuses a machine that does not see the folder of `mark`, or `needed` results.

    Raises:
        FileNotFoundError: names the machine and what it does not see.
    """
    place = platform.node()
    if not mark.exists():
        raise FileNotFoundError(
            f"{mark.parent.parent} must be a folder that all machines share, but {place} does "
            "not see what is in it"
        )
    for result in needed:
        if not result.exists():
            raise FileNotFoundError(
                f"{result.parent} must hold a result, but {place} sees none"
            )
