from dataclasses import replace
from itertools import combinations
from math import isnan, nan, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from safetensors.torch import save_file

from momos.study.cells import Cell
from momos.study.recipes.demo import Demo
from momos.study.report.accuracy import accuracy_against_length
from momos.study.report.mosaic import layer_by_motif, paint, place
from momos.study.report.names import by_treatment, grouped, mean_and_deviation, titled
from momos.study.report.table import table
from momos.study.store import WEIGHTS, Finished

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
        recipe="demo()",
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
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table(runs))
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
    assert mean_and_deviation([3.0]) == (3.0, None)
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(sqrt(2)))
    assert "±" not in str(printed(runs[: len(CELLS)]))


def test_thousands_are_set_apart() -> None:
    assert [grouped(n) for n in (7, 1234.4, 5526346)] == ["7", "1 234", "5 526 346"]


@pytest.mark.parametrize("count", [12, 4, 1], ids=["all", "one seed", "one run"])
def test_pictures_are_drawn(count: int, runs: list[Finished], tmp_path: Path) -> None:
    runs = runs[:count]
    accuracy_against_length(runs, title="a title").savefig(tmp_path / "accuracy.png")
    layer_by_motif(runs).savefig(tmp_path / "mosaic.png")
    assert imread(tmp_path / "accuracy.png").shape[:2] == (726, 1408)
    columns = len(by_treatment(runs))
    mosaic = imread(tmp_path / "mosaic.png")
    assert mosaic.shape[1] == 30 + columns * (80 + 432)
    assert mosaic[..., :3].std() > 0.05


ADVERSARIAL: dict[str, tuple[int, Any]] = {
    "equal points": (4, lambda number, seed: 0.97),
    "close points": (5, lambda number, seed: 0.97 + 1e-4 * number),
    "many treatments": (17, lambda number, seed: 0.9 + 0.001 * (number % 3)),
    "all right": (3, lambda number, seed: 1.0),
    "one diverged": (4, lambda number, seed: nan if number == 1 else 0.5 + 0.1 * seed),
    "all diverged": (2, lambda number, seed: nan),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_labels_cover_no_other_whatever_the_runs_are(
    name: str, runs: list[Finished]
) -> None:
    """Of one length all of them, so that all labels are wanted at one place across."""
    count, accuracy = ADVERSARIAL[name]
    learned = next(run for run in runs if run.cell.treatment == "learned")
    found = [
        replace(
            learned,
            cell=replace(learned.cell, seed=seed, settings={"num_motifs": 9 + number}),
            metric=accuracy(number, seed),
        )
        for number in range(count)
        for seed in range(2)
    ]
    figure = accuracy_against_length(found, title="a title")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = [text.get_window_extent() for text in axes.texts if text.get_text()]
    finite = {titled(run.cell) for run in found if not isnan(run.metric)}
    assert len(labels) == len(finite)
    for one, other in combinations(labels, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        up = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, up) < 1e-6
    frame = axes.get_window_extent()
    for label in labels:
        assert frame.y0 - 1e-6 <= label.y0 < label.y1 <= frame.y1 + 1e-6
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y1 < frame.y0
    colours = {line.get_color() for line in figure.axes[1].lines}
    assert len(colours) == min(count, 6)


@pytest.mark.parametrize("lowest", [0.1, 0.88])
def test_no_curve_leaves_the_frame_after_its_first_epochs(
    lowest: float, runs: list[Finished]
) -> None:
    metrics = [0.05, 0.3, *[0.95] * 5, lowest, *[0.96] * 3]
    history = tuple({"epoch": n, "metric": metric} for n, metric in enumerate(metrics))
    figure = accuracy_against_length(
        [replace(runs[0], history=history), *runs[1:4]], title="a title"
    )
    low, high = figure.axes[1].get_ylim()
    assert 5 < low < 100 * lowest
    assert high >= 100 * max(metrics)


def test_treatments_have_names_that_tell_them_apart() -> None:
    names = [titled(cell) for cell in CELLS]
    assert names == ["dense", "MoMos s=2, c=5 %", "MoMos s=4, k=256", "learned s=2, k=64"]
    pruned = Cell(task="digits", treatment="prune", settings={"sparsity": 0.5})
    assert titled(pruned) == "prune sparsity=0.5"


def test_zero_is_white_and_equal_blocks_have_equal_colours() -> None:
    blocks = torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.5, 0.1], [1.0, -2.0]])
    colours = paint(blocks, reach=1.0)
    assert colours[0].tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    assert torch.equal(colours[1], colours[3])
    assert (colours[1] - colours[2]).abs().max() > 0.1
    assert bool((colours >= 0).all() and (colours <= 1).all())


def test_places_of_pairs_keep_distances() -> None:
    blocks = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        torch.cdist(place(blocks), place(blocks)) * sqrt(2),
        torch.cdist(blocks, blocks),
        atol=1e-5,
        rtol=1e-5,
    )


def test_larger_blocks_lie_at_the_means_of_their_halves() -> None:
    blocks = torch.tensor([[1.0, 3.0, -2.0, 0.0]])
    assert torch.equal(place(blocks), place(torch.tensor([[2.0, -1.0]])))
