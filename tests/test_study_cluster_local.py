"""Folders of Ray's clusters of this machine: those of killed processes go, others stay."""

import os
import subprocess
import sys
import time
from pathlib import Path

from momos.study.execution.cluster import FOLDER, NEW, OWNER, sweep

HOLDS = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_only_our_folders_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    held, killed, new, old = (tmp_path / f"{FOLDER}{n}" for n in ("a", "b", "c", "d"))
    others = tmp_path / "momos-other"
    for folder in (held, killed, new, old, others):
        (folder / "session").mkdir(parents=True)
    (tmp_path / f"{FOLDER}link").symlink_to(others)
    (killed / OWNER).touch()
    os.utime(old, (0, time.time() - 2 * NEW))
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLDS, str(held / OWNER)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        sweep(tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {held.name, new.name, others.name, f"{FOLDER}link"}
        owner.kill()
    sweep(tmp_path)
    assert not held.exists()
    assert (others / "session").is_dir()
