"""KT is the sequence of its probabilities, and a decoder can read what it measures."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kt_coder import Estimator, Reader, Writer, bits_of

from momos.complexity import (
    count_symbols,
    elias_delta_bits,
    kt_code,
    kt_from_counts,
)
from momos.complexity.codes import PIECE

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
UNSIGNED = [torch.uint16, torch.uint32, torch.uint64]


@st.composite
def sequences(draw, longest: int = 300):
    """Symbols, their alphabet, and an order."""
    alphabet = draw(st.integers(1, 9))
    symbols = draw(st.lists(st.integers(0, alphabet - 1), max_size=longest))
    return symbols, alphabet, draw(st.integers(0, 4))


def sequential(symbols: list[int], alphabet: int, order: int) -> float:
    """The definition: minus the logarithm of each probability, one symbol after another."""
    estimator, lengths = Estimator(alphabet, order), []
    for place, symbol in enumerate(symbols):
        before = symbols[max(0, place - order) : place]
        share = estimator.share(before)
        lengths.append(-math.log2(1 / alphabet if share is None else share[symbol]))
        estimator.learn(before, symbol)
    return math.fsum(lengths)


def markov(symbols: int, same: float, seed: int = 0) -> torch.Tensor:
    """A chain of bits, each equal to the one before with probability `same`."""
    generator = torch.Generator().manual_seed(seed)
    changes = torch.rand(symbols, generator=generator) >= same
    return (changes.cumsum(0) & 1).bool()


# Krichevsky–Trofimov


@given(sequences())
def test_kt_is_the_sequential_code(sequence):
    symbols, alphabet, order = sequence
    length = kt_code(np.array(symbols, dtype=np.int64), alphabet=alphabet, order=order)
    assert length == pytest.approx(
        sequential(symbols, alphabet, order), rel=1e-11, abs=1e-11
    )


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_kt_is_its_closed_form(counts):
    n, k = sum(counts), len(counts)
    nats = math.lgamma(n + k / 2) - math.lgamma(k / 2)
    nats -= math.fsum(math.lgamma(count + 0.5) - math.lgamma(0.5) for count in counts)
    # lgamma loses digits here; the next test has them.
    assert kt_from_counts(torch.tensor(counts)) == pytest.approx(
        nats / math.log(2), rel=1e-9, abs=1e-5
    )


@pytest.mark.parametrize(
    "counts",
    [
        [10**12],
        [10**12, 0],
        [10**12, 3],
        [10**10, 10**10],
        [7, 10**9, 15, 16, 17, 0],
        [1] + [0] * 65_535,
        [3, 1, 1] + [0] * (2**20 - 3),
    ],
)
def test_kt_keeps_its_digits_where_little_is_left_of_large_terms(counts):
    with mpmath.workdps(60):
        k, half = len(counts), mpmath.mpf(1) / 2
        nats = mpmath.loggamma(sum(counts) + k * half) - mpmath.loggamma(k * half)
        for count in filter(None, counts):
            nats -= mpmath.loggamma(count + half) - mpmath.loggamma(half)
        exact = float(nats / mpmath.log(2))
    assert kt_from_counts(torch.tensor(counts)) == pytest.approx(
        exact, rel=1e-13, abs=1e-13
    )


@given(sequences(longest=60))
def test_kt_decodes(sequence):
    symbols, alphabet, order = sequence
    writer = Writer()
    writer.symbols(symbols, alphabet, order)
    assert Reader(writer.words()).symbols(len(symbols), alphabet, order) == symbols


@pytest.mark.parametrize(
    ("alphabet", "order", "skew"), [(2, 0, 1), (2, 3, 9), (7, 1, 3), (200, 0, 40)]
)
def test_kt_is_what_a_range_coder_needs(alphabet, order, skew):
    draws = np.random.default_rng(0).random(8_000) ** skew
    symbols = (draws * alphabet).astype(int).tolist()
    writer = Writer()
    writer.symbols(symbols, alphabet, order)
    words, length = (
        writer.words(),
        kt_code(np.array(symbols), alphabet=alphabet, order=order),
    )
    assert Reader(words).symbols(len(symbols), alphabet, order) == symbols
    assert abs(bits_of(words) - length) <= 0.001 * length + 48


def test_an_order_sees_what_depends_on_the_symbols_before():
    bits = markov(272_474, same=0.55)
    ideal = len(bits) * -(0.55 * math.log2(0.55) + 0.45 * math.log2(0.45))
    assert kt_code(bits, alphabet=2) == pytest.approx(len(bits), rel=1e-3)
    for order in (1, 4):
        assert kt_code(bits, alphabet=2, order=order) == pytest.approx(ideal, rel=1e-3)


@given(sequences(), st.integers(0, 300))
def test_counts_of_pieces_add_up(sequence, cut):
    symbols, alphabet, order = torch.tensor(sequence[0]).long(), *sequence[1:]
    whole = count_symbols(symbols, alphabet=alphabet, order=order)
    first = count_symbols(symbols[: cut + order], alphabet=alphabet, order=order)
    rest = count_symbols(symbols[cut:], alphabet=alphabet, order=order)
    assert torch.equal(whole, first + rest)
    assert whole.shape == (alphabet**order, alphabet)
    assert whole.sum() == max(len(symbols) - order, 0)


def test_contexts_are_numbers_with_the_earliest_symbol_leading():
    counts = count_symbols(torch.tensor([2, 0, 1, 2, 0, 2]), alphabet=3, order=2)
    found = {(*divmod(row, 3), column) for row, column in counts.nonzero().tolist()}
    assert found == {(2, 0, 1), (0, 1, 2), (1, 2, 0), (2, 0, 2)}


@pytest.mark.parametrize("excess", [-1, 0, 1, 3, PIECE])
@pytest.mark.parametrize("order", [0, 3])
def test_pieces_are_counted_as_one(excess, order):
    symbols = torch.arange(PIECE + excess).remainder(7).remainder(3)
    packed = sum(
        3 ** (order - shift) * symbols[shift : len(symbols) - order + shift]
        for shift in range(order + 1)
    )
    counts = count_symbols(symbols, alphabet=3, order=order)
    assert torch.equal(counts.flatten(), packed.bincount(minlength=3 ** (order + 1)))


@pytest.mark.parametrize("dtype", [*INTEGERS, *UNSIGNED, torch.bool])
def test_every_integer_and_every_array_gives_the_same(dtype):
    bits = markov(1_000, same=0.7)
    expected = kt_code(bits.long(), alphabet=2, order=2)
    symbols = bits.to(dtype)
    array = symbols.numpy()
    array.flags.writeable = False
    for same in (symbols, symbols.view(50, 20), array, array.reshape(10, 100)):
        assert kt_code(same, alphabet=2, order=2) == expected
    assert kt_code(array[::-1], alphabet=2) == kt_code(symbols, alphabet=2)


@pytest.mark.parametrize("order", [0, 1, 5])
def test_of_nothing_the_code_is_empty(order):
    assert kt_code(torch.zeros(0, dtype=torch.bool), alphabet=2, order=order) == 0
    assert kt_code(np.zeros(0, dtype=np.uint8), alphabet=1, order=order) == 0
    assert kt_from_counts(torch.zeros(0, 4, dtype=torch.int64)) == 0


def test_one_symbol_needs_no_bits():
    assert kt_code(torch.zeros(1_000_003, dtype=torch.uint8), alphabet=1, order=30) == 0


def test_symbols_without_a_context_are_raw():
    assert kt_code(torch.tensor([3, 1]), alphabet=5, order=2) == 2 * math.log2(5)
    assert kt_code(torch.tensor([3, 1, 4]), alphabet=5, order=2) == pytest.approx(
        3 * math.log2(5)
    )


# Entropy


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_entropy_is_below_kt_by_half_a_logarithm_for_each_free_count(counts):
    n, k = sum(counts), len(counts)
    entropy = math.fsum(count * math.log2(n / count) for count in counts if count)
    excess = kt_from_counts(torch.tensor(counts)) - entropy
    assert -1e-6 <= excess <= (k - 1) / 2 * math.log2(n + 1) + k + 1e-6


def test_the_code_of_contexts_is_their_sum():
    counts = torch.tensor([[5, 1, 0], [0, 0, 0], [2, 2, 2]])
    assert kt_from_counts(counts) == pytest.approx(
        sum(kt_from_counts(row) for row in counts), rel=1e-12
    )


# Whole numbers


@given(st.integers(1, 2**70))
def test_elias_delta_is_its_formula_and_decodes(number):
    exponent = number.bit_length() - 1
    assert elias_delta_bits(number) == exponent + 1 + 2 * int(math.log2(exponent + 1))
    writer = Writer()
    writer.size(number - 1)
    assert Reader(writer.words()).size() == number - 1
    assert abs(bits_of(writer.words()) - elias_delta_bits(number)) <= 64


def test_elias_delta_satisfies_kraft():
    assert [elias_delta_bits(n) for n in (1, 2, 3, 4, 8, 16)] == [1, 4, 4, 5, 8, 9]
    assert sum(2.0 ** -elias_delta_bits(n) for n in range(1, 1 << 12)) <= 1


# What is refused


@pytest.mark.parametrize("bad", [-1, 3, 255, 2**40, -(2**40)])
@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize("length", [1, 9])
def test_a_symbol_outside_the_alphabet_is_refused(bad, order, length):
    symbols = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, bad])[-length:]
    with pytest.raises(ValueError, match=f"symbols must be 0 to 2, got {bad}$"):
        kt_code(symbols, alphabet=3, order=order)
    with pytest.raises(ValueError, match=f"symbols must be 0 to 2, got {bad}$"):
        kt_code(symbols.numpy(), alphabet=3, order=order)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64])
def test_floats_are_no_symbols(dtype):
    symbols = torch.zeros(3, dtype=dtype)
    with pytest.raises(TypeError, match="symbols must be integers, got"):
        kt_code(symbols, alphabet=2)
    with pytest.raises(TypeError, match="symbols must be integers, got"):
        kt_code(symbols.numpy(), alphabet=2)
    with pytest.raises(TypeError, match="counts must be integers, got"):
        kt_from_counts(symbols)


def test_lists_are_no_symbols():
    with pytest.raises(TypeError, match="must be a tensor or a numpy array, got list"):
        kt_code([0, 1], alphabet=2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("alphabet", "order"), [(2, 24), (2**24 + 1, 0), (2, 10**9), (4097, 1)]
)
def test_a_table_that_would_not_fit_is_refused(alphabet, order):
    message = rf"alphabet \*\* \(order \+ 1\) must be at most 2\^24, got {alphabet} \*\* {order + 1}$"
    with pytest.raises(ValueError, match=message):
        kt_code(torch.zeros(3, dtype=torch.int64), alphabet=alphabet, order=order)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alphabet": 0}, "alphabet must be at least 1, got 0"),
        ({"alphabet": 2, "order": -1}, "order must be at least 0, got -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        kt_code(torch.zeros(3, dtype=torch.int64), **settings)


def test_counts_that_count_nothing_are_refused():
    with pytest.raises(ValueError, match="counts must be at least 0, got -2"):
        kt_from_counts(torch.tensor([3, -2]))
    for shape in ((), (3, 0)):
        with pytest.raises(ValueError, match="counts must have an alphabet as their last"):
            kt_from_counts(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("number", [0, -3])
def test_elias_delta_starts_at_one(number):
    with pytest.raises(ValueError, match=f"number must be at least 1, got {number}"):
        elias_delta_bits(number)
