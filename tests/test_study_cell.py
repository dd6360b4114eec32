"""Cells are values: equal ones are one run, and what they need comes first."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from momos.study.cell import Cell, ordered
from momos.study.runner import levels
from momos.study.schema import checked

DENSE = Cell(task="digits")
LEARNED = Cell(
    task="digits",
    treatment="learned",
    settings={"rate_weight": 0.5, "sensitive": True},
    start=DENSE,
    teacher=DENSE,
)


def test_a_cell_comes_back_from_json() -> None:
    found = checked(Cell, json.loads(json.dumps(asdict(LEARNED))))
    assert found == LEARNED
    assert found.key == LEARNED.key
    assert found.folder == f"digits-learned-seed-0-{LEARNED.key}"


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"epochs": 3},
        {"settings": {"rate_weight": 0.5}},
        {"network": "mlp:8"},
        {"start": None},
        {"teacher": replace(DENSE, seed=1)},
        {"weight_decay": 0.0},
        {"measure_every": 2},
        {"precision": "bfloat16"},
        {"channels_last": True},
        {"devices": 2},
    ],
)
def test_whatever_differs_makes_another_key(changes: dict[str, Any]) -> None:
    assert replace(LEARNED, **changes).key != LEARNED.key


def test_the_order_of_settings_makes_none() -> None:
    turned = dict(reversed(LEARNED.settings.items()))
    assert replace(LEARNED, settings=turned).key == LEARNED.key


def test_what_a_cell_needs_comes_before_it_and_once() -> None:
    second = replace(LEARNED, start=LEARNED)
    found = ordered([second, LEARNED, DENSE, second])
    assert found == [DENSE, LEARNED, second]
    assert levels(found) == [[DENSE], [LEARNED], [second]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": ""}, "task must be text that is not empty, got ''"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"patience": 1.5}, "patience must be a whole number of at least 0, got 1.5"),
        ({"seed": True}, "seed must be a whole number of at least 0, got True"),
        ({"epochs": float("inf")}, "epochs must be above 0 and finite, got inf"),
        ({"epochs": 0}, "epochs must be above 0 and finite, got 0"),
        ({"epochs": float("nan")}, "epochs must be above 0 and finite, got nan"),
        ({"learning_rate": -1}, "learning_rate must be above 0"),
        ({"record_every": 0}, "record_every must be a whole number of at least 1, got 0"),
        ({"controls": 1}, "controls must be 0, or at least 2, got 1"),
        (
            {"measure_every": -1},
            "measure_every must be a whole number of at least 0, got -1",
        ),
        ({"validation": 1}, "validation must be at least 0 and below 1, got 1"),
        (
            {"validation": float("nan")},
            "validation must be at least 0 and below 1, got nan",
        ),
        ({"patience": -1}, "patience must be a whole number of at least 0, got -1"),
        ({"patience": 3}, "validation must be above 0 for patience=3, .*, got 0"),
        ({"keep": "best"}, "validation must be above 0 for keep=best, .*, got 0"),
        ({"keep": "first"}, "keep must be 'last' or 'best', got 'first'"),
        ({"precision": "half"}, "precision must be 'float32' or 'bfloat16', got 'half'"),
        ({"devices": 0}, "devices must be a whole number of at least 1, got 0"),
        ({"channels_last": 1}, "channels_last must be true or false, got 1"),
        (
            {"validation": 0.2, "start": replace(DENSE, validation=0.1)},
            "validation of the start must be at least the cell's, 0.2, got 0.1",
        ),
        (
            {"validation": 0.2, "teacher": DENSE},
            "validation of the teacher must be at least the cell's, 0.2, got 0.0",
        ),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DENSE, **changes)


def test_a_label_says_how_else_it_is_trained() -> None:
    cell = replace(DENSE, validation=0.1, patience=3, keep="best", channels_last=True)
    assert cell.label == "dense validation=0.1 patience=3 keep=best channels_last=True"
    assert DENSE.label == "dense"


def test_folders_have_names_that_every_system_takes() -> None:
    name = Cell(task="digits", network="mlp:8/../x").folder
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
