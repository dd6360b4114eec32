"""The most memory that reading a file takes, as the system counts it (Linux only)."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import momos

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
COUNTED = os.access(RESET, os.W_OK)

# docs/format.md §8: at most this many times what a file expands to, for its manifest this many
# times its length, and this much whatever the file.
MULTIPLE, OF_MANIFEST, AT_LEAST = 6, 4096, 64 << 20


def allowed(path: Path) -> int:
    """Bytes that reading the file at `path` may take."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    of_content = MULTIPLE * (1 << 16) * min(header, size)
    return of_content + OF_MANIFEST * size + AT_LEAST


def taken(work: Callable[[Path], object], path: Path) -> tuple[int, str]:
    """Bytes that `work` takes at its peak, and what it raises."""
    before, error = _reset(), ""
    try:
        work(path)
    except (momos.FormatError, OSError) as problem:
        error = str(problem)
    return _count("VmHWM") - before, error


@contextmanager
def counted(path: Path, faults: list[str]) -> Iterator[None]:
    """Adds to `faults` if what happens inside takes more than reading `path` may."""
    before = _reset()
    try:
        yield
    finally:
        growth = _count("VmHWM") - before
        if growth > allowed(path):
            faults.append(f"takes {growth >> 20} MiB, more than {allowed(path) >> 20}")


def _reset() -> int:
    """Forgets the peak; bytes that are taken now."""
    RESET.write_text("5")
    return _count("VmRSS")


def _count(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def state(path: Path) -> None:
    momos.load(path).state_dict()


def verified(path: Path) -> None:
    with momos.MosaicFile(path) as file:
        file.verify()


READS = {"load": state, "inspect": momos.inspect, "verify": verified}


def main() -> None:
    """Each reading in a process of its own, so that no memory is used a second time."""
    torch.set_num_threads(1)
    for name, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        if not os.fork():
            growth, error = taken(READS[name], Path(path))
            print(growth, error, sep="\t", flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main()
