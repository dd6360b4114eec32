"""Streams of whole numbers are what their page says, and quantizing finds the best path."""

import sys
from collections import Counter
from functools import partial
from importlib.machinery import ModuleSpec
from itertools import count, product
from math import inf, log2
from random import Random
from re import escape
from types import ModuleType

import lattice_decoder
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Int32
from torch import Tensor

from momos.codec import STREAM_SYMBOLS, CorruptError, _lattice
from momos.codec.lattice import (
    AVX2,
    MEMORIES,
    Geometry,
    decode,
    encode,
    fits,
    native,
    quantize,
)

LARGEST = 2**31 - 1
TINY = 0.25  # smaller weights become 0
ROWS = st.tuples(st.integers(1, 12), st.integers(1, 5))  # inputs and kernel positions
PINNED = "3556fa0d50120a00009d5f20c100804042"
BY_SUBSET, BY_PARITY = lattice_decoder.BY_SUBSET, lattice_decoder.BY_PARITY


def encode_all(
    values: Int32[Tensor, " n"], geometry: Geometry, *, memory: int
) -> list[bytes]:
    """The streams of `values`, each of `STREAM_SYMBOLS` but the last."""
    return [
        encode(part, geometry.at(geometry.position + i * STREAM_SYMBOLS), memory=memory)
        for i, part in enumerate(values.split(STREAM_SYMBOLS))
        if len(part)
    ]


def next_state(state: int, index: int, memory: int) -> int:
    if not memory:
        return 0
    after = (state >> 1) ^ (BY_SUBSET[memory] >> 1 if state % 2 else 0)
    return after ^ (BY_PARITY[memory] >> 1 if index % 2 else 0)


def size_of(index: int, state: int, memory: int) -> int:
    return 2 * index - (state % 2 and index > 0) if memory else index


def path(indices: list[int], memory: int) -> list[int]:
    """The values that signed indices stand for on the trellis."""
    state, values = 0, []
    for index in indices:
        size = size_of(abs(index), state, memory)
        values.append(-size if index < 0 else size)
        state = next_state(state, abs(index), memory)
    return values


def tensor(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device="cpu")


def decoded(stream: bytes, n: int, geometry: Geometry, memory: int) -> list[int]:
    values = torch.empty(n, dtype=torch.int32, device="cpu")
    decode(stream, values, geometry, memory=memory)
    return values.tolist()


def reference(stream: bytes, n: int, geometry: Geometry, memory: int) -> list[int]:
    row, kernel, position = geometry.row, geometry.kernel, geometry.position
    return lattice_decoder.decode(
        stream, n, memory=memory, row=row, kernel=kernel, position=position
    )


def drawn(seed: int, n: int, spread: float) -> list[int]:
    random = Random(seed)
    return [round(random.gauss(0, spread)) for _ in range(n)]


# Streams


@settings(max_examples=40, deadline=None)
@given(
    memory=st.sampled_from(MEMORIES),
    row=ROWS,
    position=st.integers(0, 200),
    spread=st.sampled_from([0, 0.1, 0.7, 3, 20, 1e3, 1e6, 2**28]),
    n=st.integers(1, 90),
    seed=st.integers(0, 2**20),
)
def test_values_come_back_by_both_decoders(memory, row, position, spread, n, seed):
    geometry = Geometry(row[0] * row[1], row[1], position)
    limit = LARGEST if memory == 0 else 2**30
    values = path([max(-limit, min(limit, k)) for k in drawn(seed, n, spread)], memory)
    stream = encode(tensor(values), geometry, memory=memory)
    assert decoded(stream, n, geometry, memory) == values
    assert reference(stream, n, geometry, memory) == values


