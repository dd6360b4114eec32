"""A shared folder: machines that do not see it are refused, and a cell is one process's alone."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from momos.study.execution import locks
from momos.study.execution.locks import LOCKS, Busy, alone, check_shared, shared

KEY = "9bd7cd213a62"
HOLDS = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock until it is killed."""
    command = [sys.executable, "-c", HOLDS, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def is_free(path: Path) -> bool:
    """Whether another process could lock a file at once."""
    tried = HOLDS.replace("LOCK_EX", "LOCK_EX | fcntl.LOCK_NB")
    command = [sys.executable, "-c", tried, str(path)]
    found = subprocess.run(command, input="", capture_output=True, text=True)
    assert found.returncode == 0 or "BlockingIOError" in found.stderr, found.stderr
    return found.returncode == 0


def lock_of(root: Path, key: str) -> Path:
    (root / LOCKS).mkdir(exist_ok=True)
    return root / LOCKS / f"{key}.lock"


def test_a_cell_is_one_processs_alone_and_others_are_free(tmp_path: Path) -> None:
    with alone(tmp_path, KEY):
        assert not is_free(lock_of(tmp_path, KEY))
        assert is_free(lock_of(tmp_path, "9bd7cd213a63"))
    assert is_free(lock_of(tmp_path, KEY))


def test_who_does_not_wait_is_told_that_another_process_is_at_work(tmp_path: Path) -> None:
    message = f"another process is at work on the cell {KEY} in {tmp_path}"
    with (
        held(lock_of(tmp_path, KEY)),
        pytest.raises(Busy, match=re.escape(message)),
        alone(tmp_path, KEY, wait=False),
    ):
        pass


def test_who_is_killed_leaves_the_cell_to_who_waits(tmp_path: Path) -> None:
    with held(lock_of(tmp_path, KEY)) as other:
        other.kill()
        with alone(tmp_path, KEY):
            assert not is_free(lock_of(tmp_path, KEY))


def test_without_locks_a_runner_goes_on_after_a_warning(
    tmp_path: Path, monkeypatch
) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    message = f"{tmp_path} should be on a file system with locks, but: .*No locks available"
    with pytest.warns(UserWarning, match=message), alone(tmp_path, KEY):
        done = True
    assert done


def test_a_machine_that_sees_folder_locks_and_needed_runs_is_accepted(
    tmp_path: Path,
) -> None:
    (tmp_path / "needed").mkdir()
    (tmp_path / "needed" / "result.json").touch()
    with held(tmp_path / "mark"):
        needed = tmp_path / "needed" / "result.json"
        check_shared(tmp_path / "mark", [needed])
        with pytest.raises(
            FileNotFoundError, match=re.escape(f"{tmp_path / 'other'} must")
        ):
            check_shared(tmp_path / "mark", [needed, tmp_path / "other" / "result.json"])


def test_a_machine_that_sees_another_folder_is_refused(tmp_path: Path) -> None:
    message = f"{tmp_path} must be a folder that all machines share, but .* does not see"
    with pytest.raises(FileNotFoundError, match=message):
        check_shared(tmp_path / "mark", [])


def test_a_machine_that_sees_no_locks_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    message = f"locks in {tmp_path} must be seen by all machines"
    with pytest.raises(OSError, match=message):
        check_shared(tmp_path / "mark", [])


def test_the_mark_is_locked_and_goes_with_the_block(tmp_path: Path) -> None:
    with shared(tmp_path / "runs") as mark:
        assert mark.parent == tmp_path / "runs"
        assert not is_free(mark)
    assert not list((tmp_path / "runs").iterdir())


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    message = f"{tmp_path} must be on a file system with locks, but: "
    with pytest.raises(OSError, match=message), shared(tmp_path):
        pass
