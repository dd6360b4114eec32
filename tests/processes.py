"""Runs a function in several processes that form a gloo group, for the tests of many ranks.

`run(function, size, *arguments)` calls `function(rank, *arguments)` in `size` new processes and
returns their results in order. A rank that raises fails the test with its traceback, and one
that does not return in time with its number and where it stood.
"""

import faulthandler
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src"


class Failed(AssertionError):
    """Raised if a rank raised, died or did not return in time; says which and where."""


def run(
    function: Callable[..., Any],
    size: int,
    *arguments: Any,
    seconds: float = 60,
    group_seconds: float = 30,
) -> list[Any]:
    """What `function(rank, *arguments)` returns on each of `size` ranks.

    `function` must be at the top of its module. Collectives time out after `group_seconds`, and
    ranks that still run after `seconds` are killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        task = (function.__module__, function.__qualname__, arguments)
        (work / "task").write_bytes(pickle.dumps(task))
        ranks = [_start(work, rank, size, group_seconds) for rank in range(size)]
        try:
            late = _wait(ranks, time.monotonic() + seconds)
            for rank in late:  # faulthandler writes where it stands
                ranks[rank].send_signal(signal.SIGUSR1)
            time.sleep(0.2 if late else 0)
        finally:
            for process in ranks:
                with suppress(ProcessLookupError):
                    process.kill()
                process.wait()
        problems = list(_problems(work, ranks, late))
        if problems:
            raise Failed("\n".join(problems))
        return [pickle.loads((work / f"result{rank}").read_bytes()) for rank in range(size)]


def _start(work: Path, rank: int, size: int, group_seconds: float) -> subprocess.Popen:
    path = os.pathsep.join([str(SOURCES), str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        __file__,
        str(work),
        str(rank),
        str(size),
        str(group_seconds),
    ]
    with (work / f"output{rank}").open("wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, cwd=TESTS
        )


def _wait(ranks: list[subprocess.Popen], until: float) -> list[int]:
    """Waits for all ranks; returns those that still run at the end."""
    while time.monotonic() < until:
        if all(process.poll() is not None for process in ranks):
            return []
        time.sleep(0.02)
    return [rank for rank, process in enumerate(ranks) if process.poll() is None]


def _problems(work: Path, ranks: list[subprocess.Popen], late: list[int]) -> Iterator[str]:
    for rank, process in enumerate(ranks):
        output = (work / f"output{rank}").read_text(errors="replace")
        if rank in late:
            yield f"rank {rank} of {len(ranks)} hung:\n{output}"
        elif process.returncode:
            yield f"rank {rank} of {len(ranks)} ended with {process.returncode}:\n{output}"


def _main(work: Path, rank: int, size: int, group_seconds: float) -> None:
    import torch
    import torch.distributed as dist

    faulthandler.register(signal.SIGUSR1)
    torch.set_num_threads(1)
    module, name, arguments = pickle.loads((work / "task").read_bytes())
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(work / "store"), size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=group_seconds),
    )
    function = getattr(__import__(module), name)
    try:
        result = function(rank, *arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # without waiting for the others
    (work / f"result{rank}").write_bytes(pickle.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