@pytest.mark.parametrize("memory", [0, 3, 8])
def test_long_streams_come_back(memory):
    """Counts are halved, means forget, and weights of contexts settle."""
    geometry = Geometry(72, 9, position=31)
    values = path(drawn(1, 3000, 2.5), memory)
    stream = encode(tensor(values), geometry, memory=memory)
    assert decoded(stream, 3000, geometry, memory) == values
    assert reference(stream, 3000, geometry, memory) == values


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("size", [0, 1, 2**30, LARGEST])
def test_one_value(memory, size):
    values = path([size // 2 if memory else size], memory)
    stream = encode(tensor(values), Geometry(1), memory=memory)
    assert decoded(stream, 1, Geometry(1), memory) == values


@pytest.mark.parametrize("memory", MEMORIES)
def test_all_instruction_sets_give_the_same_numbers_and_bytes(memory):
    weights = normal(6000, 9, 21)
    about = 0.3, 0.4, 0.1, 36, 9, 5  # rate weight, weights of sums, geometry
    found = []
    for module in (_lattice, native()):
        values = torch.empty(6000, dtype=torch.int32, device="cpu")
        memory_of = [t.view(torch.uint8).numpy() for t in (weights, values)]
        module.quantize(memory_of[0], 4, None, memory, *about, memory_of[1])
        stream = module.encode(memory_of[1], memory, 36, 9, 5)
        again = torch.empty_like(values)
        module.decode(stream, again.view(torch.uint8).numpy(), memory, 36, 9, 5)
        assert torch.equal(again, values)
        found.append((values.tolist(), stream))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("avx2", "built", "chosen"),
    [(True, True, "avx2"), (True, False, "portable"), (False, True, "portable")],
)
def test_the_module_is_the_best_that_the_processor_runs_and_that_was_built(
    monkeypatch, avx2, built, chosen
):
    other = ModuleType(AVX2)
    other.__spec__ = ModuleSpec(AVX2, None)
    monkeypatch.setitem(sys.modules, AVX2, other if built else None)
    monkeypatch.setattr(_lattice, "has_avx2", lambda: avx2)
    assert native.__wrapped__() is {"avx2": other, "portable": _lattice}[chosen]


def test_rare_large_values_among_zeros():
    values = [0] * 400
    values[7], values[100], values[399] = LARGEST, -LARGEST, 2**30
    stream = encode(tensor(values), Geometry(20), memory=0)
    assert decoded(stream, 400, Geometry(20), 0) == values
    assert reference(stream, 400, Geometry(20), 0) == values


@pytest.mark.parametrize("row", [1, 7, 1000, 1 << 40])
def test_rows_longer_than_the_values_take_no_memory(row):
    values = drawn(3, 300, 4)
    geometry = Geometry(row, position=row // 2)
    stream = encode(tensor(values), geometry, memory=0)
    assert decoded(stream, 300, geometry, 0) == values
    assert reference(stream, 300, geometry, 0) == values


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_streams_hold_2_to_20_values(more):
    values = (torch.arange(STREAM_SYMBOLS + more, device="cpu") % 3).int()
    geometry = Geometry(1024)
    streams = encode_all(values, geometry, memory=0)
    assert len(streams) == 1 + (more > 0)
    for part, stream, start in zip(
        values.split(STREAM_SYMBOLS), streams, count(0, STREAM_SYMBOLS), strict=False
    ):
        out = torch.empty_like(part)
        decode(stream, out, geometry.at(start), memory=0)
        assert torch.equal(out, part)


def test_the_bytes_of_a_stream_are_settled():
    values = path([0, 1, -1, 2, 0, -3, 40, 5, -1000, 0, 1, 1], 3)
    assert encode(tensor(values), Geometry(6, 3, 4), memory=3).hex() == PINNED


def test_columns_that_differ_take_fewer_bits_than_their_entropy():
    random = Random(5)
    spreads = [random.choice([0.3, 8]) for _ in range(64)]
    values = [round(random.gauss(0, spreads[i % 64])) for i in range(64 * 200)]
    usage = Counter(values)
    entropy = -sum(n * log2(n / len(values)) for n in usage.values())
    stream = encode(tensor(values), Geometry(64), memory=0)
    assert 8 * len(stream) < 0.85 * entropy


# What is refused


@pytest.mark.parametrize(
    ("values", "memory", "message"),
    [
        ([], 0, "a stream must have 1 to 2^20 values"),
        ([0, 3, 1], 3, "values must be a path of the trellis"),
        ([-(2**31)], 0, "values must be a path of the trellis"),
        ([1], 2, "memory must be 0, 3, 4, 5, 6 or 8"),
        ([0] * (STREAM_SYMBOLS + 1), 0, "a stream must have 1 to 2^20 values"),
    ],
)
def test_what_is_no_stream_cannot_be_encoded(values, memory, message):
    with pytest.raises(ValueError, match=f"^{escape(message)}$"):
        encode(tensor(values), Geometry(4), memory=memory)


def test_geometry_is_checked():
    message = "row must be a whole number of kernels, got row 10 and kernel 3"
    with pytest.raises(ValueError, match=message):
        Geometry(10, 3)
    with pytest.raises(ValueError, match="position must be at least 0, got -1"):
        Geometry(10, position=-1)
    assert Geometry.of((8, 4, 3, 3)) == Geometry(36, 9)
    assert Geometry.of((8,)) == Geometry(1)
    assert Geometry.of((8, 5)).at(7) == Geometry(5, 1, 7)


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=60), n=st.integers(1, 40), memory=st.sampled_from(MEMORIES))
def test_bytes_are_a_stream_or_refused(data, n, memory):
    """Whatever is decoded is what an encoder would write again, but for the start mean."""
    geometry = Geometry(6, 3, 2)
    try:
        values = decoded(data, n, geometry, memory)
    except CorruptError:
        with pytest.raises(lattice_decoder.Refused):
            reference(data, n, geometry, memory)
    else:
        assert reference(data, n, geometry, memory) == values
        again = encode(tensor(values), geometry, memory=memory)
        assert data[0] != again[0] or data == again


