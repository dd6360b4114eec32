"""Grids as TOML files."""

from pathlib import Path

import pytest

from momos.study.cell import Cell
from momos.study.sweep import Sweep, grid

TEXT = """
[cell]
task = "digits"
treatment = "sampled"
epochs = 2
dense_start = true
[grid]
seed = [0, 1]
"settings.block_size" = [2, 4]
"settings.capacity" = [0.05]
"""


def test_every_combination_is_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    sweep = Sweep.read(path)
    assert sweep.name == "mine"
    assert [(c.seed, c.settings["block_size"]) for c in sweep.cells] == [
        (seed, size) for seed in (0, 1) for size in (2, 4)
    ]
    for cell in sweep.cells:
        dense = Cell(task="digits", epochs=2, seed=cell.seed)
        assert cell.start == cell.teacher == dense
        assert cell.settings["capacity"] == 0.05


def test_dense_starts_are_trained_as_what_starts_from_them() -> None:
    shared = {
        "task": "digits",
        "dense_start": True,
        "keep": "best",
        "precision": "bfloat16",
    }
    (cell,) = grid(shared, {"validation": [0.1]})
    assert cell.start == cell.teacher
    assert cell.start is not None
    assert cell.start.options == cell.options
    assert list(cell.options) == ["validation", "keep", "precision"]


def test_equal_cells_are_one() -> None:
    assert len(grid({"task": "digits"}, {"seed": [0, 1, 0]})) == 2


@pytest.mark.parametrize(
    ("shared", "axes", "message"),
    [
        ({"tasks": "digits"}, {}, r"got 'tasks' \(near it: task\)"),
        ({"task": "digits"}, {"seeds": [1]}, r"got 'seeds' \(near it: seed\)"),
        (
            {"task": "digits"},
            {"seed": []},
            r"seed must be a list of values in grid, got \[\]",
        ),
        ({"task": "digits"}, {"seed": 3}, "seed must be a list"),
        ({"task": "digits"}, {"task": ["a"]}, "got task in both"),
        ({}, {"seed": [0]}, "it lacks 'task'"),
        (
            {"task": "digits"},
            {"seed": [-1]},
            "seed must be a whole number of at least 0, got -1",
        ),
        ({"task": "digits", "settings.": 1}, {}, "got 'settings.'"),
    ],
)
def test_what_is_no_grid_is_refused(shared, axes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(shared, axes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[cell", "a sweep must be a TOML file"),
        ("[cells]\n", "tables cell and grid only, got cells"),
        ("\x00", "a sweep must be a TOML file"),
    ],
)
def test_what_is_no_sweep_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Sweep.read(path)
