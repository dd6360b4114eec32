"""The best line, and when training stops, follow from the lines."""

from dataclasses import replace
from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from treated import points

from momos.study.cell import Cell
from momos.study.training.history import Choice
from momos.study.training.preparation import Prepared
from momos.study.treatments.prune import Prune

values = st.lists(st.integers(0, 3), min_size=1, max_size=12)


def lines(*validations: float) -> list[dict]:
    """Before training, and after each epoch."""
    return [
        {"epoch": epoch, "validation": value}
        for epoch, value in enumerate([9, *validations])
    ]


def choice(settled: int = 0, patience: int = 0, higher_is_better: bool = True) -> Choice:
    return Choice(settled, patience, higher_is_better)


def epoch_of(found: Choice, *validations: float) -> int | None:
    best = found.best(lines(*validations))
    return best and best["epoch"]


def test_the_first_of_the_best_is_the_best_and_none_before_training() -> None:
    assert epoch_of(choice(), 1, 3, 3, 2) == 2
    assert epoch_of(choice(higher_is_better=False), 2, 1, 3, 1) == 2
    assert epoch_of(choice(settled=3), 1, 3, 1, 2) == 4
    assert epoch_of(choice(settled=3), 1, 3) is None
    assert epoch_of(choice(), nan, 1, nan) == 2


@settings(max_examples=40)
@given(values, st.integers(0, 4), st.integers(1, 3))
def test_it_stops_when_patience_has_run_out_for_the_first_time(
    found: list[int], settled: int, patience: int
) -> None:
    chosen = choice(settled, patience)
    stop = next((n for n in range(len(found) + 1) if chosen.stops(lines(*found[:n]))), None)
    best, waited, expected = -1, 0, None
    for epoch, value in enumerate(found, start=1):
        if epoch >= settled:
            best, waited = max(best, value), 0 if value > best else waited + 1
        if waited == patience:
            expected = epoch
            break
    assert stop == expected


def test_without_patience_nothing_stops_it() -> None:
    assert not choice().stops(lines(3, 2, 1, 0, 0, 0))


def test_what_is_no_number_is_no_better() -> None:
    assert choice(patience=2).stops(lines(nan, nan, nan))
    assert not choice(patience=2).stops(lines(nan, nan, 1))


@pytest.mark.parametrize(
    ("share", "total", "first"),
    [(0.0, 60, 0), (0.7, 60, 5), (0.7, 100, 7), (1.0, 55, 6), (0.01, 60, 1)],
)
def test_lines_count_from_a_share_of_the_steps_on(
    share: float, total: int, first: int
) -> None:
    task = replace(points(), steps_per_epoch=10)
    treatment = Prune(begin=0.0, end=share)
    cell = Cell(task="points", epochs=total / 10)
    assert Prepared(cell, task, treatment).settled_epoch == first
