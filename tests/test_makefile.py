"""What a first-time user sees while `make` installs: a line before every step, and no more in a log."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = """#!/bin/sh
case "$*" in
"-m venv .venv")
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    printf '#!/bin/sh\\necho the demo runs\\n' > .venv/bin/momos
    chmod +x .venv/bin/momos ;;
"-m pip install"*) if test -t 1; then echo "pip at a terminal: $*"; else echo "pip: $*"; fi ;;
"-m pytest"*) echo "tests run" ;;
*) echo "unexpected: $*"; exit 1 ;;
esac
"""
STEPS = [
    "making .venv, which everything goes into (make clean removes it)",
    "installing torch, once: some 200 MB to download for a CPU build, more for CUDA",
    'installing momos and all that "make demo" needs; its engines are compiled',
]

if not shutil.which("make"):
    pytest.skip("needs make", allow_module_level=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a Python that only notes what it is asked to do, and no browser."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder)
    (tmp_path / "bin").mkdir()
    for name, text in (
        ("python3", PYTHON),
        ("id", "#!/bin/sh\necho 0\n"),
        ("apt-get", '#!/bin/sh\necho "apt-get $*"\n[ ! -e offline ]\n'),
    ):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("sh", "env", "mkdir", "cp", "chmod", "touch", "printf", "make", "test"):
        found = shutil.which(name)
        assert found
        (tmp_path / "bin" / name).symlink_to(found)
    return folder


def make(clone: Path, *targets: str, terminal: bool = False) -> list[str]:
    """Lines that `make` prints, to a terminal or to a file."""
    command = ["make", "--no-print-directory", *targets]
    environment = {"PATH": str(clone.parent / "bin"), "HOME": os.environ["HOME"]}
    if not terminal:
        done = subprocess.run(
            command, cwd=clone, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, cwd=clone, env=environment, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        printed = b""
        while chunk := _read(ours):
            printed += chunk
    os.close(ours)
    assert process.returncode == 0, printed
    return printed.decode().splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's word for the end of a terminal
        return b""


def test_every_step_is_announced_before_it_begins(clone: Path) -> None:
    pip = "pip: -m pip install --quiet --disable-pip-version-check -c constraints.txt"
    told = [*STEPS[:2], f"{pip} torch", STEPS[2], f"{pip} -e .[study]"]
    assert make(clone, "demo") == [*told, ".venv/bin/momos demo", "the demo runs"]
    assert make(clone, "demo") == [".venv/bin/momos demo", "the demo runs"]


def test_a_terminal_also_shows_the_progress_of_pip(clone: Path) -> None:
    lines = make(clone, "demo", terminal=True)
    assert [line for line in lines if line in STEPS] == STEPS
    assert sum(line.startswith("pip at a terminal: ") for line in lines) == 2
    assert not any("--quiet" in line for line in lines)


def test_the_browser_is_announced_and_its_absence_told(clone: Path) -> None:
    begins = "installing Chromium with apt-get, once, for tests of the report"
    assert make(clone, "browser") == [begins]
    assert any("install --yes" in line for line in make(clone, "browser", terminal=True))
    (clone / "offline").touch()
    assert make(clone, "browser") == [
        begins,
        "no chromium here, and none can be installed: tests in a browser will be skipped",
    ]
    for name in ("chromium", "chromedriver"):
        (clone.parent / "bin" / name).symlink_to("/bin/true")
    (clone / ".venv").mkdir()
    assert "installing" not in " ".join(make(clone, "browser"))


def test_tests_say_what_they_install(clone: Path) -> None:
    assert 'installing momos and all that "make test" needs; its engines are compiled' in (
        make(clone, "test")
    )
