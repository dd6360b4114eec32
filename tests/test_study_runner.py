"""Cells in processes: each once, what fails is told, what dies is tried again."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from test_study_leases import HOLDS, process, said
from test_study_store import RESULT

from momos.study import runner
from momos.study.cell import Cell
from momos.study.execution import processes
from momos.study.execution.cluster import Cluster
from momos.study.runner import ATTEMPTS, Event, Report, run_all
from momos.study.store import NOBODY, Asked, begin, finished, read, write_json, write_lines
from momos.study.training import run as running
from momos.study.training.run import Job

MINE: Asked = {"name": "mine", "settings": {}}
DENSE = Cell(task="digits", network="mlp:8", epochs=1)
PRUNED = replace(DENSE, treatment="prune", start=DENSE, teacher=DENSE)
OTHERS = [replace(DENSE, seed=seed) for seed in (1, 2, 3)]
Run = Callable[..., None]


def recorded(calls: list[str], failing: set[str] = frozenset()) -> Run:  # type: ignore[assignment]
    """A run that only writes its folder, and what it was called with."""

    def run(
        cell: Cell, root: Path, *, recipe: str, note: Callable[[Any], None], **others: Any
    ) -> None:
        calls.append(cell.folder)
        folder = root / cell.folder
        assert all(finished(root / other.folder) for other in cell.needs)
        begin(folder, cell, recipe=recipe, environment={})
        note({"epoch": 1, "metric": 0.5})
        if cell.folder in failing:
            (folder / "failure.txt").write_text("ValueError: it must fail\n")
            raise ValueError("it must fail")
        write_lines(folder / "history.jsonl", [])
        write_json(folder / "result.json", {})

    return run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(runner, "run", recorded(found))
    return found


def test_what_is_needed_is_run_first_and_everything_once(
    calls: list[str], tmp_path: Path
) -> None:
    told: list[Event] = []
    report = run_all([PRUNED, PRUNED, *OTHERS], tmp_path, recipe=MINE, tell=told.append)
    assert calls[-1] == PRUNED.folder
    assert sorted(calls) == sorted(c.folder for c in (DENSE, PRUNED, *OTHERS))
    assert len(report.ran) == 5
    assert not report.failed
    assert sum(event.line is None for event in told) == 5
    again = run_all([PRUNED, *OTHERS], tmp_path)
    assert len(calls) == 5
    assert not again.ran


def test_a_failure_is_told_and_what_needs_it_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(runner, "run", recorded(calls, {DENSE.folder}))
    report = run_all([PRUNED, OTHERS[0]], tmp_path)
    assert report.failed == {
        DENSE.folder: "ValueError: it must fail",
        PRUNED.folder: f"it needs {DENSE.folder}, which failed",
    }
    assert [cell.seed for cell in report.ran] == [1]
    monkeypatch.setattr(runner, "run", recorded(calls))
    again = run_all([PRUNED], tmp_path)
    assert "in an earlier run; --retry runs it again" in again.failed[DENSE.folder]
    assert len(calls) == 2
    assert len(run_all([PRUNED], tmp_path, retry=True).ran) == 2


def test_cells_of_a_process_that_died_are_tried_again_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[str]] = []

    def each(work: Any, jobs: Sequence[Any], **options: Any) -> Iterator[str]:
        """The first job is done, the second kills its process."""
        tried.append([job.cell.folder for job in jobs])
        for job in jobs:
            begin(tmp_path / job.cell.folder, job.cell, recipe=NOBODY, environment={})
            if job.cell == OTHERS[1]:
                raise BrokenProcessPool
            write_json(tmp_path / job.cell.folder / "result.json", {})
            yield ""

    monkeypatch.setattr(processes, "each", each)
    report = run_all(OTHERS, tmp_path)
    one, two, three = (cell.folder for cell in OTHERS)
    assert tried == [[one, two, three], [two, three], [three]]
    assert [cell.folder for cell in report.ran] == [one, three]
    assert f"died {ATTEMPTS} times" in report.failed[two]


def test_a_cell_that_a_cluster_gives_up_has_failed_unless_it_had_finished(
    tmp_path: Path,
) -> None:
    class Lost(Cluster):
        def each(self, work: Any, jobs: Any, *, attempts: int, died: Any, **others: Any):
            """The first job had finished when its last process died."""
            assert attempts == ATTEMPTS
            begin(
                jobs[0].root / jobs[0].cell.folder,
                jobs[0].cell,
                recipe=NOBODY,
                environment={},
            )
            write_json(jobs[0].root / jobs[0].cell.folder / "result.json", {})
            yield from ((job, died(job)) for job in jobs)

    told: list[Event] = []
    report = run_all(OTHERS[:2], tmp_path, cluster=Lost(2), tell=told.append)
    one, two = (cell.folder for cell in OTHERS[:2])
    assert [cell.folder for cell in report.ran] == [one]
    assert list(report.failed) == [two]
    assert f"died {ATTEMPTS} times" in (tmp_path / two / "failure.txt").read_text()
    assert [event.failure for event in told] == ["", report.failed[two]]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_everything(calls: list[str], tmp_path: Path) -> None:
    def tell(event: Event) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_all(OTHERS, tmp_path, tell=tell)
    assert len(calls) == 1


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    cells = [PRUNED, *OTHERS]
    for count in (1, 2):
        report = run_all(cells, tmp_path / str(count), processes=count)
        assert len(report.ran) == 5
    for cell in report.ran:
        one, two = (read(tmp_path / n / cell.folder) for n in ("1", "2"))
        assert one.metric == two.metric
        assert one.weights.read_bytes() == two.weights.read_bytes()


@contextmanager
def at_work_elsewhere(cell: Cell, root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is at work on a cell."""
    with process(root, HOLDS, cell.key) as other:
        assert said(other) == "held\n"
        yield other


