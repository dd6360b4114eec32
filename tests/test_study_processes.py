"""Work in processes: results in the order of jobs, notes, faults, and a Ctrl-C."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path
from threading import Timer

import pytest
import torch
from torch import nn

from momos.study.execution import processes as module
from momos.study.execution.processes import cores, each, ended_by_sigterm


def doubled(job: int, note) -> tuple[int, int, nn.Module]:
    time.sleep(0.3 if job == 0 else 0)  # the first is the last to finish
    note(job)
    return 2 * job, os.getpid(), network(job)


def network(job: int) -> nn.Module:
    torch.manual_seed(job)
    return nn.Linear(3, 2)


def failing(job: int, note) -> int:
    if job:
        raise ValueError(f"job {job} must be 0")
    return job


def dying(job: int, note) -> int:
    if job:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def sleeping(job: int, note) -> None:
    time.sleep(60)


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_whole_in_the_order_of_jobs_and_every_note_arrives(
    processes: int,
) -> None:
    notes: list[int] = []
    found = list(each(doubled, range(5), processes=processes, note=notes.append))
    assert [value for value, _, _ in found] == [0, 2, 4, 6, 8]
    assert sorted(notes) == [0, 1, 2, 3, 4]
    for job, (_, _, returned) in enumerate(found):
        assert torch.equal(returned.weight, network(job).weight)
    own = {process for _, process, _ in found} & {os.getpid()}
    assert bool(own) == (processes == 1)
    assert not active_children()


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_work_is_raised_after_the_results_before_it(processes: int) -> None:
    results = each(failing, range(3), processes=processes)
    assert next(results) == 0
    with pytest.raises(ValueError, match="job 1 must be 0"):
        next(results)
    assert not active_children()


def test_a_process_that_dies_is_an_error_and_no_hang() -> None:
    with pytest.raises(BrokenProcessPool):
        list(each(dying, range(1, 3), processes=2))
    assert not active_children()


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_processes_at_once() -> None:
    start = time.monotonic()
    alarm = Timer(4, lambda: os.kill(os.getpid(), signal.SIGINT))
    alarm.start()
    with pytest.raises(KeyboardInterrupt):
        list(each(sleeping, range(4), processes=2))
    assert time.monotonic() - start < 30
    assert not active_children()


def test_no_job_is_no_result() -> None:
    assert list(each(doubled, [], processes=2)) == []


def test_there_is_a_core() -> None:
    assert cores() >= 1


SCRIPT = """
import os, signal, sys, time
import processes

def work(job, note):
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # as Lightning does
    note(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    told = lambda pid: print(pid, flush=True)
    with processes.ended_by_sigterm():
        list(processes.each(work, range(2), processes=2, note=told))
"""


def is_running(process: int) -> bool:
    """Whether a process runs; one that ended may wait for whoever takes its code."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True)
    return bool(found.stdout.strip()) and not found.stdout.startswith(b"Z")


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_whoever_ends_the_runner_ends_its_processes(
    sent: signal.Signals, code: int, tmp_path: Path
) -> None:
    shutil.copy(str(module.__file__), tmp_path / "processes.py")  # without torch
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        workers = [int(runner.stdout.readline()) for _ in range(2)]
        assert all(map(is_running, workers))
        runner.send_signal(sent)
        assert runner.wait(60) == code
    until = time.monotonic() + 60
    while any(map(is_running, workers)):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_sigterm_is_answered_for_so_long_and_no_handler_is_replaced() -> None:
    def own(number, frame) -> None: ...

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(SystemExit, match="143"), ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, own)
    try:
        with ended_by_sigterm():
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
