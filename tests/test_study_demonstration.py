"""The demo's table and pictures, of runs that nobody ran."""

from dataclasses import replace
from io import StringIO
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from safetensors.torch import save_file
from study_runs import write_made_up

from momos.study import runner
from momos.study.analysis.metric import grouped
from momos.study.cell import Cell
from momos.study.demonstration import (
    ACCURACY,
    MOSAIC,
    PICTURES,
    cohorts_of,
    demo,
    draw,
    titled,
)
from momos.study.recipes.questions import Demo
from momos.study.report.listings import table_of_demo
from momos.study.report.table import terminal
from momos.study.store import NOBODY, WEIGHTS, Finished, read_all

CELLS = Demo(seeds=1).cells()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Finished]:
    """Three seeds of the demo, made up."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        run(folder, number, seed, 0.98 - 0.01 * seed)
        for seed in range(3)
        for number in range(len(CELLS))
    ]


def run(root: Path, number: int, seed: int, accuracy: float) -> Finished:
    cell = replace(CELLS[number], seed=seed)
    folder = root / cell.folder
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(256, 64, generator=generator)
    save_file({"1.weight": weights, "1.bias": torch.zeros(256)}, folder / WEIGHTS)
    dense = 32 * 16640
    lengths = {"dense": dense, "file": dense if not number else 8 * 13_520}
    if number:
        lengths |= {"bound": dense // 4**number, "entropy": dense / 4.5**number}
    history = [{"epoch": n, "metric": n * accuracy / 2} for n in range(3)]
    return Finished(
        folder=folder,
        cell=cell,
        recipe=NOBODY,
        metric_name="accuracy",
        metric=accuracy,
        higher_is_better=True,
        num_weights=16640,
        file="x.momos",
        lengths=lengths,
        measures=(),
        history=tuple(history),
        seconds=1.0,
        environment={},
        motifs_used=1500 + seed if number else None,
    )


def printed(runs: list[Finished]) -> list[list[str]]:
    """The cells of the table as an 80-column terminal shows them."""
    cohorts = cohorts_of(runs)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(terminal(table_of_demo(cohorts)))
    lines = capture.get().splitlines()
    return [line.split("  ") for line in lines]


def test_the_table_fits_80_columns_and_says_it_all(runs: list[Finished]) -> None:
    rows = [[cell.strip() for cell in row if cell.strip()] for row in printed(runs)]
    assert rows[0] == ["network of", "test", "bits/", "weight:", "factor:", "motifs"]
    assert rows[1] == [
        "16 640 weights",
        "accuracy, %",
        "bound",
        "entropy",
        "file",
        "bound",
        "file",
        "used",
    ]
    assert rows[2] == [
        "dense",
        "97.0 ± 1.0",
        "32.00",
        "32.00",
        "32.00",
        "1.00",
        "1.00",
        "–",
    ]
    assert rows[3] == [
        "MoMos s=2, c=5 %",
        "97.0 ± 1.0",
        "8.00",
        "7.11",
        "6.50",
        "4.00",
        "4.92",
        "1 501",
    ]
    assert len(rows) == 2 + len(CELLS)


def test_one_seed_has_no_deviation(runs: list[Finished]) -> None:
    assert "±" not in str(printed(runs[: len(CELLS)]))


def test_thousands_are_set_apart() -> None:
    assert [grouped(n) for n in (7, 1234.4, 5526346)] == ["7", "1 234", "5 526 346"]


@pytest.mark.parametrize("count", [12, 4, 1], ids=["all", "one seed", "one run"])
def test_pictures_are_drawn(count: int, runs: list[Finished], tmp_path: Path) -> None:
    runs = runs[:count]
    draw(runs, tmp_path)
    assert imread(tmp_path / ACCURACY)[..., :3].std() > 0.05
    columns = len({titled(run.cell) for run in runs})
    mosaic = imread(tmp_path / MOSAIC)
    assert mosaic.shape[:2] == (860, columns * 440)
    assert mosaic[..., :3].std() > 0.05


def test_what_diverged_is_not_drawn(runs: list[Finished], tmp_path: Path) -> None:
    draw([*runs[:3], replace(runs[3], metric=nan)], tmp_path)
    assert (tmp_path / ACCURACY).exists()
    (tmp_path / "none").mkdir()
    draw([replace(run, metric=nan) for run in runs[:4]], tmp_path / "none")
    assert [path.name for path in (tmp_path / "none").iterdir()] == [MOSAIC]


def test_treatments_have_names_that_tell_them_apart() -> None:
    names = [titled(cell) for cell in CELLS]
    assert names == ["dense", "MoMos s=2, c=5 %", "MoMos s=4, k=256", "learned s=2, k=64"]
    pruned = Cell(task="digits", treatment="prune", settings={"sparsity": 0.5})
    assert titled(pruned) == "prune sparsity=0.5"


# The command

NAMES = ["dense", "MoMos s=2, c=5 %", "MoMos s=4, k=256", "learned s=2, k=64"]


def shown(folder: Path, *, seeds: int = 1, processes: int = 1) -> str:
    console = Console(file=StringIO(), width=80)
    try:
        recipe = Demo(seeds=seeds, epochs=1)
        demo(folder, recipe, console=console, processes=processes)
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
