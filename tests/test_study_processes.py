"""Work in processes: results in the order of jobs, notes, faults, and a Ctrl-C."""

import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from threading import Timer

import pytest
import torch
from torch import nn

from momos.study.processes import cores, each


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
