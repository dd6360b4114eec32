"""The accounts of a sweep whose machine was killed; and, slowly, such a sweep."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import two_nodes
from study_runs import write_made_up
from two_nodes import account

from momos.study.cell import Cell, ordered
from momos.study.runner import Event, Report
from momos.study.store import NOBODY

DENSE = Cell(task="digits")
TREATED = replace(DENSE, treatment="sampled", start=DENSE)


def swept(runs: Path) -> tuple[Report, list[Event]]:
    """A sweep in which each of the cells ends once."""
    cells = ordered([TREATED])
    for cell in cells:
        write_made_up(runs, cell, NOBODY)
    (runs / ".running").mkdir()
    events = [Event(cell, {"epoch": 1}) for cell in cells]
    return Report(ran=cells), [*events, *(Event(cell) for cell in cells)]


def test_a_sweep_whose_cells_end_once_has_no_fault(tmp_path: Path) -> None:
    report, told = swept(tmp_path)
    assert account([TREATED], tmp_path, report, told) == []


def test_what_ends_twice_or_never_is_found(tmp_path: Path) -> None:
    report, told = swept(tmp_path)
    report.ran.append(DENSE)
    found = account([TREATED, replace(DENSE, seed=1)], tmp_path, report, [*told, told[-1]])
    one, two, three = (c.folder for c in (DENSE, TREATED, replace(DENSE, seed=1)))
    assert found == [
        f"the end of {one} must be reported once, got 2 times",
        f"the end of {two} must be told once, got 2 times",
        f"the end of {three} must be told once, got 0 times",
        f"the end of {three} must be reported once, got 0 times",
        f"{three} must be whole, got nothing",
    ]


@pytest.mark.parametrize(
    "name", ["result.json.0123.part", "last.ckpt", "best.ckpt.part", "failure.txt"]
)
def test_what_is_half_written_is_found(name: str, tmp_path: Path) -> None:
    report, told = swept(tmp_path)
    (tmp_path / DENSE.folder / name).touch()
    (found,) = account([TREATED], tmp_path, report, told)
    assert found.startswith(f"{DENSE.folder} must be whole, got ")
    assert name in found


def test_failures_and_strange_folders_are_found(tmp_path: Path) -> None:
    report, told = swept(tmp_path)
    report.failed["digits-x"] = "it must fail"
    (tmp_path / "other").mkdir()
    assert account([TREATED], tmp_path, report, told) == [
        "digits-x failed: it must fail",
        "other is in the folder of runs, but is no cell's",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="machines are told apart by /proc")
def test_processes_are_those_of_this_run_and_machine(monkeypatch: Any) -> None:
    monkeypatch.setenv(two_nodes.RUN, "0123")
    code = "print(flush=True); import sys; sys.stdin.read()"
    about: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {two_nodes.NODE: two_nodes.mark("other")}
    command = [sys.executable, "-S", "-c", code]
    with subprocess.Popen(command, env=environment, **about) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert list(two_nodes.processes("head")) == []
        assert list(two_nodes.processes("other")) == [process.pid]
        two_nodes.kill("other")
        assert process.wait(60) == -9


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="machines are told apart by /proc")
def test_every_cell_of_a_sweep_ends_once_though_a_machine_is_killed(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray")
    command = [sys.executable, two_nodes.__file__, "--runs", str(tmp_path / "runs")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "every cell ended once" in found.stdout
    assert "lost its machine, finished" in found.stdout
