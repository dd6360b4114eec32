"""Two sets of runs are compared in pairs, and never across tasks."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import finished, row
from rich.console import Console

from momos.cli.tables import of_study, table_of_comparison
from momos.study.analysis.comparison import Compared, Comparison, compare
from momos.study.analysis.statistics import Estimate
from momos.study.store import Finished

FILE = "file length (code, bits)"
values = st.dictionaries(st.integers(0, 6), st.floats(0.01, 100), min_size=1)


def runs_of(values: dict[int, float], treatment: str = "dense") -> list[Finished]:
    return [
        finished(treatment, seed, measures={"signs": value}, file=1000 * value)
        for seed, value in values.items()
    ]


def shown(comparison: Comparison) -> str:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(of_study(table_of_comparison(comparison)))
    return captured.get()


def row_of(comparison: Comparison, task: str, name: str) -> Compared:
    (found,) = (r for r in comparison.rows if (r.task, r.name) == (task, name))
    return found


def five(treatment: str = "dense", **others) -> list[Finished]:
    return [finished(treatment, seed, **others) for seed in range(5)]


@given(values, values)
@settings(max_examples=25)
def test_it_is_inverted_with_its_order(first, second):
    if not first.keys() & second.keys():
        return
    one = compare(runs_of(first), runs_of(second, "prune"))
    other = compare(runs_of(second, "prune"), runs_of(first))
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        assert (mine.first, mine.second) == (theirs.second, theirs.first)
        assert mine.found is not None
        assert theirs.found is not None
        assert mine.decided == theirs.decided
    assert one.lone == other.lone


@given(values)
@settings(max_examples=25)
def test_nothing_differs_from_itself(values):
    comparison = compare(runs_of(values), runs_of(values))
    n = len(values)
    assert [row.found for row in comparison.rows] == [
        Estimate(0.0, 0.0, 0.0, n),
        Estimate(1.0, 1.0, 1.0, n),
        Estimate(1.0, 1.0, 1.0, n),
    ]


def test_metric_file_and_measures_are_compared():
    first = five("prune", metric=0.89, file=1000.0, measures={"signs": 5.0})
    comparison = compare(first, five(metric=0.9, file=4000.0, measures={"signs": 10.0}))
    accuracy = row_of(comparison, "digits", "accuracy, %")
    assert accuracy.found is not None
    assert accuracy.found.mean == pytest.approx(-1)
    assert (accuracy.first, accuracy.second) == pytest.approx((89, 90))
    assert accuracy.unit == "points"
    file, signs = (
        row_of(comparison, "digits", FILE),
        row_of(comparison, "digits", "signs (code, bits)"),
    )
    assert file.found is not None
    assert file.found.mean == pytest.approx(0.25)
    assert (file.first, file.second) == (1000.0, 4000.0)
    assert signs.found is not None
    assert signs.found.mean == pytest.approx(0.5)
    assert comparison.labels == ("first: prune", "second: dense")


def test_only_shared_seeds_count_and_others_are_told():
    comparison = compare(
        runs_of({0: 1.0, 1: 1.0, 2: 9.0}), runs_of({0: 2.0, 1: 2.0, 7: 1.0})
    )
    found = row_of(comparison, "digits", FILE).found
    assert found == Estimate(pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5), 2)
    assert comparison.lone == {"digits": (2, 7)}
    assert "digits: left out, as only one has them: seeds 2, 7" in shown(comparison)


def test_ten_and_more_seeds_of_one_set_are_named():
    both, ours = {0: 1.0}, dict.fromkeys(range(1, 13), 1.0)
    lone = "left out, as only one has them: seeds 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"
    assert f"{lone} " in shown(compare(runs_of(both | ours), runs_of(both)))


def test_tasks_are_compared_apart():
    runs = five(task="digits") + five(task="text", higher_is_better=False, metric=2.0)
    others = five(task="text", higher_is_better=False, metric=2.2)
    comparison = compare(runs, five(task="digits") + others)
    bits = row_of(comparison, "text", "bits per character")
    assert bits.found is not None
    assert bits.found.mean == pytest.approx(-100 / 11)
    assert bits.unit == "%"
    assert [row.task for row in comparison.rows] == ["digits", "digits", "text", "text"]


def test_a_measure_of_one_side_only_says_so():
    comparison = compare(five(measures={"signs": 1.0}), five())
    signs = row_of(comparison, "digits", "signs (code, bits)")
    assert signs.found is None
    assert signs.unavailable == "no seed has it in both (not measured, or 0)"
    assert f"digits, {signs.name}: {signs.unavailable}" in shown(comparison)


def test_a_metric_that_is_no_number_says_so():
    runs = [*five()[:4], finished(seed=4, metric=math.nan)]
    accuracy = row_of(compare(runs, five()), "digits", "accuracy, %")
    assert accuracy.found is None
    assert accuracy.unavailable == "accuracy must be finite, got nan for seed 4"


def test_the_table_shows_intervals_and_n():
    measures = (row("BDM", 3.5, kind="score", unit="score"),)
    first = [
        finished("prune", seed, metric=0.89 + 0.001 * seed, measures=measures)
        for seed in range(5)
    ]
    text = shown(compare(first, five(measures=measures)))
    assert "first: prune" in text
    accuracy, file, bdm = (
        next(line for line in text.splitlines() if f" {name}" in line)
        for name in ("accuracy", "file length", "BDM")
    )
    assert "−0.80 points" in accuracy
    assert accuracy.split()[-2:] == ["5", "yes"]
    assert " to " in accuracy
    assert "26,000" in file
    assert "× 1.0000" in file
    assert file.split()[-2:] == ["5", "no"]
    assert "3.5" in bdm


def test_one_seed_has_no_interval():
    line = shown(compare([finished()], [finished(metric=0.8)])).splitlines()[1]
    assert line.split()[-3:] == ["–", "1", "–"]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([], [finished()], "first must have at least one run, got none"),
        ([finished()], [], "second must have at least one run, got none"),
        (
            [finished()],
            [finished(seed=1), finished(seed=2)],
            "first and second must share a seed of digits, got 0 and 1, 2",
        ),
        (
            [finished()],
            [finished(task="text")],
            "first and second must be of the same tasks, got digits and text",
        ),
        (
            [finished(), finished("prune")],
            [finished()],
            "first must have one run for each task and seed, got digits-dense-0 and "
            "digits-prune-0",
        ),
        (
            [finished()],
            [finished(higher_is_better=False)],
            "runs of digits must have one metric, got accuracy, bits per character",
        ),
    ],
)
def test_what_cannot_be_compared(first: Sequence, second: Sequence, words: str):
    with pytest.raises(ValueError, match=words):
        compare(first, second)
