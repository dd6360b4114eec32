from io import StringIO
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

import momos.study.demo
from momos.study.demo import FILES, NETWORK, demo
from momos.study.recipes.demo import DEMO, Recipe
from momos.study.results import read
from momos.study.runs import Run

RECIPE = Recipe(epochs=1)
NAMES = [treatment.name for treatment in DEMO]


def run(folder: Path, *, seeds: int = 1, processes: int = 1) -> str:
    console = Console(file=StringIO(), width=80)
    try:
        demo(folder, seeds=seeds, recipe=RECIPE, console=console, processes=processes)
    finally:
        assert isinstance(console.file, StringIO)
        printed = console.file.getvalue()
        (folder.parent / "printed").write_text(printed)
    return printed


def test_the_demo_leaves_numbers_and_pictures_and_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    printed = run(folder, seeds=2)
    results = read(folder / "results.jsonl")
    assert [(r["treatment"], r["seed"]) for r in results] == [
        (name, seed) for seed in (0, 1) for name in NAMES
    ]
    assert len(read(folder / "history.jsonl")) == 8
    dense, pairs, fours, learned = results[:4]
    assert (dense["num_weights"], dense["factor"]) == (216_586, 1)
    assert pairs["factor"] == pytest.approx(3.9507, abs=1e-4)
    assert fours["factor"] == pytest.approx(14.8746, abs=1e-4)
    assert pairs["entropy"] < pairs["bound"]
    assert learned["num_weights"] == 216_586
    assert learned["learning"] == {"every": 2, "dense": 0.5}
    assert all(result["accuracy"] > 0.5 for result in results)
    saved = {path.name for path in folder.glob("*.momos")}
    assert len(saved) == 6
    assert {path.name for path in folder.iterdir()} == {*FILES, *saved} - {
        NETWORK.format("*", "*")
    }
    for name in FILES:
        assert str(folder / name) in printed
    assert dense["file_bytes"] is dense["file_factor"] is None
    for result in (pairs, fours, learned):
        assert result["file_factor"] == 4 * 216_586 / result["file_bytes"]
        assert result["file_bytes"] < result["entropy"] / 8 * 1.01 + 4096
        assert result["file_bytes"] in {
            path.stat().st_size for path in folder.glob("*.momos")
        }
    for name in ("accuracy_against_length.png", "mosaic.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert min(imread(folder / name).shape[:2]) > 700
    assert all(name in printed for name in NAMES)


def test_results_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    def kept(folder: Path) -> list[dict]:
        return [{**line, "seconds": 0} for line in read(folder / "results.jsonl")]

    for processes in (1, 2):
        run(tmp_path / str(processes), processes=processes)
    one, two = tmp_path / "1", tmp_path / "2"
    assert kept(one) == kept(two)
    files = sorted(path.name for path in one.glob("*.momos"))
    assert [(one / f).read_bytes() for f in files] == [
        (two / f).read_bytes() for f in files
    ]


def test_ctrl_c_leaves_finished_runs_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = momos.study.demo.train

    def interrupted(recipe: Recipe, treatment, *, seed: int, data, on_epoch) -> Run:
        def ctrl_c(epoch) -> None:
            raise KeyboardInterrupt

        last = treatment.name == NAMES[2]
        return train(
            recipe, treatment, seed=seed, data=data, on_epoch=ctrl_c if last else on_epoch
        )

    monkeypatch.setattr(momos.study.demo, "train", interrupted)
    folder = tmp_path / "demo"
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert [r["treatment"] for r in read(folder / "results.jsonl")] == NAMES[:2]
    assert [r["treatment"] for r in read(folder / "history.jsonl")] == NAMES[:2]
    printed = (tmp_path / "printed").read_text()
    assert "Stopped. 2 of 4 runs had finished" in printed
    assert str(folder / "results.jsonl") in printed


def test_results_of_an_earlier_demo_are_replaced_and_other_files_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*arguments, **options) -> Run:
        raise KeyboardInterrupt

    monkeypatch.setattr(momos.study.demo, "train", nothing)
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "results.jsonl").write_text("old")
    (folder / "mosaic.png").write_text("old")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    printed = (tmp_path / "printed").read_text()
    assert "Replacing the results of an earlier demo" in printed
    assert "Stopped. 0 of 4 runs had finished; nothing was written" in printed
