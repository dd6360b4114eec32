"""The same work for many jobs, in as many processes as there are cores."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Note = Callable[[Any], None]
ATTEMPTS = 2  # of a job whose process dies


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each(
    work: Callable[[Job, Note], Result],
    jobs: Sequence[Job],
    *,
    processes: int,
    note: Note = lambda value: None,
) -> Iterator[Result]:
    """What `work` returns for each job, in the order of `jobs`.

    What `work` passes to its second argument comes to `note`, here, in another thread. One process
    is this one; for others, `work` and jobs must be picklable.

    Raises:
        BrokenProcessPool: if a process dies, as for want of memory.
        BaseException: whatever `work` raises, or a Ctrl-C; processes are then ended.
    """
    if min(processes, len(jobs)) <= 1:
        for job in jobs:
            yield work(job, note)
        return
    with pool(min(processes, len(jobs)), note) as started:
        for future in [started.submit(_do, work, job) for job in jobs]:
            yield future.result()


@contextmanager
def pool(count: int, note: Note) -> Iterator[ProcessPoolExecutor]:
    """At most `count` processes, which are killed if the block raises; notes as with `each`."""
    context = get_context("spawn")  # a forked torch may hang in its threads
    reader, writer = context.Pipe(duplex=False)
    others: set[BaseProcess] = set(active_children())
    teller = Thread(target=_tell, args=(reader, note), daemon=True)
    started = ProcessPoolExecutor(
        count, context, initializer=_begin, initargs=(writer, context.Lock())
    )
    teller.start()
    with ExitStack() as ending:
        ending.callback(teller.join)
        ending.callback(writer.close)
        ending.callback(started.shutdown, cancel_futures=True)
        with ExitStack() as unless_done:
            unless_done.callback(_kill, others)
            yield started
            unless_done.pop_all()


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, `tasks` at a time, as `Cluster` is a cluster.

    `begun` says whether a job may have been running when a process died.
    """

    tasks: int
    begun: Callable[[Any], bool]

    def each(
        self,
        work: Callable[[Job, Note], Result],
        jobs: Sequence[Job],
        *,
        attempts: int,
        died: Callable[[Job], Result],
        note: Note = lambda value: None,
        size: Callable[[Job], int] = lambda job: 1,
    ) -> Generator[tuple[Job, Result]]:
        """Jobs, in order, and what `work` returns for them; notes as with `each`.

        How many cores a job takes, its `size`, is for whoever chooses `tasks`.

        When a process dies, jobs begin anew; a job that was begun in `attempts` processes that
        died has the result that `died` returns.
        """
        left, deaths = list(range(len(jobs))), Counter[int]()
        while left:
            done = 0
            try:
                todo = [jobs[number] for number in left]
                for result in each(work, todo, processes=self.tasks, note=note):
                    yield todo[done], result
                    done += 1
                return
            except BrokenProcessPool:
                rest, left = left[done:], []
            for number in rest:
                deaths[number] += self.begun(jobs[number])
                if deaths[number] < attempts:
                    left.append(number)
                else:
                    yield jobs[number], died(jobs[number])


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM an exception, as Ctrl-C is one, so that it ends what was started.

    Raises:
        SystemExit: on SIGTERM, with the shell's code for it; a handler that is there stays.
    """
    taken = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if taken or current_thread() is not main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


_notes: Any = None  # in a process of the pool: where notes go, and the lock for that


def _exit(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _kill(others: set[BaseProcess]) -> None:
    """Ends the processes that are not among `others`; Lightning would wait after a SIGTERM."""
    for child in set(active_children()) - others:
        child.kill()


def _begin(writer: Connection, lock: Any) -> None:
    global _notes
    _notes = writer, lock
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that waits
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however that ended."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _do(work: Callable[[Job, Note], Result], job: Job) -> Result:
    return work(job, put)


def put(value: Any) -> None:
    """Passes a value to the `note` of the process that made the pool this one is in."""
    writer, lock = _notes
    with lock:
        writer.send(value)


def _tell(reader: Connection, note: Note) -> None:
    """Until nobody is left who could write, or one was killed while writing."""
    with reader:
        while True:
            try:
                value = reader.recv()
            except (EOFError, OSError):
                return
            note(value)
