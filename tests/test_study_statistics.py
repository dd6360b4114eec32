"""An interval of a few seeds should hold what it says, however few they are."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from momos.study.statistics import Difference, Ratio, interval, paired, ratio

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-3, 1e6)
several = st.lists(finite, min_size=1, max_size=10)
by_seed = st.dictionaries(st.integers(0, 20), finite, min_size=1, max_size=8)
FEW = 500  # resamples, where the outcome does not hang on them


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(a: float, b: float, scale: float) -> bool:
    return abs(a - b) <= 1e-9 * max(1.0, abs(scale))


# Intervals


@given(several)
@settings(max_examples=25)
def test_it_holds_the_mean(values):
    low, high = interval(values, resamples=FEW)
    assert low <= math.fsum(values) / len(values) + 1e-9 * max(map(abs, values))
    assert high >= math.fsum(values) / len(values) - 1e-9 * max(map(abs, values))


@given(several, st.floats(-100, 100), finite)
@settings(max_examples=25)
def test_it_moves_and_grows_with_the_values(values, factor, shift):
    low, high = interval(values, resamples=FEW)
    moved = interval([factor * value + shift for value in values], resamples=FEW)
    expected = sorted([factor * low + shift, factor * high + shift])
    scale = (abs(factor) + 1) * (max(map(abs, values)) + high - low) + abs(shift)
    assert close(moved[0], expected[0], scale)
    assert close(moved[1], expected[1], scale)


@given(finite, st.integers(1, 10))
def test_equal_values_are_both_ends_exactly(value, count):
    assert interval([value] * count) == (value, value)


@given(several)
@settings(max_examples=25)
def test_a_higher_level_is_no_narrower(values):
    low, high = interval(values, level=0.8, resamples=FEW)
    lower, higher = interval(values, level=0.95, resamples=FEW)
    slack = 1e-9 * max(map(abs, values))
    assert lower <= low + slack
    assert high <= higher + slack


def test_it_is_deterministic_and_draws_by_its_generator():
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert interval(values) == interval(values)
    assert interval(values) == interval(values, generator=seeded(0))
    assert interval(values, resamples=50, generator=seeded(1)) != interval(
        values, resamples=50
    )


def test_many_values_give_students_interval():
    values = torch.randn(1000, dtype=torch.float64, generator=seeded()).tolist()
    half = float(stdtrit(999, 0.975)) * float(torch.tensor(values).std()) / math.sqrt(1000)
    low, high = interval(values)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize(
    ("count", "least", "most"), [(2, 0.88, 0.96), (3, 0.92, 0.98), (5, 0.91, 0.97)]
)
def test_what_is_said_to_be_95_percent_nearly_is(count, least, most):
    samples = torch.randn(500, count, dtype=torch.float64, generator=seeded(count))
    found = [interval(sample.tolist(), resamples=FEW) for sample in samples]
    held = sum(low <= 0 <= high for low, high in found) / len(found)
    assert least <= held <= most


def test_skewed_values_hold_less():
    samples = -torch.rand(500, 5, dtype=torch.float64, generator=seeded()).log()
    found = [interval(sample.tolist(), resamples=FEW) for sample in samples]
    assert 0.84 <= sum(low <= 1 <= high for low, high in found) / len(found) <= 0.92


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ([], {}, "values must be at least 1, got 0"),
        ([1.0, math.nan], {}, "values must be finite, got nan"),
        ([math.inf], {}, "values must be finite, got inf"),
        ([1.0], {"level": 1.0}, "level must be above 0 and below 1, got 1.0"),
        ([1.0], {"level": 0.0}, "level must be above 0 and below 1, got 0.0"),
        ([1.0], {"resamples": 0}, "resamples must be at least 1, got 0"),
    ],
)
def test_what_no_interval_has(values, options, words):
    with pytest.raises(ValueError, match=words):
        interval(values, **options)


# Differences


@given(by_seed, by_seed)
@settings(max_examples=25)
def test_differences_turn_their_sign_with_their_order(first, second):
    assume(first.keys() & second.keys())
    one = paired(first, second, resamples=FEW)
    other = paired(second, first, resamples=FEW)
    scale = max(map(abs, (one.mean, one.low, one.high)))
    assert one.mean == -other.mean
    assert close(one.low, -other.high, scale)
    assert close(one.high, -other.low, scale)
    assert one.n == other.n == len(first.keys() & second.keys())


@given(by_seed)
@settings(max_examples=25)
def test_the_order_of_seeds_does_not_matter(values):
    second = dict.fromkeys(values, 0.0)
    turned = dict(reversed(values.items()))
    assert paired(values, second, resamples=FEW) == paired(turned, second, resamples=FEW)


@given(by_seed)
def test_nothing_differs_from_itself(values):
    found = paired(values, values)
    assert found == Difference(0.0, 0.0, 0.0, len(values))
    assert not found.decided


def test_only_shared_seeds_count():
    found = paired({0: 1.0, 1: 2.0, 5: math.nan}, {0: 0.0, 1: 1.0, 7: 100.0})
    assert found == Difference(1.0, 1.0, 1.0, 2)


def test_pairs_decide_what_scatter_between_seeds_would_hide():
    second = {seed: 10.0 * seed for seed in range(5)}
    first = {seed: value + 1 + 0.1 * (-1) ** seed for seed, value in second.items()}
    assert paired(first, second).decided


def test_one_seed_decides_nothing():
    found = paired({0: 2.0}, {0: 1.0})
    assert (found.low, found.high) == (1.0, 1.0)
    assert not found.decided


def test_without_a_shared_seed_there_is_no_difference():
    words = "first and second must share a seed, got 0, 3 and 1"
    with pytest.raises(ValueError, match=words):
        paired({3: 1.0, 0: 1.0}, {1: 1.0})
    with pytest.raises(ValueError, match="got none and 1"):
        paired({}, {1: 1.0})


def test_a_value_that_is_no_number_names_its_seed():
    with pytest.raises(ValueError, match="values must be finite, got nan for seed 2"):
        paired({1: 0.0, 2: math.nan}, {1: 0.0, 2: 0.0})


# Ratios


@given(
    st.dictionaries(st.integers(0, 9), positive, min_size=1),
    st.dictionaries(st.integers(0, 9), positive, min_size=1),
)
@settings(max_examples=25)
def test_a_ratio_is_inverted_with_its_order(first, second):
    assume(first.keys() & second.keys())
    one = ratio(first, second, resamples=FEW)
    other = ratio(second, first, resamples=FEW)
    assert one.mean * other.mean == pytest.approx(1)
    assert one.n == other.n


def test_means_of_factors_are_factors_of_the_mean():
    first, middle, last = {0: 1.0, 1: 4.0}, {0: 3.0, 1: 5.0}, {0: 2.0, 1: 7.0}
    product = ratio(first, middle).mean * ratio(middle, last).mean
    assert product == pytest.approx(ratio(first, last).mean)


def test_ratios_are_decided_against_1():
    assert ratio({0: 1.0, 1: 1.1, 2: 0.9}, {0: 2.0, 1: 2.0, 2: 2.0}).decided
    assert not ratio({0: 1.0, 1: 2.0}, {0: 2.0, 1: 1.0}).decided
    assert ratio({0: 3.0}, {0: 3.0}) == Ratio(1.0, 1.0, 1.0, 1)


def test_two_seeds_worlds_apart_are_no_overflow():
    found = ratio({0: 1e-300, 1: 1e300}, {0: 1.0, 1: 1.0})
    assert (found.low, found.high) == (0.0, math.inf)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_ratios_are_of_positive_values(value):
    with pytest.raises(ValueError, match=f"finite and above 0, got {value} for seed 1"):
        ratio({1: value}, {1: 1.0})
