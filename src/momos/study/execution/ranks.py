"""Processes of one machine that do one job together, by torch.distributed; alone is a rank of one."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from momos.study.execution.processes import Job, Note, Result, pool, put

LOOK = 1.0  # seconds between two calls of `check`
GRACE = 2.0  # seconds in which the death of a process is known, after others failed for it
T = TypeVar("T")

_together = False  # in a process of `together`: the group is ours


def together(
    work: Callable[[Job, Note], Result],
    job: Job,
    *,
    ranks: int,
    cuda: bool = False,
    note: Note = lambda value: None,
    check: Callable[[], None] = lambda: None,
) -> Result:
    """What `work` returns in the first of so many processes, all of which are given the job.

    `work` and the job must be picklable. Notes are as with `each`; `check` is called every second.

    Raises:
        BrokenProcessPool: if a process dies; the others are then killed, and do not hang.
        BaseException: whatever `work` or `check` raises, likewise.
    """
    with (
        TemporaryDirectory(prefix="momos-ranks-") as folder,
        pool(ranks, note) as processes,
    ):
        meeting = Path(folder) / "meeting"
        futures: list[Future[Result]] = [
            processes.submit(_do, work, job, rank, ranks, cuda, meeting)
            for rank in range(ranks)
        ]
        left, failed = set(futures), False
        while left and not failed:
            done, left = wait(left, timeout=LOOK, return_when=FIRST_EXCEPTION)
            failed = any(future.exception() for future in done)
            check()
        if failed:
            wait(left, timeout=GRACE)
            raise _first_error(futures)
        return futures[0].result()


def _first_error(futures: list[Future[Result]]) -> BaseException:
    """A death rather than what the others say of it."""
    errors = [future.exception() for future in futures if future.done()]
    found = [error for error in errors if error is not None]
    deaths = [error for error in found if isinstance(error, BrokenProcessPool)]
    return (deaths or found)[0]


def _do(
    work: Callable[[Job, Note], Result],
    job: Job,
    number: int,
    ranks: int,
    cuda: bool,
    meeting: Path,
) -> Result:
    global _together
    os.environ["LOCAL_RANK"] = str(
        number
    )  # by which Lightning knows that it has not to start others
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # reached by nobody else
    torch.set_num_threads(1)
    if cuda:
        torch.cuda.set_device(number)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=meeting.as_uri(),
        rank=number,
        world_size=ranks,
    )
    _together = True
    result = work(job, put)
    dist.destroy_process_group()
    return result


def count() -> int:
    """How many processes are at work on the job of this one; 1 outside of `together`."""
    return dist.get_world_size() if _together else 1


def rank() -> int:
    """Which of them this one is."""
    return dist.get_rank() if _together else 0


def share(values: Tensor) -> Tensor:
    """This rank's rows; none if there are more ranks than rows."""
    return values.tensor_split(count())[rank()]


def sum_(values: Tensor) -> Tensor:
    """`values`, in place, summed over all ranks."""
    if count() > 1:
        dist.all_reduce(values)
    return values


class Summed(torch.autograd.Function):
    """The sum over all ranks, through which gradients flow to all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_(values.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_(gradients[0].clone())


def agree(value: Callable[[], object]) -> bool:
    """Whether all ranks find the same value, which is not looked for where there is one rank."""
    if count() == 1:
        return True
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value())
    return all(each == found[0] for each in found)


def of_first(value: T) -> T:
    """The value that the first rank has."""
    if count() == 1:
        return value
    found: list[Any] = [value]
    dist.broadcast_object_list(found)
    return found[0]
