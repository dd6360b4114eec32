"""A config says what was wrong with it, once, when it is made."""

import re
from dataclasses import FrozenInstanceError
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from momos import MosaicConfig


@pytest.mark.parametrize("value", [0, -1])
def test_a_block_holds_at_least_one_weight(value):
    with pytest.raises(ValueError, match=f"block_size must be at least 1, got {value}"):
        MosaicConfig(block_size=value, capacity=0.05)


@pytest.mark.parametrize("name", ["block_size", "num_motifs", "seed"])
@pytest.mark.parametrize("value", [2.0, True, "2"])
def test_whole_numbers_must_be_ints(name, value):
    settings = {"num_motifs": 4} | {name: value}
    with pytest.raises(TypeError, match=f"{name} must be an int, got {value!r}"):
        MosaicConfig(**settings)


@pytest.mark.parametrize("value", [0, 0.0, -0.1, 1.0001, 5, float("nan"), float("inf")])
def test_capacity_is_above_zero_and_at_most_one(value):
    with pytest.raises(ValueError, match="capacity must be above 0 and at most 1, got"):
        MosaicConfig(capacity=value)


@pytest.mark.parametrize("value", [0, -3])
def test_there_is_at_least_one_motif(value):
    with pytest.raises(ValueError, match=f"num_motifs must be at least 1, got {value}"):
        MosaicConfig(num_motifs=value)


def test_a_seed_is_not_negative():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        MosaicConfig(num_motifs=2, seed=-1)


def test_both_capacity_and_num_motifs_are_refused():
    message = "one of capacity and num_motifs must be given, got both: capacity=0.5, num_m"
    with pytest.raises(ValueError, match=message):
        MosaicConfig(capacity=0.5, num_motifs=4)


def test_neither_capacity_nor_num_motifs_is_refused():
    with pytest.raises(
        ValueError, match="capacity and num_motifs must be given, got neither"
    ):
        MosaicConfig()


def test_an_unknown_selection_is_told_the_known_ones():
    message = "selection must be one of sample, distinct, kmeans, whole, got 'random'"
    with pytest.raises(ValueError, match=message):
        MosaicConfig(num_motifs=2, selection="random")


@pytest.mark.parametrize("name", ["include", "exclude"])
def test_one_string_is_not_a_sequence_of_patterns(name):
    with pytest.raises(TypeError, match=f"{name} must be a sequence of patterns.*'fc"):
        MosaicConfig(num_motifs=2, **{name: "fc.*"})


def test_patterns_may_come_in_a_list_and_the_config_stays_hashable():
    config = MosaicConfig(num_motifs=2, include=["a", "b"], exclude=["c"])
    same = MosaicConfig(num_motifs=2, include=("a", "b"), exclude=("c",))
    assert config == same
    assert hash(config) == hash(same)


def test_a_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        MosaicConfig(num_motifs=2).num_motifs = 3  # pyright: ignore


def test_the_ends_of_every_range_are_allowed():
    MosaicConfig(block_size=1, capacity=1, seed=0)
    MosaicConfig(num_motifs=1, capacity=None)
    MosaicConfig(capacity=1e-300)


@pytest.mark.parametrize(
    ("num_blocks", "num_motifs"),
    [(493_317, 24_665), (134_861, 6_743), (2_763_173, 138_158)],
)
def test_the_papers_networks_get_the_papers_number_of_motifs(num_blocks, num_motifs):
    assert MosaicConfig(capacity=0.05).motifs_for(num_blocks) == num_motifs


@given(
    capacity=st.floats(2**-20, 1.0, width=16),
    num_blocks=st.integers(1, 10**9),
)
def test_capacity_times_blocks_is_rounded_down_but_not_to_zero(capacity, num_blocks):
    exact = floor(Fraction(capacity) * num_blocks)
    assert MosaicConfig(capacity=capacity).motifs_for(num_blocks) == max(1, exact)


@given(num_blocks=st.integers(1, 10**9))
def test_a_given_number_of_motifs_does_not_depend_on_the_network(num_blocks):
    assert MosaicConfig(num_motifs=256).motifs_for(num_blocks) == 256


def test_a_capacity_is_a_number_and_not_a_truth():
    with pytest.raises(TypeError, match="capacity must be a number, got True"):
        MosaicConfig(capacity=True)


def test_a_seed_fits_a_generator():
    MosaicConfig(num_motifs=2, seed=2**63 - 1)
    with pytest.raises(
        ValueError, match=r"seed must be below 2\*\*63, got 1180591620717411303424"
    ):
        MosaicConfig(num_motifs=2, seed=2**70)


@pytest.mark.parametrize("name", ["include", "exclude"])
def test_a_pattern_is_a_string(name):
    with pytest.raises(TypeError, match=f"{name} must hold patterns as strings, got 1"):
        MosaicConfig(num_motifs=2, **{name: [1]})


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan"), 10**400])
def test_a_rate_weight_is_a_number_of_at_least_0(value):
    with pytest.raises(ValueError, match="rate_weight must be at least 0 and finite"):
        MosaicConfig(num_motifs=2, rate_weight=value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_size": 2}, "block_size must be 1 for selection='whole', got 2"),
        ({"zero_motif": False}, "zero_motif must be True for selection='whole', got False"),
        ({"groups": (("*",),)}, "groups must be () for selection='whole', got (('*',),)"),
        ({"scales": "none"}, "scales must be 'tensor' or 'channel' for selection='whole'"),
        ({"bits": 16}, "bits must be at most 8 for selection='whole', got 16"),
        (
            {"num_motifs": 256},
            "num_motifs must be at most 255, the whole numbers of 8 bits",
        ),
        ({"num_motifs": 16, "bits": 4}, "num_motifs must be at most 15, the whole numbers"),
        ({"capacity": 0.1}, "num_motifs must be at most 255, the whole numbers of 8 bits"),
        ({"num_motifs": 4}, "num_motifs must be odd and at least 3 for selection='whole'"),
    ],
)
def test_whole_motifs_need_settings_that_fit(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MosaicConfig.learned(selection="whole", **settings)


def test_whole_motifs_have_defaults_of_their_own():
    config = MosaicConfig.learned(selection="whole", bits=4)
    assert (config.block_size, config.num_motifs, config.scales) == (1, 15, "tensor")
