"""Ordered BDM is the length of a code that decodes; BDM is no such length."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ordered_bdm_coder import decode, encode

from momos.complexity import bdm, block_counts, ordered_bdm, ordered_length

binary_inputs = st.builds(
    lambda seed, density, shape: np.random.default_rng(seed).random(shape) < density,
    st.integers(0, 2**32),
    st.sampled_from([0, 0.1, 0.5]),
    st.integers(12, 130) | st.tuples(st.integers(4, 14), st.integers(4, 20)),
)


def sources() -> dict[str, tuple[np.ndarray, float]]:
    """600 000 bits of some sources, and minus log2 of their probability."""
    generator, n = np.random.default_rng(0), 600_000
    motifs = generator.integers(0, 2, (200, 12))
    made = {}
    for p in (0.05, 0.2, 0.5):
        bits = generator.random(n) < p
        ones = int(bits.sum())
        made[f"Bernoulli {p}"] = bits, -ones * math.log2(p) - (n - ones) * math.log2(1 - p)
    for k in (8, 200):
        order = generator.integers(0, k, n // 12)
        made[f"{k} motifs"] = motifs[order].reshape(-1), n / 12 * math.log2(k)
    return made


@pytest.mark.parametrize(
    "name", ["Bernoulli 0.05", "Bernoulli 0.2", "Bernoulli 0.5", "8 motifs", "200 motifs"]
)
def test_ordered_bdm_does_not_fall_below_the_entropy_and_bdm_does(name):
    """Which is why BDM is a score. No code beats the source by 20 bits, once in a million."""
    bits, information = sources()[name]
    assert ordered_bdm(bits) >= information - 20
    assert ordered_bdm(bits) <= 1.05 * information + 3000
    assert bdm(bits) < 0.9 * information


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5])
def test_ordered_bdm_of_squares_does_not_fall_below_the_entropy_and_bdm_does(p):
    n = 3000 * 3000
    bits = np.random.default_rng(0).random((3000, 3000)) < p
    ones = int(bits.sum())
    information = -ones * math.log2(p) - (n - ones) * math.log2(1 - p)
    assert information - 20 <= ordered_bdm(bits, ndim=2) <= 1.2 * information
    assert bdm(bits, ndim=2) < 0.9 * information


def coded_inputs() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    motifs = generator.integers(0, 2, (8, 12))
    inputs = {f"{n} random": generator.integers(0, 2, n) for n in (0, 1, 11, 12, 13, 1000)}
    inputs |= {
        "rare ones": (generator.random(12_007) < 0.05).astype(int),
        "8 motifs": motifs[generator.integers(0, 8, 1000)].reshape(-1),
        "alternating": np.arange(12_000) % 2,
        "zeros": np.zeros(100_000, int),
        "37×41 random": generator.integers(0, 2, (37, 41)),
        "60×101 rare": (generator.random((60, 101)) < 0.1).astype(int),
        "50×30 zeros": np.zeros((50, 30), int),
        "0×5": np.zeros((0, 5), int),
        "3×9": generator.integers(0, 2, (3, 9)),
    }
    return inputs


@pytest.mark.parametrize("name", coded_inputs())
def test_ordered_bdm_is_the_length_of_a_code_that_decodes(name):
    bits = coded_inputs()[name]
    text = encode(bits)
    assert np.array_equal(decode(text + "10110", bits.ndim), bits)
    # Elias's gamma code of a side is up to 1 bit longer than 2·log2, the end up to 2.
    assert abs(len(text) - ordered_bdm(bits, ndim=bits.ndim)) < 5


@given(bits=binary_inputs)
def test_ordered_bdm_is_the_length_of_a_code_of_any_small_input(bits):
    text = encode(bits.astype(int))
    assert np.array_equal(decode(text, bits.ndim), bits)
    assert abs(len(text) - ordered_bdm(bits, ndim=bits.ndim)) < 5


def test_ordered_bdm_has_a_value_where_there_is_no_block():
    assert ordered_bdm(np.zeros(0, int)) == pytest.approx(2 + math.log2(12))
    assert ordered_bdm(np.zeros(11, int)) == pytest.approx(2 + math.log2(12) + 11)
    assert ordered_bdm(torch.zeros(3, 9).bool(), ndim=2) == pytest.approx(
        2 + 2 * math.log2(3) + 4 + 27
    )


def test_a_length_needs_the_counts_of_all_blocks_of_the_shape():
    counts = block_counts(np.zeros(40, int))
    with pytest.raises(
        ValueError, match=r"must be 4096 that sum to 4 for shape \(50,\), got"
    ):
        ordered_length(counts, (50,))
    with pytest.raises(ValueError, match="must be 65536 that sum to 3 for shape"):
        ordered_length(counts, (5, 12))
    with pytest.raises(ValueError, match=r"shape must have 1 or 2 sides, got \(\)"):
        ordered_length(counts, ())


def test_ordered_bdm_takes_tensors_and_refuses_what_bdm_refuses():
    bits = np.random.default_rng(0).random((30, 50)) < 0.3
    assert ordered_bdm(torch.from_numpy(bits), ndim=2) == ordered_bdm(bits, ndim=2)
    with pytest.raises(TypeError, match="bits must be booleans or integers, got float64"):
        ordered_bdm(bits.astype(float))
    with pytest.raises(ValueError, match="bits must be 0 or 1, got 2"):
        ordered_bdm(bits + np.int8(1))
