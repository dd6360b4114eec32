"""Less is simpler, whatever the quantity; what has no value is left out, with its reason."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import finished, row

from momos.study.analysis.metric import metric_difference, metric_of
from momos.study.analysis.quantities import (
    FILE_LENGTH,
    Quantity,
    Split,
    quantities_of,
)

SIGNS = Quantity("signs", "code", "bits")
factor = st.floats(0.01, 100)


def test_the_file_comes_first_and_each_measure_once():
    runs = [
        finished(measures={"signs": 1.0}),
        finished(measures={"codes": 1.0, "signs": 1.0}),
    ]
    assert [each.name for each in quantities_of(runs)] == [FILE_LENGTH, "signs", "codes"]


@pytest.mark.parametrize("value", [None, 0.0, -1.0, math.nan, math.inf])
def test_values_without_a_ratio_are_left_out(value):
    runs = {0: finished(measures={"signs": value}), 1: finished(measures={"signs": 2.0})}
    assert SIGNS.values(runs) == {1: 2.0}


def test_reasons_are_told_each_once():
    runs = {seed: finished(measures={"signs": None}) for seed in range(3)}
    assert SIGNS.why_not(runs) == "too few weights"
    assert SIGNS.why_not({0: finished()}) == "not measured, or 0"


@given(st.lists(st.tuples(factor, factor), min_size=1, max_size=6))
@settings(max_examples=25)
def test_arrangement_and_the_rest_make_up_the_ratio(parts):
    runs = {
        seed: finished(measures=(row("signs", a * v, arrangement=a, init_value=1.0),))
        for seed, (a, v) in enumerate(parts)
    }
    split = SIGNS.against_init(runs)
    assert split.arrangement is not None
    assert split.rest is not None
    assert split.ratio.mean == pytest.approx(split.arrangement.mean * split.rest)
    mean = math.prod(v for _, v in parts) ** (1 / len(parts))
    assert split.rest == pytest.approx(mean)


def test_arrangements_of_some_seeds_only_do_not_split():
    split = Split.of({0: 1.0, 1: 2.0}, {0: 1.0, 1: 1.0}, {0: 1.0})
    assert split.arrangement is None
    assert split.rest is None


def test_rates_are_turned_over():
    rate = Quantity("rate", "score", "ratio")
    rates = (row("rate", 4.0, unit="ratio", init_value=2.0, arrangement=1.6),)
    split = rate.against_init({0: finished(measures=rates)})
    assert split.ratio.mean == pytest.approx(0.5)
    assert split.arrangement is not None
    assert split.arrangement.mean == pytest.approx(1 / 1.6)


# Metrics


def test_accuracy_differs_in_points_and_bits_in_percent():
    difference = metric_difference({0: finished(metric=0.91)}, {0: finished(metric=0.9)})
    assert difference.mean == pytest.approx(1)
    worse, better = (
        {0: finished(metric=metric, higher_is_better=False)} for metric in (2.2, 2.0)
    )
    assert metric_difference(worse, better).mean == pytest.approx(10)


def test_a_metric_without_a_description_differs_in_percent():
    run = finished()
    object.__setattr__(run, "metric_name", "perplexity")
    assert metric_of(run).difference_unit == "%"
    assert metric_of(run).higher_is_better


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({0: 0.9}, {1: 0.9}, "first and second must share a seed, got 0 and 1"),
        ({0: math.nan}, {0: 0.9}, "accuracy must be finite, got nan for seed 0"),
    ],
)
def test_what_has_no_difference(first, second, words):
    runs = (
        {seed: finished(seed=seed, metric=metric) for seed, metric in each.items()}
        for each in (first, second)
    )
    with pytest.raises(ValueError, match=words):
        metric_difference(*runs)


def test_no_bits_are_nothing_to_compare_with():
    runs = {0: finished(metric=0.0, higher_is_better=False)}
    with pytest.raises(ValueError, match="bits per character must not be 0 for seed 0"):
        metric_difference(runs, runs)
