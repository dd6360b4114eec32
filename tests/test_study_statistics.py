"""An interval of a few seeds should hold what it says, however few they are."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from momos.study.analysis.statistics import (
    Estimate,
    interval,
    ratio,
    shared_seeds,
)

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-3, 1e6)
several = st.lists(finite, min_size=1, max_size=10)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(a: float, b: float, scale: float) -> bool:
    return abs(a - b) <= 1e-9 * max(1.0, abs(scale))


# Intervals


@given(several)
@settings(max_examples=25)
def test_it_holds_the_mean(values):
    low, high = interval(values)
    assert low <= math.fsum(values) / len(values) + 1e-9 * max(map(abs, values))
    assert high >= math.fsum(values) / len(values) - 1e-9 * max(map(abs, values))


@given(several, st.floats(-100, 100), finite)
@settings(max_examples=25)
def test_it_moves_and_grows_with_the_values(values, factor, shift):
    low, high = interval(values)
    moved = interval([factor * value + shift for value in values])
    expected = sorted([factor * low + shift, factor * high + shift])
    scale = (abs(factor) + 1) * (max(map(abs, values)) + high - low) + abs(shift)
    assert close(moved[0], expected[0], scale)
    assert close(moved[1], expected[1], scale)


@given(finite, st.integers(1, 10))
def test_equal_values_are_both_ends_exactly(value, count):
    assert interval([value] * count) == (value, value)


def test_it_is_the_same_every_time():
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert interval(values) == interval(values)


def test_many_values_give_students_interval():
    values = torch.randn(1000, dtype=torch.float64, generator=seeded()).tolist()
    half = float(stdtrit(999, 0.975)) * float(torch.tensor(values).std()) / math.sqrt(1000)
    low, high = interval(values)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize(
    ("count", "least", "most"), [(2, 0.88, 0.96), (3, 0.92, 0.98), (5, 0.91, 0.97)]
)
def test_what_is_said_to_be_95_percent_nearly_is(count, least, most):
    samples = torch.randn(300, count, dtype=torch.float64, generator=seeded(count))
    found = [interval(sample.tolist()) for sample in samples]
    held = sum(low <= 0 <= high for low, high in found) / len(found)
    assert least <= held <= most


def test_skewed_values_hold_less():
    samples = -torch.rand(300, 5, dtype=torch.float64, generator=seeded()).log()
    found = [interval(sample.tolist()) for sample in samples]
    assert 0.84 <= sum(low <= 1 <= high for low, high in found) / len(found) <= 0.92


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "values must be at least 1, got 0"),
        ([1.0, math.nan], "values must be finite, got nan"),
        ([math.inf], "values must be finite, got inf"),
    ],
)
def test_what_no_interval_has(values, words):
    with pytest.raises(ValueError, match=words):
        interval(values)


# Estimates


@given(several)
@settings(max_examples=25)
def test_an_estimate_turns_its_sign_with_its_values(values):
    one, other = Estimate.of(values), Estimate.of([-value for value in values])
    scale = max(map(abs, (one.mean, one.low, one.high)))
    assert one.mean == -other.mean
    assert close(one.low, -other.high, scale)
    assert close(one.high, -other.low, scale)
    assert one.n == other.n == len(values)


def test_one_seed_decides_nothing():
    assert not Estimate.of([1.0]).excludes(0)
    assert Estimate.of([1.0, 1.0]).excludes(0)
    assert not Estimate.of([0.0, 0.0]).excludes(0)


def test_what_is_not_finite_is_left_out_where_that_is_asked_for():
    assert Estimate.of_finite([1.0, math.nan, None, 1.0]) == Estimate(1.0, 1.0, 1.0, 2)
    assert Estimate.of_finite([math.inf, None]) is None


def test_without_a_shared_seed_there_is_nothing_to_compare():
    words = "first and second must share a seed, got 0, 3 and 1"
    with pytest.raises(ValueError, match=words):
        shared_seeds({3: 1.0, 0: 1.0}, {1: 1.0})
    with pytest.raises(ValueError, match="got none and 1"):
        shared_seeds({}, {1: 1.0})
    assert shared_seeds([5, 1, 0], [7, 0, 1]) == [0, 1]


# Ratios


@given(
    st.dictionaries(st.integers(0, 9), positive, min_size=1),
    st.dictionaries(st.integers(0, 9), positive, min_size=1),
)
@settings(max_examples=25)
def test_a_ratio_is_inverted_with_its_order(first, second):
    assume(first.keys() & second.keys())
    one = ratio(first, second)
    other = ratio(second, first)
    assert one.mean * other.mean == pytest.approx(1)
    assert one.n == other.n


def test_means_of_factors_are_factors_of_the_mean():
    first, middle, last = {0: 1.0, 1: 4.0}, {0: 3.0, 1: 5.0}, {0: 2.0, 1: 7.0}
    product = ratio(first, middle).mean * ratio(middle, last).mean
    assert product == pytest.approx(ratio(first, last).mean)


def test_ratios_are_decided_against_1():
    assert ratio({0: 1.0, 1: 1.1, 2: 0.9}, {0: 2.0, 1: 2.0, 2: 2.0}).excludes(1)
    assert not ratio({0: 1.0, 1: 2.0}, {0: 2.0, 1: 1.0}).excludes(1)
    assert ratio({0: 3.0}, {0: 3.0}) == Estimate(1.0, 1.0, 1.0, 1)


def test_two_seeds_worlds_apart_are_no_overflow():
    found = ratio({0: 1e-300, 1: 1e300}, {0: 1.0, 1: 1.0})
    assert (found.low, found.high) == (0.0, math.inf)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_ratios_are_of_positive_values(value):
    with pytest.raises(ValueError, match=f"finite and above 0, got {value} for seed 1"):
        ratio({1: value}, {1: 1.0})
