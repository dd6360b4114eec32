import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import momos
from momos.study.recipes.demo import DEMO, Recipe
from momos.study.results import HISTORY, RESULTS, append, history, read, result
from momos.study.runs import Epoch, Lengths, Run

LENGTHS = Lengths(100, 3200, 800, 650.5, num_motifs=8, motifs_used=6)
EPOCHS = (Epoch(1, 2.0, 0.5, LENGTHS), Epoch(2, 1.0, 0.75, LENGTHS))
RUN = Run(Recipe(), DEMO[1], "digits", 4, 1.234, EPOCHS, nn.Identity())


def test_the_last_epoch_is_the_result() -> None:
    assert RUN.accuracy == 0.75
    assert RUN.lengths.factor == 4


def test_the_factor_of_a_file_is_by_its_whole_size() -> None:
    assert RUN.file_factor is None
    assert replace(RUN, file_bytes=100).file_factor == 3200 / 800


def test_a_result_is_complete() -> None:
    line = result(RUN)
    assert line == json.loads(json.dumps(line)) | {
        "recipe": line["recipe"],
        "mosaic": line["mosaic"],
    }
    assert (line["treatment"], line["data"], line["seed"]) == (
        "MoMos s=2, c=5 %",
        "digits",
        4,
    )
    assert (line["accuracy"], line["factor"]) == (0.75, 4)
    assert (line["dense"], line["bound"], line["entropy"]) == (3200, 800, 650.5)
    assert line["recipe"]["epochs"] == Recipe().epochs
    assert line["mosaic"]["capacity"] == 0.05
    assert line["versions"]["momos"] == momos.__version__
    assert {"torch", "lightning", "python"} <= line["versions"].keys()
    assert line["cores"] >= 1


def test_a_dense_result_has_no_mosaic() -> None:
    line = result(replace(RUN, treatment=DEMO[0]))
    assert line["mosaic"] is line["learning"] is None


def test_a_learned_result_says_how() -> None:
    learned = next(treatment for treatment in DEMO if treatment.learning)
    assert result(replace(RUN, treatment=learned))["learning"]["dense"] == 0.25


def test_history_has_a_line_per_epoch() -> None:
    assert [
        (line["epoch"], line["accuracy"], line["entropy"]) for line in history(RUN)
    ] == [
        (1, 0.5, 650.5),
        (2, 0.75, 650.5),
    ]


def test_runs_are_added_line_by_line(tmp_path: Path) -> None:
    append(tmp_path, RUN)
    append(tmp_path, replace(RUN, seed=5))
    assert [line["seed"] for line in read(tmp_path / RESULTS)] == [4, 5]
    assert [line["seed"] for line in read(tmp_path / HISTORY)] == [4, 4, 5, 5]
    assert "MoMos s=2, c=5 %" in (tmp_path / RESULTS).read_text("utf-8")


def test_no_result_without_its_history(tmp_path: Path) -> None:
    (tmp_path / HISTORY).mkdir()  # cannot be written
    with pytest.raises(IsADirectoryError):
        append(tmp_path, RUN)
    assert not (tmp_path / RESULTS).exists()
