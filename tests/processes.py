"""Runs a function in several processes that form a gloo group, for the tests of many ranks.

`run(function, size, *arguments)` calls `function(rank, *arguments)` in `size` new processes and
returns their results in order. A rank that raises fails the test with its traceback, and one
that does not return in time with its number and where it stood.

Ranks are forked from one launcher that has imported torch, which takes seconds, once.
"""

import atexit
import faulthandler
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
SLOW_TO_IMPORT = (
    "momos",
    "pytest",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
)
STARTING = 300  # seconds; it imports torch, on a machine that may be busy
SOURCES = TESTS.parent / "src"


class Failed(AssertionError):
    """Raised if a rank raised, died or did not return in time; says which and where."""


def run(
    function: Callable[..., Any],
    size: int,
    *arguments: Any,
    seconds: float = 300,
    group_seconds: float = 120,
) -> list[Any]:
    """What `function(rank, *arguments)` returns on each of `size` ranks.

    `function` must be at the top of its module. Collectives time out after `group_seconds`, and
    ranks that still run after `seconds` are killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        task = (function.__module__, function.__qualname__, arguments, group_seconds)
        (work / "task").write_bytes(pickle.dumps(task))
        launcher = _launcher()
        _tell(launcher, [folder, size])
        ranks = _hear(launcher, time.monotonic() + STARTING)
        if not ranks:
            raise Failed(f"the launcher of ranks must answer within {STARTING} seconds")
        codes = _hear(launcher, time.monotonic() + seconds)
        late = [] if codes else [r for r in range(size) if not (work / f"end{r}").exists()]
        if not codes:
            for signum in (signal.SIGUSR1, signal.SIGKILL):
                for rank in ranks:  # faulthandler writes where it stands
                    with suppress(ProcessLookupError):
                        os.kill(rank, signum)
                time.sleep(0.2)
            codes = _hear(launcher, time.monotonic() + 60)
        problems = list(_problems(work, codes, late))
        if problems:
            raise Failed("\n".join(problems))
        return [pickle.loads((work / f"result{rank}").read_bytes()) for rank in range(size)]


@cache
def _launcher() -> subprocess.Popen:
    path = os.pathsep.join([str(SOURCES), str(TESTS), os.environ.get("PYTHONPATH", "")])
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    launcher = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path} | single,
        cwd=TESTS,
    )
    atexit.register(launcher.communicate)  # which ends its input, and so the launcher
    return launcher


def _tell(launcher: subprocess.Popen, value: list[Any]) -> None:
    assert launcher.stdin is not None
    launcher.stdin.write(json.dumps(value).encode() + b"\n")
    launcher.stdin.flush()


def _hear(launcher: subprocess.Popen, until: float) -> list[int]:
    """The launcher's next line, or nothing if there is none in time."""
    assert launcher.stdout is not None
    ready, _, _ = select.select([launcher.stdout], [], [], max(0, until - time.monotonic()))
    return json.loads(launcher.stdout.readline()) if ready else []


def _problems(work: Path, codes: list[int], late: list[int]) -> Iterator[str]:
    for rank, code in enumerate(codes):
        output = (work / f"output{rank}").read_text(errors="replace")
        if rank in late:
            yield f"rank {rank} of {len(codes)} hung:\n{output}"
        elif code:
            yield f"rank {rank} of {len(codes)} ended with {code}:\n{output}"


def _launch() -> None:
    """Forks the ranks of each line on standard input; writes their ids, then their exit codes."""
    for name in SLOW_TO_IMPORT:
        import_module(name)
    for line in sys.stdin:
        folder, size = json.loads(line)
        sys.stdout.flush()
        ranks = [_forked(Path(folder), rank, size) for rank in range(size)]
        print(json.dumps(ranks), flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
        print(json.dumps(codes), flush=True)


def _forked(work: Path, rank: int, size: int) -> int:
    if child := os.fork():
        return child
    with (work / f"output{rank}").open("wb") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    faulthandler.register(signal.SIGUSR1)
    code = 1
    try:
        _work(work, rank, size)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        (work / f"end{rank}").touch()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without waiting for the others


def _work(work: Path, rank: int, size: int) -> None:
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import FileStore

    torch.set_num_threads(1)
    module, name, arguments, group_seconds = pickle.loads((work / "task").read_bytes())
    dist.init_process_group(
        "gloo",
        store=FileStore(str(work / "store"), size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=group_seconds),
    )
    result = getattr(import_module(module), name)(rank, *arguments)
    (work / f"result{rank}").write_bytes(pickle.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    _launch()
