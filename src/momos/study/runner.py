"""Cells run in processes, or on a cluster: each once, those that others need first.

A cell that another runner is at work on is left for the end of its level, and then waited for.
One that fails says so in its folder, and the others go on, but for what needs it. When a process
dies, the cells that it may have been running are tried once more, from their last checkpoints.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from momos.study.cell import Cell, ordered
from momos.study.execution.cluster import Cluster
from momos.study.execution.leases import Busy, alone, check_shared, shared
from momos.study.execution.processes import ATTEMPTS, Processes, ended_by_sigterm
from momos.study.store import (
    NOBODY,
    RESULT,
    Asked,
    failed,
    failure,
    finished,
    write_failure,
)
from momos.study.training.run import run


@dataclass(frozen=True)
class Event:
    """A line of a cell's history, or, without one, its end; `failure` says why it has none."""

    cell: Cell
    line: dict[str, Any] | None = None
    failure: str = ""


Tell = Callable[[Event], None]


@dataclass
class Report:
    """Cells that finished now, and those that failed, with the reason."""

    ran: list[Cell] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # by folder


@dataclass(frozen=True)
class _Job:
    cell: Cell
    root: Path
    recipe: Asked
    logger: str
    device: str = ""  # one of the kind of cells that are not on the CPU
    wait: bool = False  # for another process that is at work on the cell

    def __str__(self) -> str:
        return self.cell.folder

    @property
    def folder(self) -> Path:
        return self.root / self.cell.folder

    @property
    def begun(self) -> bool:
        """Whether it was begun, and neither finished nor failed."""
        return self.folder.exists() and not (finished(self.folder) or failed(self.folder))


def run_all(
    cells: Iterable[Cell],
    root: Path,
    *,
    recipe: Asked = NOBODY,
    logger: str = "csv",
    processes: int = 1,
    cluster: Cluster | None = None,
    device: str = "",
    retry: bool = False,
    tell: Tell = lambda event: None,
) -> Report:
    """Runs all cells that are not finished, and those they need, in folders under `root`.

    All machines of a `cluster` must see `root`. Cells not on the CPU are trained on `device`, or
    the first of their kind. Those that failed earlier stay so, unless `retry`.

    Raises:
        OSError: if a machine of the cluster does not see `root` (names both).
        KeyboardInterrupt: on Ctrl-C; finished cells are whole, others go on from checkpoints.
        SystemExit: on SIGTERM, likewise.
    """
    report = Report()
    team = cluster or Processes(processes, begun=lambda job: job.begun)
    # The machines of a cluster need not be in the same folder as this process.
    place = root if cluster is None else root.absolute()
    with ended_by_sigterm():
        for level in levels(ordered(cells)):
            left = [cell for cell in level if _left(cell, root, report, retry)]
            jobs = [
                _Job(cell, place, recipe, logger, _named(cell, device)) for cell in left
            ]
            while jobs:
                jobs = _attempt(jobs, place, team, report, tell)
    return report


def _named(cell: Cell, device: str) -> str:
    return device if device.partition(":")[0] == cell.device else ""


def levels(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells by how many others must have been run one after the other before them."""
    depth: dict[str, int] = {}
    found: list[list[Cell]] = []
    for cell in cells:  # those they need come before
        depth[cell.key] = max((depth[other.key] + 1 for other in cell.needs), default=0)
        while len(found) <= depth[cell.key]:
            found.append([])
        found[depth[cell.key]].append(cell)
    return found


def _left(cell: Cell, root: Path, report: Report, retry: bool) -> bool:
    """Whether a cell is still to be run; else the report is told why not."""
    folder = root / cell.folder
    if finished(folder):
        return False
    missing = [other.folder for other in cell.needs if other.folder in report.failed]
    if missing:
        report.failed[cell.folder] = f"it needs {missing[0]}, which failed"
        return False
    if failed(folder) and not retry:
        reason = f"{failure(folder)} (in an earlier run; --retry runs it again)"
        report.failed[cell.folder] = reason
        return False
    return True


def _attempt(
    jobs: list[_Job], root: Path, team: Cluster | Processes, report: Report, tell: Tell
) -> list[_Job]:
    """Runs jobs; returns those that another process is at work on, to be waited for."""
    busy = []
    with ExitStack() as using:
        work = _work
        if isinstance(team, Cluster):
            work = partial(_work_shared, mark=using.enter_context(shared(root)))
        results = using.enter_context(
            closing(
                team.each(
                    work,
                    jobs,
                    attempts=ATTEMPTS,
                    died=_given_up,
                    note=tell,
                    size=lambda job: job.cell.devices,
                )
            )
        )
        for job, reason in results:
            if reason is None:
                busy.append(replace(job, wait=True))
                continue
            if reason:
                report.failed[job.cell.folder] = reason
            else:
                report.ran.append(job.cell)
            tell(Event(job.cell, failure=reason))
    return busy


def _given_up(job: _Job) -> str:
    """Says in a cell's folder that its processes died, unless the last one had finished."""
    if finished(job.folder):
        return ""
    reason = f"its process died {ATTEMPTS} times, as for want of memory"
    return write_failure(job.folder, reason)


def _work_shared(job: _Job, note: Callable[[Any], None], *, mark: Path) -> str | None:
    """The same on a machine of a cluster, where a task that was given up may still be at work."""
    check_shared(mark, [job.root / other.folder / RESULT for other in job.cell.needs])
    return _work(job, note)


def _work(job: _Job, note: Callable[[Any], None]) -> str | None:
    """Runs one cell; why it failed, or nothing. None if another process is at work on it."""
    if job.wait:
        # Until the process that is at work on it is done.
        with alone(job.root, job.cell.key):
            if failed(job.folder):  # a failure from before was removed when that one began
                return failure(job.folder)
    try:
        run(
            job.cell,
            job.root,
            recipe=job.recipe,
            logger=job.logger,
            device=job.device,
            note=lambda line: note(Event(job.cell, line)),
            wait=job.wait,
        )
    except Busy:
        return None
    except Exception as error:
        # Of any kind, as tasks and treatments may be a user's own: it ends this cell, the report
        # has the reason, and the others go on. `run` itself raises it.
        return f"{type(error).__name__}: {error}"
    return ""
