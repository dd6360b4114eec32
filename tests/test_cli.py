import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import invoke

import momos
from momos.study.recipes.questions import Demo
from momos.study.store import RESULT

START = "from momos.cli import main; main()"


def test_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"momos {momos.__version__}\n")


def test_help_names_the_commands() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert "demo" in result.output
    assert "--version" in result.output


def test_the_console_script_starts() -> None:
    command = [sys.executable, "-c", START, "demo", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "momos demo" in result.stdout
    assert "--seeds" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("option", ["--seeds", "--epochs"])
def test_counts_below_1_are_refused(option: str) -> None:
    result = invoke("demo", option, "0")
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = invoke("demo", "--output", str(tmp_path / "file"))
    assert result.exit_code == 2
    assert "is a file" in result.output


@pytest.mark.parametrize("missing", ["lightning", "sklearn", "matplotlib"])
def test_a_missing_extra_is_named(missing: str) -> None:
    """Also shows that the command itself starts without the extra."""
    script = f"import sys; sys.modules[{missing!r}] = None; {START}"
    result = subprocess.run(
        [sys.executable, "-c", script, "demo"], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        f'momos demo needs {missing}: pip install "mosaic-of-motifs[study]"\n'
    )


def test_options_reach_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr(
        *(sys.modules["momos.cli.demo"], "demonstrate"),
        lambda folder, recipe, **options: calls.append((folder, recipe)),
    )
    assert invoke("demo").exit_code == 0
    assert (
        invoke("demo", "--output", str(tmp_path), "--seeds", "2", "--epochs", "5").exit_code
        == 0
    )
    assert calls == [
        (Path("runs/demo"), Demo()),
        (tmp_path, Demo(seeds=2, epochs=5)),
    ]


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, recipe: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["momos.cli.demo"], "demonstrate", interrupted)
    assert invoke("demo").exit_code == 130


def finished(folder: Path) -> list[Path]:
    return list(folder.glob(f"*/{RESULT}"))


def test_an_interrupted_demo_leaves_finished_runs(tmp_path: Path) -> None:
    """A real signal, while Lightning trains; a shell's background job would ignore SIGINT."""
    script = f"import signal; signal.signal(2, signal.default_int_handler); {START}"
    command = [
        sys.executable,
        "-c",
        script,
        "demo",
        "--output",
        str(tmp_path),
        *("--epochs", "1", "--processes", "1"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not finished(tmp_path):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate()
    assert process.returncode == 130
    count = len(finished(tmp_path))
    assert 1 <= count < 12
    assert f"Stopped. {count} of 12 runs had finished" in printed
