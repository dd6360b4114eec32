"""Streams are what docs/format.md §3 says, byte for byte, and nothing else is read."""

from collections import Counter
from itertools import accumulate, count
from math import log2
from random import Random
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from momos.codec import RATES, STREAM_SYMBOLS, CorruptError, Model, Stream, streams
from momos.codec.streams import decode_parts, encode_all

# Widths, each with the largest alphabet that it holds.
WIDTHS = {
    torch.uint8: 1 << 8,
    torch.int16: 1 << 15,
    torch.uint16: 1 << 16,
    torch.int32: 1 << 31,
}


# The definition: docs/format.md §3 in plain integers, and no thought of time


def table(weights: list[int]) -> tuple[int, list[int]]:
    bits, t = min(28, (len(weights) - 1).bit_length() + 6), 0
    while True:
        shares = [w and max(1, (w + (1 << t) // 2) >> t) for w in weights]
        if sum(shares) <= 1 << bits:
            sums = [0, *accumulate(shares)]
            return bits, [(part << bits) // sums[-1] for part in sums]
        t += 1


def tables(weights: list[int], before: list[int], rate: int):
    """The table of each next symbol, when `before` holds those before it."""
    now, stop = table(weights), max(64, len(weights) // 4)
    for i in count():
        if rate and i == stop:
            seen, stop = Counter(before[:i]), stop + stop // 2
            now = table([w + (seen[j] << (rate - 1)) for j, w in enumerate(weights)])
        yield now


def encode_reference(weights: list[int], symbols: list[int], rate: int) -> bytes:
    x, words, steps = 0, b"", tables(weights, symbols, rate)
    for j, (b, c) in reversed([(j, next(steps)) for j in symbols]):
        f = c[j + 1] - c[j]
        if x >= f << (63 - b):
            x, words = x >> 32, (x % 2**32).to_bytes(4, "little") + words
        x = (x // f << b) + x % f + c[j]
    return x.to_bytes(8 if words else (x.bit_length() + 7) // 8, "little") + words


def decode_reference(weights: list[int], data: bytes, n: int, rate: int) -> list[int]:
    x, at, symbols = int.from_bytes(data[:8], "little"), 8, []
    for _, (b, c) in zip(range(n), tables(weights, symbols, rate), strict=False):
        r = x % 2**b
        j = next(j for j in range(len(weights)) if c[j] <= r < c[j + 1])
        x = (c[j + 1] - c[j]) * (x >> b) + r - c[j]
        if x < 2**31 and at < len(data):
            x, at = (x << 32) + int.from_bytes(data[at : at + 4], "little"), at + 4
        symbols.append(j)
    assert x == 0
    assert at >= len(data)
    return symbols


# Alphabets and what is written in them


def alphabet(size: int, kind: str, seed: int) -> Tensor:
    random = np.random.default_rng(seed)
    weights = {
        "uniform": lambda: np.ones(size),
        "counts": lambda: random.exponential(3, size),  # many are 0
        "powers": lambda: 2.0 ** random.integers(0, 43, size),
        "one": lambda: np.zeros(size),
        "huge": lambda: np.ones(size),
    }[kind]()
    weights = torch.from_numpy(weights.astype(np.int64))
    if kind in ("huge", "one") or not weights.any():
        weights[random.integers(size)] = 1 << 55
    return weights


def text(weights: Tensor, length: int, kind: str, seed: int) -> Tensor:
    """Symbols that have a weight: as usual as that says, or all alike, or one."""
    random = np.random.default_rng(seed)
    used = weights.nonzero()[:, 0].numpy()
    shares = weights.numpy()[used] / weights.numpy().sum()
    at = {
        "usual": lambda: random.choice(len(used), length, p=shares),
        "alike": lambda: random.integers(len(used), size=length),
        "skewed": lambda: (len(used) * random.random(length) ** 8).astype(np.int64),
        "last": lambda: np.full(length, len(used) - 1),
    }[kind]()
    return torch.tensor(used[at].tolist(), dtype=torch.int64)


SEEDS = st.integers(0, 1 << 30)


def up_to(most: int) -> st.SearchStrategy[int]:
    """All numbers alike: left to itself, hypothesis is fond of the smallest."""
    return SEEDS.map(lambda seed: Random(seed).randint(1, most))


SIZES = st.sampled_from([1, 2, 255, 256, 257, 5000]) | up_to(40) | up_to(5000)
ALPHABETS = st.builds(
    alphabet, SIZES, st.sampled_from(["uniform", "counts", "powers", "one", "huge"]), SEEDS
)
LENGTHS = st.sampled_from([0, 1, 63, 64, 65, 3000]) | up_to(10) | up_to(3000)
KINDS = st.sampled_from(["usual", "alike", "skewed", "last"])


@st.composite
def texts(draw) -> tuple[Tensor, Tensor]:
    weights = draw(ALPHABETS)
    return weights, text(weights, draw(LENGTHS), draw(KINDS), draw(SEEDS))


def as_narrow(symbols: Tensor, size: int) -> Tensor:
    return symbols.to(next(dtype for dtype, most in WIDTHS.items() if size <= most))


def decoded(model: Model, stream: Stream, like: Tensor) -> Tensor:
    symbols = torch.empty_like(like)
    model.decode(stream, symbols)
    return symbols


# What is written is read


@pytest.mark.parametrize("dtype", WIDTHS)
@given(case=texts(), rate=st.sampled_from(RATES))
@settings(max_examples=50)
def test_what_is_encoded_is_decoded(dtype, case, rate):
    weights, symbols = case
    if len(weights) > WIDTHS[dtype]:
        weights = weights[: WIDTHS[dtype]].clone()
        weights[0] += 1
        symbols = symbols[symbols < len(weights)]
    model, symbols = Model(weights), symbols.to(dtype)
    assert torch.equal(
        decoded(model, model.encode(symbols, rate=rate), symbols).int(), symbols.int()
    )


@pytest.mark.parametrize("rate", [0, 1, 12, 31])
@pytest.mark.parametrize("size", [2, 300, 70_000])
def test_the_longest_stream_is_decoded(rate, size):
    weights = alphabet(size, "counts", 1)
    model, symbols = Model(weights), text(weights, STREAM_SYMBOLS, "usual", 2).int()
    assert torch.equal(decoded(model, model.encode(symbols, rate=rate), symbols), symbols)


@given(case=texts(), rate=st.sampled_from(RATES))
def test_the_compiled_stream_is_that_of_the_definition(case, rate):
    weights, symbols = case
    stream = Model(weights).encode(symbols.int(), rate=rate)
    assert stream.data == encode_reference(weights.tolist(), symbols.tolist(), rate)


@given(case=texts(), rate=st.sampled_from(RATES))
@settings(max_examples=30)
def test_the_definition_decodes_the_compiled_stream(case, rate):
    weights, symbols = case
    symbols = symbols[:300]
    data = Model(weights).encode(symbols.int(), rate=rate).data
    assert decode_reference(weights.tolist(), data, len(symbols), rate) == symbols.tolist()


def test_every_rate_is_decoded():
    weights = alphabet(600, "counts", 3)
    model, symbols = Model(weights), text(weights, 5000, "skewed", 4).short()
    for rate in RATES:
        assert torch.equal(
            decoded(model, model.encode(symbols, rate=rate), symbols), symbols
        )


# Length


def ideal(weights: Tensor, symbols: Tensor, rate: int) -> float:
    """Bits, when each symbol takes what its table gives it."""
    steps = tables(weights.tolist(), symbols.tolist(), rate)
    shares = (
        (b, c[j + 1] - c[j]) for j, (b, c) in zip(symbols.tolist(), steps, strict=False)
    )
    return sum(b - log2(share) for b, share in shares)


@given(case=texts(), rate=st.sampled_from(RATES))
@settings(max_examples=50)
def test_a_stream_is_a_few_bytes_longer_than_ideal_at_most(case, rate):
    weights, symbols = case
    model, symbols = Model(weights), symbols.int()
    bits = ideal(weights, symbols, rate)
    assert 8 * len(model.encode(symbols, rate=rate).data) <= bits * (1 + 1e-4) + 64
    assert abs(model.cost(symbols, rate=rate) - bits) <= 16 + 1e-6 * bits


@pytest.mark.parametrize("size", [1 << 16, (1 << 22) + 1])
def test_a_stream_of_a_large_alphabet_is_as_short(size):
    model = Model.uniform(size)
    symbols = torch.randint(size, (1 << 17,), generator=torch.Generator().manual_seed(0))
    bits = model.cost(symbols.int(), rate=0)
    assert abs(bits - log2(size) * (1 << 17)) <= 1e-2 * bits
    assert 8 * len(model.encode(symbols.int(), rate=0).data) <= 1.0005 * bits + 64


@given(case=texts())
def test_the_best_rate_is_never_worse_than_none(case):
    weights, symbols = case
    model, symbols = Model(weights), as_narrow(symbols, len(weights))
    best = model.encode_best(symbols)
    assert len(best.data) <= len(model.encode(symbols, rate=0).data) + 8
    assert torch.equal(decoded(model, best, symbols).int(), symbols.int())


@pytest.mark.parametrize("size", [2, 17, 256, 4000])
def test_a_stream_learns_what_is_usual_in_it(size):
    usual = alphabet(size, "powers", 5)
    symbols = text(usual, 100_000, "usual", 6).int()
    learned, told = (
        Model.uniform(size).encode_best(symbols),
        Model(usual).cost(symbols, rate=0),
    )
    assert learned.rate > 0
    assert 8 * len(learned.data) <= 1.05 * told + 12 * size + 600


@pytest.mark.parametrize("size", [2, 17, 256, 4000])
def test_a_stream_that_is_as_usual_as_it_was_told_need_not_learn(size):
    usual = alphabet(size, "counts", 7)
    symbols = text(usual, 20_000, "usual", 8).int()
    assert Model(usual * (1 << 30)).encode_best(symbols).rate == 0


def test_a_stream_of_few_symbols_takes_no_more_bytes_than_they_need():
    model = Model.uniform(256)
    for length in range(1, 8):
        symbols = torch.full((length,), 255, dtype=torch.uint8)
        assert len(model.encode(symbols, rate=0).data) <= length + 1


@pytest.mark.parametrize("memory", [np.zeros(0, np.int32), np.zeros(12, np.int32)[::12]])
def test_symbols_are_contiguous_whatever_the_stride_of_less_than_two(memory):
    model, symbols = Model.uniform(2), torch.from_numpy(memory)
    assert symbols.is_contiguous()
    assert model.encode(symbols, rate=0).data == b""


# What is refused


@given(
    weights=ALPHABETS,
    data=st.binary(max_size=64)
    | st.integers(1, 100).flatmap(
        lambda n: st.binary(min_size=8 + 4 * n, max_size=8 + 4 * n)
    ),
    length=LENGTHS,
    rate=st.sampled_from(RATES),
)
@settings(max_examples=300)
def test_bytes_that_no_encoder_wrote_are_refused_or_are_symbols(
    weights, data, length, rate
):
    model, symbols = Model(weights), torch.zeros(length, dtype=torch.int32)
    try:
        model.decode(Stream(rate, data), symbols)
    except CorruptError:
        return
    assert len(model.encode(symbols, rate=rate).data) <= len(data)


@given(
    case=texts(),
    rate=st.sampled_from(RATES),
    at=st.integers(0, 1 << 30),
    change=st.sampled_from(["bit", "cut", "more", "length"]),
)
def test_a_changed_stream_is_refused_or_other_symbols(case, rate, at, change):
    weights, symbols = case
    model, symbols = Model(weights), symbols.int()
    data = bytearray(model.encode(symbols, rate=rate).data)
    wanted = len(symbols)
    if change == "bit" and data:
        data[at % len(data)] ^= 1 << at % 8
    elif change == "cut":
        del data[at % (len(data) + 1) :]
    elif change == "more":
        data += bytes(at % 13)
    elif change == "length":
        wanted = at % 5000
    found = torch.zeros(wanted, dtype=torch.int32)
    try:
        model.decode(Stream(rate, bytes(data)), found)
    except CorruptError:
        return
    assert bool((weights[found.long()] > 0).all())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(9), "a stream longer than 8 bytes must be whole words"),
        (b"\xff" * 8, r"the state of a stream must be below 2\^63"),
        (bytes(7) + b"\x01" + bytes(80), "a stream must end with its last symbol"),
        (bytes(12), r"a state before words must be 2\^31 at least"),
        (b"\x01\x00", "a stream of at most 8 bytes must not end with a zero"),
        (b"\x01\x02\x03\x04\x05\x06", "the state of a stream must end at 0"),
    ],
)
def test_a_corrupt_stream_says_what_is_wrong(data, message):
    with pytest.raises(CorruptError, match=message):
        Model.uniform(256).decode(Stream(0, data), torch.zeros(3, dtype=torch.uint8))


@pytest.mark.parametrize("symbols", [[0, 1], [3], [-1], [1 << 20]])
def test_a_symbol_without_a_weight_is_refused(symbols):
    model = Model(torch.tensor([5, 0, 1]))
    for work in (model.encode, model.cost):
        with pytest.raises(ValueError, match="symbols must have a weight above 0"):
            work(torch.tensor(symbols, dtype=torch.int32), rate=0)


def test_more_symbols_than_a_stream_holds_are_refused():
    model, symbols = Model.uniform(2), torch.zeros(STREAM_SYMBOLS + 1, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"a stream holds 2\^20 symbols at most"):
        model.encode(symbols, rate=0)
    with pytest.raises(CorruptError, match=r"a stream holds 2\^20 symbols at most"):
        model.decode(Stream(0, b""), symbols)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(257, torch.uint8), (65_537, torch.int16), (65_537, torch.uint16), (2, torch.int64)],
)
def test_symbols_narrower_than_the_alphabet_or_wider_than_a_word_are_refused(size, dtype):
    model, symbols = Model.uniform(size), torch.zeros(3).to(dtype)
    message = "symbols must be as wide as the alphabet needs"
    with pytest.raises(ValueError, match=message):
        model.encode(symbols, rate=0)
    with pytest.raises(ValueError, match=message):
        model.decode(Stream(0, b""), symbols)


def test_symbols_apart_in_memory_are_refused():
    with pytest.raises(ValueError, match="symbols must be contiguous and on the CPU"):
        Model.uniform(2).encode(torch.zeros(6, dtype=torch.uint8)[::2], rate=0)


@pytest.mark.parametrize("rate", [-1, 32, 1000])
def test_a_rate_that_there_is_not_is_refused(rate):
    model, symbols = Model.uniform(2), torch.zeros(3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="rate must be 0 to 31"):
        model.encode(symbols, rate=rate)
    with pytest.raises(CorruptError, match="rate must be 0 to 31"):
        model.decode(Stream(rate, b""), symbols)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], r"a model must have 1 to 2\*\*28 symbols, got 0"),
        ([-1, 2], r"weights must be at least 0 and below 2\*\*56, got -1 to 2"),
        ([1 << 56], rf"below 2\*\*56, got {1 << 56} to {1 << 56}"),
        ([1 << 55, 1 << 55], r"weights must sum to less than 2\^56"),
        ([0, 0], "one weight at least must be above 0"),
    ],
)
def test_weights_that_no_model_has_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        Model(torch.tensor(weights, dtype=torch.int64))