def finishing(calls: list[str]) -> type:
    """In place of training: a finished run."""

    class Run:
        def __init__(self, job: Job, *others: Any) -> None:
            self.folder = job.root / job.cell.folder

        def to_result(self) -> None:
            calls.append(self.folder.name)
            time.sleep(0.02)
            write_lines(self.folder / "history.jsonl", [])
            write_json(self.folder / "result.json", RESULT)

    return Run


def test_two_runners_in_one_folder_run_each_cell_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    reports: list[Report] = []
    monkeypatch.setattr(running, "_Run", finishing(calls))
    runners = [
        Thread(target=lambda: reports.append(run_all([PRUNED, *OTHERS], tmp_path)))
        for _ in range(3)
    ]
    for each in runners:
        each.start()
    for each in runners:
        each.join()
    assert sorted(calls) == sorted(c.folder for c in (DENSE, PRUNED, *OTHERS))
    assert [report.failed for report in reports] == [{}, {}, {}]


def test_a_cell_that_another_runner_loses_is_run_after_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(running, "_Run", finishing(calls))
    with at_work_elsewhere(OTHERS[0], tmp_path) as other:

        def tell(event: Event) -> None:
            if event.cell == OTHERS[2]:
                other.kill()

        report = run_all(OTHERS, tmp_path, tell=tell)
    assert calls == [cell.folder for cell in (*OTHERS[1:], OTHERS[0])]
    assert len(report.ran) == 3


def test_a_cell_that_another_runner_sees_fail_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(running, "_Run", finishing(calls))
    with at_work_elsewhere(OTHERS[0], tmp_path) as other:

        def tell(event: Event) -> None:
            if event.cell == OTHERS[1]:
                (tmp_path / OTHERS[0].folder).mkdir()
                (tmp_path / OTHERS[0].folder / "failure.txt").write_text("ValueError: no\n")
                other.kill()

        report = run_all(OTHERS[:2], tmp_path, tell=tell)
    assert calls == [OTHERS[1].folder]
    assert report.failed == {OTHERS[0].folder: "ValueError: no"}
