"""`momos study` from the shell: what a stranger sees."""

from functools import partial
from pathlib import Path

import pytest
from commands import invoke

from momos.cli.study import duration
from momos.study.store import read_all

TINY = ["--task", "digits", "--seeds", "1", "--set", "epochs=1", "--processes", "1"]


call = partial(invoke, "study")


def test_recipes_are_listed_and_shown() -> None:
    listed = call("list")
    assert listed.exit_code == 0
    for name in (
        "simplify",
        "sizes",
        "ablations",
        "capacity",
        "usage",
        "plane",
        "grokking",
    ):
        assert name in listed.output
    shown = call("list", "simplify")
    assert "weight_decays" in shown.output
    assert "(0.0, 0.01)" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "simplfy"], "near it: simplify"),
        (["run", "simplify", "--set", "seed=3"], "near it: seeds"),
        (["run", "simplify", "--set", "seeds"], "--set must be KEY=VALUE, got 'seeds'"),
        (["run", "simplify", "--task", "digit"], "task must be among digits"),
        (
            ["run", "simplify", "--set", "patience=2"],
            "validation must be above 0 for patience=2",
        ),
        (["list", "nothing"], "a recipe must be among demo, simplify, "),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    runs = [] if arguments[0] == "list" else ["--runs", str(tmp_path)]
    result = call(*arguments, *runs)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_sweep_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[cell]\ntasks = 3\n")
    result = call("sweep", str(tmp_path / "bad.toml"), "--runs", str(tmp_path / "runs"))
    assert result.exit_code == 1
    assert "near it: task" in result.output


def test_runs_are_run_once_reported_and_compared(tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    settings = ["--set", "weight_decays=[0, 0.1]", "--set", "measure_every=0"]
    settings += ["--set", "validation=0.2", "--set", "patience=5"]
    first = call("run", "simplify", *TINY, *settings, *runs)
    assert first.exit_code == 0, first.output
    assert "2 runs, 0 finished before" in first.output
    assert "GiB of memory" in first.output
    assert "2 runs finished now, 0 failed" in first.output
    again = call("run", "simplify", *TINY, *settings, *runs)
    assert "2 runs, 2 finished before" in again.output
    assert "0 runs finished now, 0 failed" in again.output
    found, broken = read_all([tmp_path / "runs"])
    assert len(found) == 2
    assert not broken
    asked = found[0].recipe
    assert asked["name"] == "simplify"
    assert asked["settings"]["weight_decays"] == [0, 0.1]
    assert all(run.validation == run.history[-1]["validation"] for run in found)
    compared = call("compare", "digits weight_decay=0", "digits weight_decay=0.1", *runs)
    assert compared.exit_code == 0, compared.output
    assert "accuracy" in compared.output
    folder = tmp_path / "runs" / "broken"
    folder.mkdir()
    (folder / "cell.json").write_text("{}")
    left = call("compare", "digits weight_decay=0", "digits weight_decay=0.1", *runs)
    assert left.exit_code == 0
    assert left.output.count("left out: a run must be finished, but broken is not") == 1
    missing = call("compare", "learned", "dense", *runs)
    assert missing.exit_code == 1
    words = "digits dense weight_decay=0.1 validation=0.2 patience=5"
    assert words in " ".join(missing.output.split())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "3 seconds"), (89, "89 seconds"), (150, "2 minutes"), (9000, "2.5 hours")],
)
def test_times_are_told_as_coarsely_as_they_are_known(seconds: float, words: str) -> None:
    assert duration(seconds) == words