@pytest.mark.parametrize("memory", MEMORIES)
def test_damage_is_seen_or_harmless(memory):
    geometry, values = Geometry(18, 9), path(drawn(9, 200, 3), memory)
    stream = encode(tensor(values), geometry, memory=memory)
    for damaged in [stream[:-1], stream + b"\0", stream + b"abcd", b"\xff" + stream, b""]:
        with pytest.raises(CorruptError):
            decoded(damaged, 200, geometry, memory)
    with pytest.raises(CorruptError):
        decoded(stream, 199, geometry, memory)
    found = 0
    for at in range(1, len(stream)):
        mutant = stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :]
        try:
            found += decoded(mutant, 200, geometry, memory) != values
        except CorruptError:
            found += 1
    assert found == len(stream) - 1


def test_values_that_no_int32_holds_are_refused():
    stream = bytes([148]) + bytes([255] * 7) + bytes([127])
    with pytest.raises(CorruptError) as error:
        decoded(stream, 1, Geometry(1), 0)
    assert str(error.value) in (
        "a value must be below 2^31",
        "the state of a stream must end at 0",
    )


def test_values_that_fit_are_paths():
    values = tensor(path(drawn(2, 500, 2), 6))
    assert fits(values, memory=6)
    assert fits(values, memory=0)
    assert not fits(values + 1, memory=6)


# Quantizing: the definition


def log2_fixed(value: int) -> int:
    length = value.bit_length() - 1
    mantissa = value << 31 >> length
    result = length
    for _ in range(16):
        mantissa = mantissa * mantissa >> 31
        result = 2 * result + (mantissa >> 32)
        mantissa >>= mantissa >> 32
    return result


def costs_after(seen: list[list[int]], rate_weight: float, size: int) -> list[list[float]]:
    """What each index of each subset costs, from the indices of the last pass."""
    costs = []
    for indices in seen:
        usage, total = Counter(indices), len(indices)
        mean = (sum(indices) / total if total else 1) + 0.05
        ratio = mean / (1 + mean)
        law, row = 6 * 65536 * (1 - ratio), []
        for k in range(size):
            share = log2_fixed(max(1, int(usage[k] * 65536 + law)))
            bits = log2_fixed(int((total + 6) * 65536)) - share
            row.append(rate_weight * (bits / 65536 + (k > 0)))
            law *= ratio
        costs.append(row)
    return costs


