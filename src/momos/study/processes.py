"""The same work for many jobs, in as many processes as there are cores."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Note = Callable[[Any], None]


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

    `work` and jobs must be picklable. What `work` passes to its second argument comes to `note`,
    here, in another thread. One process is this one.

    Raises:
        BrokenProcessPool: if a process dies, as for want of memory.
        BaseException: whatever `work` raises, or a Ctrl-C; processes are then ended.
    """
    if min(processes, len(jobs)) <= 1:
        for job in jobs:
            yield work(job, note)
        return
    context = get_context("spawn")  # a forked torch may hang in its threads
    notes = context.SimpleQueue()
    others: set[BaseProcess] = set(active_children())
    teller = Thread(target=_tell, args=(notes, note), daemon=True)
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)), context, initializer=_begin, initargs=(notes,)
    )
    teller.start()
    with ExitStack() as ending:
        ending.callback(teller.join)
        ending.callback(notes.put, _END)
        ending.callback(pool.shutdown, cancel_futures=True)
        with ExitStack() as unless_done:
            unless_done.callback(_terminate, others)
            for future in [pool.submit(_do, work, job) for job in jobs]:
                yield future.result()
            unless_done.pop_all()


_END = "end of notes"
_notes: Any = None  # in a process of the pool, where notes go


def _terminate(others: set[BaseProcess]) -> None:
    """Ends the processes that are not among `others`, whatever they are doing."""
    for child in set(active_children()) - others:
        child.terminate()


def _begin(notes: Any) -> None:
    global _notes
    _notes = notes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that waits


def _do(work: Callable[[Job, Note], Result], job: Job) -> Result:
    return work(job, _notes.put)


def _tell(notes: Any, note: Note) -> None:
    while (value := notes.get()) != _END:
        note(value)
