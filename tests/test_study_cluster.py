"""Cells on a Ray cluster: the same bits, each once, whoever is killed; faults are told."""

import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import ray
from commands import invoke

from momos.study import runner
from momos.study.cell import Cell, ordered
from momos.study.execution.cluster import Cluster, connected
from momos.study.execution.leases import LEASES
from momos.study.runner import Event, Report, run_all
from momos.study.store import finished, read

psutil = import_module("psutil")  # Ray's own, there only after Ray

EPOCHS = 20  # of the cell whose process is killed after the first
DENSE = Cell(task="digits", network="mlp:8", epochs=1, controls=0)
PRUNED = replace(DENSE, treatment="prune", start=DENSE, teacher=DENSE)
KILLED = replace(DENSE, seed=1, epochs=EPOCHS)
WRONG = replace(DENSE, seed=2, settings={"bits": 3})
TRIED = {"name": "tried", "settings": {}}
CELLS = [KILLED, PRUNED, WRONG]
SECONDS = 120  # until a test that waits for a process gives up


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers, started in another folder than they work in."""
    token = Path.home() / ".ray" / "auth_token"
    had_token = token.exists()
    before = {name: os.environ.get(name) for name in os.environ if name.startswith("RAY_")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # which is not for a cluster of ours
        with connected("local", processes=2, devices=1) as found:
            yield found
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert not ray.is_initialized()
    assert token.exists() == had_token
    assert before == {name: os.environ.get(name) for name in before}


def kill(cell: Cell, folder: Path, killed: list[int]) -> None:
    """Kills the process that a cell runs in, as soon as it has a checkpoint."""
    until = time.monotonic() + SECONDS
    while not (found := running(cell)) and time.monotonic() < until:
        time.sleep(0.1)
    while not (folder / "last.ckpt").exists() and time.monotonic() < until:
        time.sleep(0.01)
    for process in found:
        process.kill()
        killed.append(process.pid)


def running(cell: Cell) -> list[Any]:
    """The processes that Ray shows as those of a cell."""
    processes = list(psutil.process_iter(["cmdline"]))
    return [p for p in processes if f"ray::{cell.folder}" in (p.info["cmdline"] or [])]


@dataclass(frozen=True)
class Outcome:
    root: Path
    report: Report
    told: list[Event]
    killed: list[int]
    finished: bool  # when its process was killed


@pytest.fixture(scope="module")
def outcome(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Of cells on the cluster, one of which cannot be run, and one loses its process."""
    root, killed, told = tmp_path_factory.mktemp("cluster"), [], []
    folder = root / KILLED.folder
    killer = Thread(target=kill, args=(KILLED, folder, killed))
    killer.start()
    report = run_all(CELLS, root, recipe=TRIED, cluster=cluster, tell=told.append)
    killer.join()
    return Outcome(root, report, told, killed, finished(folder))


def test_every_cell_ends_once_and_is_told_once(outcome: Outcome) -> None:
    assert len(outcome.killed) == 1
    ended = Counter(event.cell.key for event in outcome.told if event.line is None)
    assert ended == Counter(cell.key for cell in ordered(CELLS))
    ran = sorted(cell.key for cell in outcome.report.ran)
    assert ran == sorted(cell.key for cell in (KILLED, DENSE, PRUNED))
    assert not [path for path in outcome.root.iterdir() if path.name.startswith(".shared")]


def test_a_cell_that_fails_is_told_and_the_others_go_on(outcome: Outcome) -> None:
    assert list(outcome.report.failed) == [WRONG.folder]
    assert "settings of 'dense' must be its own" in outcome.report.failed[WRONG.folder]
    failures = [event.cell for event in outcome.told if event.failure]
    assert failures == [WRONG]


def test_a_cell_whose_process_was_killed_went_on_from_its_checkpoint(
    outcome: Outcome,
) -> None:
    lines = [e.line["epoch"] for e in outcome.told if e.cell == KILLED and e.line]
    assert sorted(set(lines)) == list(range(EPOCHS + 1))
    assert lines.count(0) == 1
    assert lines[-1] == EPOCHS


def test_bits_are_those_of_runs_in_this_process(outcome: Outcome, tmp_path: Path) -> None:
    report = run_all([KILLED, PRUNED], tmp_path)
    assert len(report.ran) == 3
    for cell in report.ran:
        here, there = (read(root / cell.folder) for root in (tmp_path, outcome.root))
        assert here.weights.read_bytes() == there.weights.read_bytes()
        assert here.history == there.history
        assert here.metric == there.metric
        assert there.recipe == TRIED


