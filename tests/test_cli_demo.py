"""The demo leaves runs, pictures and a table, also if it is stopped."""

from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from rich.console import Console
from study_runs import write_made_up

import momos
from momos.cli.demo import PICTURES, demonstrate, titled
from momos.study import runner
from momos.study.cell import Cell
from momos.study.recipes.questions import Demo
from momos.study.store import read_all

NAMES = ["dense", "MoMos s=2, c=5 %", "MoMos s=4, k=256", "learned s=2, k=64"]


@pytest.fixture(autouse=True)
def _few_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is tested with runs; here it would take most of the time."""
    monkeypatch.setattr(momos, "measure", partial(momos.measure, measures="signs"))


def shown(folder: Path, *, seeds: int = 1, processes: int = 1) -> str:
    console = Console(file=StringIO(), width=80)
    try:
        recipe = Demo(seeds=seeds, epochs=1)
        demonstrate(folder, recipe, console=console, processes=processes)
    finally:
        assert isinstance(console.file, StringIO)
        printed = console.file.getvalue()
        (folder.parent / "printed").write_text(printed)
    return printed


def test_the_demo_leaves_runs_and_pictures_and_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    printed = shown(folder, seeds=2)
    runs, broken = read_all([folder])
    assert not broken
    found = {(titled(run.cell), run.cell.seed): run for run in runs}
    assert found.keys() == {(name, seed) for name in NAMES for seed in (0, 1)}
    dense, pairs, fours, learned = (found[name, 0] for name in NAMES)
    assert dense.num_weights == learned.num_weights == 216_586
    bounds = [run.lengths["dense"] / run.lengths["bound"] for run in (pairs, fours)]
    assert bounds == pytest.approx([3.9507, 14.8746], abs=1e-4)
    assert all(run.metric > 0.5 for run in runs)
    for made in (pairs, fours, learned):
        size = (made.folder / made.file).stat().st_size
        assert made.factor == 4 * 216_586 / size
        assert size < made.lengths["entropy"] / 8 * 1.01 + 4096
        assert made.motifs_used
    for name in PICTURES:
        assert str(folder / name) in printed
        assert (folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert min(imread(folder / name).shape[:2]) > 700
    assert all(name in printed for name in NAMES)


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for processes in (1, 2):
        shown(tmp_path / str(processes), processes=processes)
    (ones, _), (twos, _) = (read_all([tmp_path / name]) for name in ("1", "2"))
    assert len(ones) == len(twos) == 4
    for one, two in zip(ones, twos, strict=True):
        assert (one.metric, one.lengths, one.history) == (
            two.metric,
            two.lengths,
            two.history,
        )
        assert one.weights.read_bytes() == two.weights.read_bytes()


def test_ctrl_c_leaves_finished_runs_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(cell: Cell, root: Path, **options: Any) -> None:
        if titled(cell) == NAMES[2]:
            raise KeyboardInterrupt
        write_made_up(root, cell, options["recipe"])

    monkeypatch.setattr(runner, "run", interrupted)
    folder = tmp_path / "demo"
    with pytest.raises(KeyboardInterrupt):
        shown(folder)
    assert sorted(titled(run.cell) for run in read_all([folder])[0]) == sorted(NAMES[:2])
    printed = (tmp_path / "printed").read_text()
    assert "Stopped. 2 of 4 runs had finished" in printed
    assert str(folder) in printed


def test_results_of_an_earlier_demo_are_replaced_and_other_files_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", nothing)
    folder = tmp_path / "demo"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "cell.json").write_text("old")
    (folder / "mine").mkdir()
    (folder / "mosaic.png").write_text("old")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        shown(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["mine", "notes.txt"]
    printed = (tmp_path / "printed").read_text()
    assert "Replacing the results of an earlier demo" in printed
    assert "Stopped. 0 of 4 runs had finished; nothing was finished" in printed


def test_a_run_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(runner, "run", fail)
    with pytest.raises(ValueError, match=r"every run must finish, but .* no space left"):
        shown(tmp_path / "demo")
