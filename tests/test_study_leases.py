"""A shared folder: a cell is one process's alone, whoever is killed or stopped, without locks."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from momos.study.execution import leases
from momos.study.execution.leases import LEASES, Busy, alone, check_shared, shared

KEY = "9bd7cd213a62"
# The module alone, without the package around it, which takes seconds to be imported.
BEGIN = f"""
import sys, time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
spec = spec_from_file_location("leases", {leases.__file__!r})
leases = module_from_spec(spec)
spec.loader.exec_module(leases)
root = Path(sys.argv[1])
"""
HOLDS = """
with leases.alone(root, sys.argv[2]) as lease:
    print("held", flush=True)
    for line in sys.stdin:
        try:
            lease.check()
            print("mine", flush=True)
        except leases.Busy as error:
            print(error, flush=True)
"""
# As on another machine, where the system does not tell who lives; and in no time.
ELSEWHERE = """
leases.machine = lambda: "another"
leases.RENEWED, leases.LOST, leases.EXPIRED = 0.05, 0.8, 1.6
"""


@contextmanager
def process(root: Path, code: str, key: str = KEY) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", BEGIN + code, str(root), key]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def said(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline()


def asked(started: subprocess.Popen[str]) -> str:
    """What an owner finds when it checks its lease."""
    assert started.stdin is not None
    started.stdin.write("\n")
    started.stdin.flush()
    return said(started)


def are_held(root: Path, *keys: str) -> list[bool]:
    found = []
    for key in keys:
        try:
            with alone(root, key, wait=False):
                found.append(False)
        except Busy:
            found.append(True)
    return found


def test_a_cell_is_one_processs_alone_and_others_are_free(tmp_path: Path) -> None:
    with alone(tmp_path, KEY) as lease:
        lease.check()
        assert are_held(tmp_path, KEY, "9bd7cd213a63") == [True, False]
    assert are_held(tmp_path, KEY) == [False]


def test_who_does_not_wait_is_told_that_another_process_is_at_work(tmp_path: Path) -> None:
    message = f"another process is at work on the cell {KEY} in {tmp_path}"
    with process(tmp_path, HOLDS) as owner:
        assert said(owner) == "held\n"
        with (
            pytest.raises(Busy, match=re.escape(message)),
            alone(tmp_path, KEY, wait=False),
        ):
            pass


def test_who_is_killed_leaves_the_cell_at_once_to_who_waits(tmp_path: Path) -> None:
    with process(tmp_path, HOLDS) as owner:
        assert said(owner) == "held\n"
        owner.kill()  # and it is not yet reaped
        begun = time.monotonic()
        with alone(tmp_path, KEY):
            assert are_held(tmp_path, KEY) == [True]
        assert time.monotonic() - begun < leases.EXPIRED / 2


def test_a_process_of_the_same_number_is_not_taken_for_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not leases.machine():
        pytest.skip("this system does not tell when processes began")
    with monkeypatch.context() as patch:
        patch.setattr(leases, "own_process", lambda: (os.getpid(), "before"))
        lease = leases.alone(tmp_path, KEY)
        lease.__enter__()
        assert are_held(tmp_path, KEY) == [False]
        lease.__exit__(None, None, None)


def test_an_owner_on_another_machine_is_replaced_only_when_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "machine", lambda: "mine")
    waited: list[float] = []

    def wait() -> None:
        with alone(tmp_path, KEY):
            waited.append(time.monotonic())

    with process(tmp_path, ELSEWHERE + HOLDS) as owner:
        assert said(owner) == "held\n"
        waiter = Thread(target=wait)
        waiter.start()
        time.sleep(2)  # longer than it takes to expire
        assert not waited
        assert asked(owner) == "mine\n"
        owner.kill()
        killed = time.monotonic()
        waiter.join(60)
    assert waited[0] - killed > 1


def test_an_owner_that_was_stopped_finds_that_it_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "machine", lambda: "mine")
    with process(tmp_path, ELSEWHERE + HOLDS) as owner:
        assert said(owner) == "held\n"
        owner.send_signal(signal.SIGSTOP)
        with alone(tmp_path, KEY) as lease:
            owner.send_signal(signal.SIGCONT)
            found = asked(owner)
            lease.check()
        assert found.startswith(f"another process has taken over the cell {KEY} in")
        assert "as this one was not at work for" in found
        assert asked(owner).startswith("another process has taken over")  # and stays so


def test_an_owner_that_was_stopped_and_not_replaced_goes_on_with_the_next_lease(
    tmp_path: Path,
) -> None:
    with process(tmp_path, ELSEWHERE + HOLDS) as owner:
        assert said(owner) == "held\n"
        owner.send_signal(signal.SIGSTOP)
        time.sleep(1)
        owner.send_signal(signal.SIGCONT)
        assert asked(owner) == "mine\n"
        names = sorted(path.name for path in (tmp_path / LEASES).iterdir())
        assert names == [f"{KEY}.1", f"{KEY}.2"]


def test_of_many_that_wait_one_at_a_time_is_at_work(tmp_path: Path) -> None:
    """Each counts in a file by reading and writing it, which loses counts if two do so at once."""
    counts = """
for _ in range(5):
    with leases.alone(root, sys.argv[2]):
        found = int((root / "count").read_text())
        time.sleep(0.003)
        (root / "count").write_text(str(found + 1))
print("done", flush=True)
"""
    (tmp_path / "count").write_text("0")
    code = "leases.POLL = 0.001\n" + counts
    with process(tmp_path, code) as one, process(tmp_path, code) as two:
        assert [said(one), said(two)] == ["done\n", "done\n"]
    assert (tmp_path / "count").read_text() == "10"


def test_an_owner_that_cannot_renew_its_lease_is_told_when_others_may_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone(tmp_path, KEY) as lease:
        shutil.rmtree(tmp_path / LEASES)
        lease.check()  # they may not yet
        monkeypatch.setattr(leases, "LOST", -1.0)
        with pytest.raises(FileNotFoundError, match=f"{LEASES}/{KEY}"):
            lease.check()


def test_a_machine_that_sees_folder_and_needed_runs_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "needed").mkdir()
    needed = tmp_path / "needed" / "result.json"
    needed.touch()
    with shared(tmp_path) as mark:
        check_shared(mark, [needed])
        message = re.escape(f"{tmp_path / 'other'} must hold a result, but ")
        with pytest.raises(FileNotFoundError, match=message):
            check_shared(mark, [needed, tmp_path / "other" / "result.json"])


def test_a_machine_that_sees_another_folder_is_refused(tmp_path: Path) -> None:
    message = f"{tmp_path} must be a folder that all machines share, but .* does not see"
    with pytest.raises(FileNotFoundError, match=message):
        check_shared(tmp_path / LEASES / "mark", [])


def test_marks_go_with_their_commands_and_those_of_killed_ones_with_the_next(
    tmp_path: Path,
) -> None:
    code = "with leases.shared(root):\n    print('held', flush=True)\n    time.sleep(600)"
    place = tmp_path / "runs" / LEASES
    with process(tmp_path / "runs", code) as other:
        assert said(other) == "held\n"
        with shared(tmp_path / "runs"):
            assert len(list(place.iterdir())) == 2
        assert len(list(place.iterdir())) == 1
        other.kill()
    with shared(tmp_path / "runs"):
        assert len(list(place.iterdir())) == 1
    assert not list(place.iterdir())