def test_a_local_cluster_listens_to_this_machine_alone_and_asks_for_a_token(
    cluster: Cluster,
) -> None:
    own = psutil.Process()
    ports = {
        place.laddr: process.name()
        for process in (own, *own.children(recursive=True))
        for place in process.net_connections("inet")
        if place.status == psutil.CONN_LISTEN
    }
    assert len(ports) > 3
    assert {port.ip.removeprefix("::ffff:") for port in ports} == {"127.0.0.1"}
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600
    (agent,) = (port.port for port, name in ports.items() if "RuntimeEnvAgent" in name)
    for header, code in (({}, 401), ({"Authorization": f"Bearer {32 * '0'}"}, 403)):
        asked = Request(f"http://127.0.0.1:{agent}/get_or_create_runtime_env", b"", header)
        with pytest.raises(HTTPError, match=str(code)) as refused:
            urlopen(asked)
        refused.value.close()


def test_a_folder_that_machines_do_not_share_is_refused_by_its_name(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runner, "shared", lambda root: nullcontext(root / "elsewhere" / LEASES / "mark")
    )
    message = f"{tmp_path / 'elsewhere'} must be a folder that all machines share"
    with pytest.raises(FileNotFoundError, match=message):
        run_all([DENSE], tmp_path, cluster=cluster)
    assert not (tmp_path / DENSE.folder).exists()


def test_a_sweep_runs_on_a_cluster_from_the_shell(cluster: Cluster, tmp_path: Path) -> None:
    grid, runs = tmp_path / "grid.toml", tmp_path / "runs"
    grid.write_text(
        '[cell]\ntask = "digits"\nnetwork = "mlp:8"\nepochs = 1\ncontrols = 0\n'
    )
    command = ["study", "sweep", str(grid), "--runs", str(runs), "--ray", "local"]
    first = invoke(*command)
    assert first.exit_code == 0, first.output
    assert "1 runs finished now, 0 failed" in first.output
    again = invoke(*command)
    assert "1 runs, 1 finished before" in again.output
    assert ray.is_initialized()


def test_a_job_that_dies_too_often_is_given_up_and_told_once(cluster: Cluster) -> None:
    def work(job: int, note: Any) -> str:
        os.kill(os.getpid(), signal.SIGKILL) if job else note(job)
        return "done"

    notes: list[int] = []
    results = cluster.each(
        work, [0, 1], attempts=1, died=lambda job: f"job {job} died", note=notes.append
    )
    assert sorted(results) == [(0, "done"), (1, "job 1 died")]
    assert notes == [0]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_what_is_running(cluster: Cluster) -> None:
    def work(job: int, note: Any) -> None:
        note(os.getpid())
        time.sleep(10 * SECONDS)

    processes: list[int] = []

    def interrupt(process: int) -> None:
        processes.append(process)
        os.kill(os.getpid(), signal.SIGINT)

    results = cluster.each(
        work, [0, 1, 2], attempts=2, died=lambda job: None, note=interrupt
    )
    with pytest.raises(KeyboardInterrupt):
        list(results)
    until = time.monotonic() + SECONDS
    while psutil.pid_exists(processes[0]):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_ray_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["study", "run", "simplify", "--task", "digits", "--runs", str(tmp_path)]
    found = invoke(*command, "--ray", "local")
    assert found.exit_code == 1
    assert 'needs ray: pip install "mosaic-of-motifs[ray]"' in found.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["nowhere", "nowhere:port", "ray://nowhere:1", ":1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    message = f"must be HOST:PORT, auto or local, got '{address}'"
    with pytest.raises(ValueError, match=message), connected(address):
        pass


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{free.getsockname()[1]}"
        message = f"a Ray cluster must answer at {address}, but: "
        with pytest.raises(ConnectionError, match=message), connected(address):
            pass


def test_tasks_share_a_gpu(cluster: Cluster) -> None:
    def shares(job: int, note: Any) -> list[Any]:  # here, so that it travels whole
        import os

        import ray

        own = ray.get_runtime_context().get_assigned_resources().get("GPU", 0)
        return [own, os.environ.get("CUDA_VISIBLE_DEVICES")]

    with connected("local", processes=9, gpus=0.25) as found:
        assert found == Cluster(4, 0.25)
        results = found.each(shares, [0, 1], attempts=1, died=lambda job: [])
        assert sorted(result for _, result in results) == [[0.25, "0"]] * 2


def test_a_run_that_fits_on_no_machine_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    message = (
        "a machine of the Ray cluster must have 64 CPUs for a run on so many devices, but "
    )
    with pytest.raises(ValueError, match=f"{message}the largest has 2"):
        run_all([replace(DENSE, devices=64)], tmp_path, cluster=cluster)
    assert not (tmp_path / DENSE.folder).exists()


def test_a_cluster_without_a_gpu_is_refused(cluster: Cluster, monkeypatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    message = "the Ray cluster at local must have a GPU for runs on cuda, got none"
    with pytest.raises(ConnectionError, match=message), connected("local", gpus=1.0):
        pass
