"""The demo's table and pictures, of runs that nobody ran."""

from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from safetensors.torch import save_file

from momos.cli.demo import (
    ACCURACY,
    MOSAIC,
    cohorts_of,
    draw,
    table_of_demo,
    titled,
)
from momos.cli.tables import of_study
from momos.study.analysis.metric import grouped
from momos.study.cell import Cell
from momos.study.recipes.questions import Demo
from momos.study.store import NOBODY, WEIGHTS, Finished

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
    weights = torch.randn(64, 16, generator=generator)
    save_file({"1.weight": weights, "1.bias": torch.zeros(64)}, folder / WEIGHTS)
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
        console.print(of_study(table_of_demo(cohorts)))
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


@pytest.mark.parametrize("count", [12, 1], ids=["all", "one run"])
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
