from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

from momos.study.models import mlp
from momos.study.recipes.demo import DEMO, Recipe
from momos.study.report.accuracy import accuracy_against_length
from momos.study.report.mosaic import layer_by_motif, paint, place
from momos.study.report.table import grouped, mean_and_deviation, table
from momos.study.runs import Epoch, Lengths, Run


def run(number: int, seed: int, accuracy: float) -> Run:
    dense = 32 * 16640
    lengths = Lengths(16640, dense, dense // 4**number, dense / 4.5**number)
    if number:
        lengths = replace(lengths, num_motifs=2000, motifs_used=1500 + seed)
    torch.manual_seed(seed)
    epochs = (Epoch(1, 1.0, accuracy / 2, lengths), Epoch(2, 0.5, accuracy, lengths))
    network = mlp((64, 256, 10))
    size = 13_520 if number else None  # bytes: 6.50 bits a weight
    return Run(Recipe(), DEMO[number], "digits", seed, 1.0, epochs, network, size)


RUNS = [run(n, seed, 0.98 - 0.01 * seed) for seed in range(3) for n in range(len(DEMO))]


def printed(runs: list[Run]) -> list[list[str]]:
    """The cells of the table as an 80-column terminal shows them."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table(runs))
    lines = capture.get().splitlines()
    return [line.split("  ") for line in lines]


def test_the_table_fits_80_columns_and_says_it_all() -> None:
    rows = [[cell.strip() for cell in row if cell.strip()] for row in printed(RUNS)]
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
    assert rows[2] == ["dense", "97.0 ± 1.0", "32.00", "32.00", "–", "1.00", "–", "–"]
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
    assert len(rows) == 2 + len(DEMO)


def test_one_seed_has_no_deviation() -> None:
    assert mean_and_deviation([3.0]) == (3.0, None)
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(sqrt(2)))
    assert "±" not in str(printed(RUNS[: len(DEMO)]))


def test_thousands_are_set_apart() -> None:
    assert [grouped(n) for n in (7, 1234.4, 5526346)] == ["7", "1 234", "5 526 346"]


@pytest.mark.parametrize(
    "runs", [RUNS, RUNS[: len(DEMO)], RUNS[:1]], ids=["all", "one seed", "one run"]
)
def test_pictures_are_drawn(runs: list[Run], tmp_path: Path) -> None:
    accuracy_against_length(runs, title="a title").savefig(tmp_path / "accuracy.png")
    layer_by_motif(runs).savefig(tmp_path / "mosaic.png")
    assert imread(tmp_path / "accuracy.png").shape[:2] == (726, 1408)
    columns = len({r.treatment.name for r in runs})
    mosaic = imread(tmp_path / "mosaic.png")
    assert mosaic.shape[1] == 30 + columns * (80 + 432)
    assert mosaic[..., :3].std() > 0.05


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