# Longer sequences


@given(case=texts(), most=st.integers(1, 1000))
@settings(max_examples=50)
def test_sequences_are_cut_into_streams(case, most):
    weights, symbols = case
    model, symbols = Model(weights), symbols.int()
    with patch.object(streams, "STREAM_SYMBOLS", most):
        parts = encode_all(model, symbols)
        assert len(parts) == -(-len(symbols) // most)
        found = list(decode_parts(model, parts, len(symbols), symbols.dtype))
        assert torch.equal(torch.cat([symbols[:0], *found]), symbols)
        for wrong in ([*parts, Stream(0, b"")], parts[1:] if parts else [Stream(0, b"")]):
            message = f"there must be {len(parts)} streams, got {len(wrong)}"
            with pytest.raises(CorruptError, match=message):
                list(decode_parts(model, wrong, len(symbols), symbols.dtype))


def test_a_sequence_is_cut_where_a_stream_is_full():
    model, symbols = Model.uniform(5), torch.arange(STREAM_SYMBOLS + 7).remainder(5).byte()
    parts = encode_all(model, symbols)
    assert len(parts) == 2
    found = torch.empty_like(symbols)
    model.decode(parts[0], found[:STREAM_SYMBOLS])
    model.decode(parts[1], found[STREAM_SYMBOLS:])
    assert torch.equal(found, symbols)
    assert len(encode_all(model, symbols[:STREAM_SYMBOLS])) == 1
    assert encode_all(model, symbols[:0]) == []