def walk(weights, importance, costs, memory, indices) -> float:
    state, total = 0, 0.0
    for w, h, k in zip(weights, importance, indices, strict=True):
        total += h * (abs(w) - size_of(k, state, memory)) ** 2 + costs[state % 2][k]
        state = next_state(state, k, memory)
    return total


def best_path(weights, importance, costs, memory) -> tuple[float, tuple[int, ...]]:
    """By trying all: the numbers around a weight in either subset, and 0; 0 for tiny ones."""
    near = [
        sorted({0, *(int(abs(w) / (2 if memory else 1)) + d for d in range(3))})
        if abs(w) >= TINY
        else [0]
        for w in weights
    ]
    return min((walk(weights, importance, costs, memory, p), p) for p in product(*near))


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("rate_weight", [0.0, 0.02, 0.4, 3.0])
def test_the_best_of_all_paths_is_found(memory, rate_weight):
    random = Random(7)
    for n in (1, 2, 4, 5):
        weights = torch.tensor([random.gauss(0, 3) for _ in range(n)], device="cpu")
        importance = torch.tensor([random.uniform(0.1, 4) for _ in range(n)], device="cpu")
        values = quantize(
            weights, memory=memory, rate_weight=rate_weight, importance=importance
        )
        assert fits(values, memory=memory)
        exact, important = weights.double().tolist(), importance.double().tolist()
        size = int(max(map(abs, exact))) + 3
        costs = [[0.0] * size] * 2
        for _ in range(2 if rate_weight else 0):
            state, seen = 0, [[], []]
            for k in best_path(exact, important, costs, memory)[1]:
                seen[state % 2].append(k)
                state = next_state(state, k, memory)
            costs = costs_after(seen, rate_weight, size)
        indices = [(abs(v) + 1) // 2 if memory else abs(v) for v in values.tolist()]
        least = best_path(exact, important, costs, memory)[0]
        found = walk(exact, important, costs, memory, indices)
        assert found == pytest.approx(least, rel=1e-5)
        assert all(v * w >= 0 for v, w in zip(values.tolist(), exact, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_rate_is_the_nearest_number(dtype):
    weights = torch.randn(5000, generator=torch.Generator().manual_seed(0), dtype=dtype) * 9
    assert torch.equal(quantize(weights, memory=0, rate_weight=0.0), weights.round().int())


def test_rate_makes_streams_shorter_and_more_states_make_errors_smaller():
    weights = 3 * torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    geometry, scores = Geometry(100), []
    for memory, unit in ((0, 1.0), (3, 0.65), (6, 0.65), (8, 0.65)):
        scaled = weights / unit
        plain = quantize(scaled, memory=memory, rate_weight=0.0)
        values = quantize(scaled, memory=memory, rate_weight=0.1 / unit**2)
        bits = 8 * len(encode(values, geometry, memory=memory)) / len(weights)
        assert bits < 8 * len(encode(plain, geometry, memory=memory)) / len(weights) - 0.01
        error = float((weights - values * unit).double().square().mean())
        scores.append(bits + log2(error) / 2)
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[1] > 0.12


def test_the_scalar_rule_is_at_least_as_good_as_two_candidates():
    """Costs after the passes are known from the numbers; any two candidates do no better."""
    weights = 1.3 * torch.randn(4000, generator=torch.Generator().manual_seed(2))
    values = quantize(weights, memory=0, rate_weight=0.3).double()
    usage = Counter(values.abs().long().tolist())
    bits = {v: -log2(n / len(weights)) + (v > 0) for v, n in usage.items()}

    near = weights.double().round()
    inner = near - near.sign()

    def costs(numbers: Tensor) -> Tensor:
        rate = [bits.get(v, inf) for v in numbers.abs().long().tolist()]
        return (weights - numbers).square() + 0.3 * torch.tensor(rate, device="cpu")

    two = torch.where(costs(inner) < costs(near), inner, near)
    assert float(costs(values).sum()) <= 1.002 * float(costs(two).sum())


def test_importance_says_which_errors_count():
    weights = torch.randn(4000, generator=torch.Generator().manual_seed(3)) * 2
    importance = torch.ones(4000, device="cpu")
    importance[::2] = 20.0
    values = quantize(weights, memory=3, rate_weight=1.0, importance=importance)
    errors = (weights - values).square()
    assert float(errors[::2].mean()) < 0.8 * float(errors[1::2].mean())


def test_each_stream_has_its_own_path():
    weights = torch.randn(STREAM_SYMBOLS + 4096, generator=torch.Generator().manual_seed(4))
    values = quantize(weights, memory=3, rate_weight=0.0)
    alone = quantize(weights[STREAM_SYMBOLS:].clone(), memory=3, rate_weight=0.0)
    assert torch.equal(values[STREAM_SYMBOLS:], alone)
    assert fits(values, memory=3)


# Quantizing: errors that cancel


def normal(n: int, spread: float, seed: int) -> Tensor:
    return spread * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def sums_of_errors(weights: Tensor, values: Tensor, size: int, position: int = 0) -> Tensor:
    """Of groups of `size`, the first of which began `position` values earlier."""
    groups = (torch.arange(len(weights), device="cpu") + position) // size
    sums = torch.zeros(int(groups[-1]) + 1, dtype=torch.float64, device="cpu")
    return sums.index_add(0, groups, values.double() - weights.double())


def balanced_cost(weights, values, geometry, kernel_weight, row_weight) -> float:
    kernels, rows = (
        sums_of_errors(weights, values, size, geometry.position)
        for size in (geometry.kernel, geometry.row)
    )
    errors = values.double() - weights.double()
    return float(
        errors.square().sum()
        + kernel_weight * kernels.square().sum()
        + row_weight * rows.square().sum()
    )


def candidates(w: float, state: int, memory: int) -> list[int]:
    """Indices next to a weight; 0 instead of the even one if it is nearer."""
    if not memory or w == 0:
        return [0] if w == 0 else [int(abs(w)), int(abs(w)) + 1]
    below = (int(abs(w)) + state % 2) // 2
    odd, even = below | 1, below + below % 2
    return [min(0, even, key=lambda k: abs(abs(w) - size_of(k, state, memory))), odd]


def balanced_reference(weights, importance, geometry, memory, factors) -> list[int]:
    """The definition without a rate: each state keeps the best path into it, and its sums."""
    sizes, paths, old = (geometry.kernel, geometry.row), {0: (0.0, (0.0, 0.0), [])}, [0, 0]
    for i, (w, h) in enumerate(zip(weights, importance, strict=True)):
        ends = [
            min(n - 1 - (geometry.position + i) % n, len(weights) - 1 - i) for n in sizes
        ]
        new = [f / (1 + f * n) for f, n in zip(factors, ends, strict=True)]
        found = {}
        for state, (cost, sums, values) in paths.items():
            for k in candidates(w, state, memory):
                value = size_of(k, state, memory) * (1 if w >= 0 else -1)
                after = [s + value - w for s in sums]
                total = cost + h * (value - w) ** 2
                total += sum(f * s * s for f, s in zip(new, after, strict=True))
                total -= sum(f * s * s for f, s in zip(old, sums, strict=True))
                kept = [s if n else 0.0 for s, n in zip(after, ends, strict=True)]
                to = next_state(state, k, memory)
                if to not in found or total < found[to][0]:
                    found[to] = (total, kept, [*values, value])
        paths, old = found, new
    return min(paths.values())[2]


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(
    "geometry", [Geometry(18, 9), Geometry(12, 4, 7), Geometry(200, 2)]
)
def test_paths_with_sums_are_those_of_the_definition(memory, geometry):
    weights, importance = normal(60, 3, 11), normal(60, 1, 12).abs() + 0.2
    weights[[3, 20, 21]] = 0
    values = quantize(
        weights,
        memory=memory,
        rate_weight=0.0,
        importance=importance,
        geometry=geometry,
        kernel_weight=0.4,
        row_weight=0.15,
    )
    expected = balanced_reference(
        weights.tolist(), importance.tolist(), geometry, memory, (0.4, 0.15)
    )
    assert values.tolist() == expected


@pytest.mark.parametrize("memory", MEMORIES)
def test_without_weights_a_geometry_changes_nothing(memory):
    weights = normal(3000, 2, 13)
    plain = quantize(weights, memory=memory, rate_weight=0.2)
    same = quantize(weights, memory=memory, rate_weight=0.2, geometry=Geometry(90, 9, 4))
    ones = quantize(
        weights,
        memory=memory,
        rate_weight=0.2,
        geometry=Geometry(1),
        kernel_weight=0.5,
        row_weight=0.5,
    )
    assert torch.equal(plain, same)
    assert torch.equal(plain, ones)  # there is nothing to sum


@pytest.mark.parametrize("memory", MEMORIES)
def test_errors_of_kernels_and_rows_cancel(memory):
    weights, geometry = normal(14_400, 2.5, 14), Geometry(144, 9)
    weights[::7] = 0
    plain = quantize(weights, memory=memory, rate_weight=0.05)
    values = quantize(
        weights,
        memory=memory,
        rate_weight=0.05,
        geometry=geometry,
        kernel_weight=0.3,
        row_weight=0.1,
    )
    assert fits(values, memory=memory)
    assert not values[::7].any()

    def total(found: Tensor, size: int) -> float:
        return float(sums_of_errors(weights, found, size).square().sum())

    assert total(values, 9) < 0.45 * total(plain, 9)
    assert total(values, 144) < 0.2 * total(plain, 144)
    assert total(values, 1) < 1.15 * total(plain, 1)


@pytest.mark.parametrize("memory", MEMORIES)
def test_few_weights_cost_less_with_sums(memory):
    geometry, plain, balanced = Geometry(12, 4, 5), 0.0, 0.0
    for seed in range(30):
        weights = normal(11, 2, seed)
        for kernel_weight, row_weight in ((0.3, 0.1), (1.0, 0.0), (0.0, 1.0)):
            values = quantize(
                weights,
                memory=memory,
                rate_weight=0.0,
                geometry=geometry,
                kernel_weight=kernel_weight,
                row_weight=row_weight,
            )
            without = quantize(weights, memory=memory, rate_weight=0.0)
            balanced += balanced_cost(weights, values, geometry, kernel_weight, row_weight)
            plain += balanced_cost(weights, without, geometry, kernel_weight, row_weight)
    assert balanced < 0.9 * plain


@pytest.mark.parametrize("memory", [0, 3])
def test_sums_start_anew_in_each_stream(memory):
    weights, geometry = normal(STREAM_SYMBOLS + 4096, 1, 15), Geometry(45, 9, position=6)
    assert (STREAM_SYMBOLS + 6) % 9  # the second stream begins within a kernel
    quantized = [
        quantize(
            part,
            memory=memory,
            rate_weight=0.0,
            geometry=geometry.at(6 + begin),
            kernel_weight=0.3,
            row_weight=0.1,
        )
        for begin, part in (
            (0, weights),
            (STREAM_SYMBOLS, weights[STREAM_SYMBOLS:].clone()),
        )
    ]
    assert torch.equal(quantized[0][STREAM_SYMBOLS:], quantized[1])


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("row_weight", [0.0, 0.1, 1e3])
def test_tiny_weights_become_zero_whatever_the_sums_and_the_path(memory, row_weight):
    """Another number would be many times as large, or of another sign."""
    weights = normal(2000, 3, 11)
    small = torch.rand(2000, generator=torch.Generator().manual_seed(12)) < 0.5
    weights[small] *= 1e-2
    tiny = weights.abs() < TINY
    values = quantize(
        weights,
        memory=memory,
        rate_weight=0.1,
        geometry=Geometry(40, 4),
        kernel_weight=row_weight,
        row_weight=row_weight,
    )
    assert fits(values, memory=memory)
    assert small[tiny].any()
    assert not values[tiny].any()
    assert values[~tiny].double().square().mean() > 1


@pytest.mark.parametrize("memory", [0, 3, 8])
def test_sums_of_huge_errors_keep_zeros(memory):
    weights = torch.tensor([2.0**30, 0.0, -(2.0**30), 3.0] * 50, device="cpu")
    values = quantize(
        weights,
        memory=memory,
        rate_weight=1e20,
        importance=torch.zeros(200, device="cpu"),
        geometry=Geometry(100, 10),
        kernel_weight=1e-12,
        row_weight=1e6,
    )
    assert fits(values, memory=memory)
    assert not values[1::4].any()


@pytest.mark.parametrize("weight", [-0.1, float("nan"), 2e6])
def test_weights_of_sums_are_checked(weight):
    quantized = partial(quantize, normal(9, 1, 0), memory=3, rate_weight=0.1)
    with pytest.raises(ValueError, match=f"^kernel_weight must be 0 to 1e6, got {weight}$"):
        quantized(geometry=Geometry(9, 3), kernel_weight=weight)
    with pytest.raises(ValueError, match=f"^row_weight must be 0 to 1e6, got {weight}$"):
        quantized(geometry=Geometry(9, 3), row_weight=weight)


def test_weights_of_sums_need_a_geometry():
    quantized = partial(quantize, normal(9, 1, 0), memory=3, rate_weight=0.1)
    for wanted in (
        partial(quantized, kernel_weight=0.1),
        partial(quantized, row_weight=0.1),
    ):
        with pytest.raises(
            ValueError, match=r"^kernel_weight and row_weight need a geometry"
        ):
            wanted()


# Quantizing: numbers of any size, and what is refused


@pytest.mark.parametrize("size", [1e-30, 1e5, 2.0**30])
@pytest.mark.parametrize("memory", [0, 3, 8])
def test_numbers_of_any_size(size, memory):
    weights = size * torch.tensor([1.0, -0.7, 0.0, 0.3], dtype=torch.float64, device="cpu")
    values = quantize(weights, memory=memory, rate_weight=0.1)
    assert fits(values, memory=memory)
    assert float((weights - values).abs().max()) <= 4 + min(size, 2)


@pytest.mark.parametrize(
    ("weights", "importance", "rate_weight", "message"),
    [
        ([inf], None, 0.1, "weights must be finite and below 2^31 - 8 steps"),
        ([float("nan")], None, 0.1, "weights must be finite and below 2^31 - 8 steps"),
        ([2.0**31], None, 0.1, "weights must be finite and below 2^31 - 8 steps"),
        ([1.0], [-1.0], 0.1, "importance must be 0 to 1e20"),
        ([1.0], [1.0, 2.0], 0.1, "weights, importance and values must be as many"),
        ([1.0], None, -0.1, "rate_weight must be 0 to 1e20"),
    ],
)
def test_what_cannot_be_quantized(weights, importance, rate_weight, message):
    important = None if importance is None else torch.tensor(importance, device="cpu")
    with pytest.raises(ValueError, match=f"^{escape(message)}$"):
        quantize(
            torch.tensor(weights, device="cpu"),
            memory=3,
            rate_weight=rate_weight,
            importance=important,
        )


def test_other_dtypes_are_refused():
    """Their memory would be read as something else."""
    with pytest.raises(ValueError, match=r"^values must be int32, got torch.int64$"):
        encode(torch.zeros(3, dtype=torch.int64), Geometry(1), memory=0)
    with pytest.raises(
        ValueError, match=r"^weights must be float32 or float64, got torch.bfloat16$"
    ):
        quantize(torch.zeros(3, dtype=torch.bfloat16), memory=0, rate_weight=0.1)
    with pytest.raises(ValueError, match=r"^values must be contiguous and on the CPU$"):
        fits(torch.zeros(6, dtype=torch.int32)[::2], memory=0)


def test_no_weights_have_no_values():
    assert quantize(torch.empty(0), memory=3, rate_weight=0.1).shape == (0,)
    assert encode_all(tensor([]), Geometry(1), memory=3) == []
