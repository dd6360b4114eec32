"""Usage is rounded, coded as docs/format.md §4 says, and only where that makes a file shorter."""

from math import lgamma, log, log2

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from momos.codec import (
    SIGNIFICANT,
    CorruptError,
    Model,
    choose_usage_table,
    read_usage_table,
)
from momos.codec.streams import encode_all, round_usage

COUNTS = st.integers(0, 3) | st.integers(0, 1 << 20) | st.integers(0, (1 << 47) - 1)
USAGES = st.lists(COUNTS, min_size=1, max_size=200).filter(any).map(torch.tensor)


def num_tokens(significant: int) -> int:
    return 1 + 48 * 2 ** (significant - 1)


def meaning(token: int, t: int) -> tuple[int, int]:
    """The usage that a token means, and the remainder of the division (docs/format.md §4)."""
    if token == 0:
        return 0, 0
    g, low = divmod(token - 1, 1 << (t - 1))
    return divmod(((1 << (t - 1)) + low) << g, 1 << (t - 1))


def coded(tokens: list[int], significant: int) -> list:
    return encode_all(
        Model.uniform(num_tokens(significant)), torch.tensor(tokens, dtype=torch.int16)
    )


def draws(k: int, m: int, seed: int = 0) -> Tensor:
    """How often each of k motifs of exponential shares occurs among m blocks."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.empty(k).exponential_(generator=generator)
    blocks = torch.multinomial(shares, m, replacement=True, generator=generator)
    return torch.bincount(blocks, minlength=k)


def bits_of_indices(usage: Tensor, weights: Tensor) -> float:
    pairs = zip(usage.tolist(), weights.tolist(), strict=True)
    total = int(weights.sum())
    return sum(u * log2(total / w) for u, w in pairs if u)


# Rounding


@given(usage=USAGES, significant=st.sampled_from(SIGNIFICANT))
def test_usage_is_rounded_to_the_nearest_and_halves_upwards(usage, significant):
    for u, rounded in zip(
        usage.tolist(), round_usage(usage, significant).tolist(), strict=True
    ):
        step = 1 << max(0, u.bit_length() - significant)
        lower, upper = u // step * step, u // step * step + step
        assert (
            rounded == (lower if u - lower < upper - u else upper) or rounded == u == lower
        )


def test_halves_are_rounded_upwards():
    usage = torch.tensor([0, 1, 5, 9, 10, 11, 12, 13, 14, 15, 22])
    assert round_usage(usage, 2).tolist() == [0, 1, 6, 8, 12, 12, 12, 12, 16, 16, 24]


# The table


@given(usage=USAGES)
def test_a_table_is_read_as_it_was_chosen(usage):
    table = choose_usage_table(usage)
    if table is None:
        return
    again = read_usage_table(table.streams, len(usage), significant=table.significant)
    assert torch.equal(again.usage, table.usage)
    assert again.significant == table.significant
    assert torch.equal(table.usage, round_usage(usage, table.significant))
    assert torch.equal(table.usage > 0, usage > 0)


@given(
    significant=st.sampled_from(SIGNIFICANT),
    usage=USAGES,
)
def test_tokens_mean_what_the_format_says(significant, usage):
    tokens = [
        token
        for token in range(num_tokens(significant))
        if meaning(token, significant)[0] in usage.tolist()
        and not meaning(token, significant)[1]
    ] + [1]
    table = read_usage_table(
        coded(tokens, significant), len(tokens), significant=significant
    )
    assert table.usage.tolist() == [meaning(token, significant)[0] for token in tokens]


@pytest.mark.parametrize("significant", SIGNIFICANT)
def test_a_token_is_read_if_it_means_a_whole_number(significant):
    for token in range(num_tokens(significant)):
        usage, rest = meaning(token, significant)
        streams = coded([token, 1], significant)
        if rest:
            with pytest.raises(CorruptError, match="every usage must have its one token"):
                read_usage_table(streams, 2, significant=significant)
        else:
            table = read_usage_table(streams, 2, significant=significant)
            assert table.usage.tolist() == [usage, 1]


def test_a_table_of_no_use_is_refused():
    with pytest.raises(CorruptError, match="one motif at least must be used"):
        read_usage_table(coded([0] * 100, 3), 100, significant=3)


@given(data=st.binary(max_size=60), k=st.integers(1, 200), t=st.sampled_from(SIGNIFICANT))
def test_a_table_of_any_bytes_is_refused_or_one(data, k, t):
    streams = coded([1], t)
    streams = [type(streams[0])(len(data) % 32, data)]
    try:
        table = read_usage_table(streams, k, significant=t)
    except CorruptError:
        return
    assert table.usage.shape == (k,)
    assert torch.equal(round_usage(table.usage, t), table.usage)


def test_a_table_for_fewer_motifs_is_refused():
    table = choose_usage_table(draws(300, 9000))
    for k in (1, 100, 299):
        with pytest.raises(CorruptError):
            read_usage_table(table.streams, k, significant=table.significant)


# Where it pays


@given(
    usage=st.lists(st.integers(0, 40), min_size=1, max_size=120)
    .filter(any)
    .map(torch.tensor)
)
def test_the_table_is_the_one_that_pays_most_if_one_pays(usage):
    table = choose_usage_table(usage)
    even = bits_of_indices(usage, torch.ones_like(usage))
    every = {}
    for t in SIGNIFICANT:
        rounded = round_usage(usage, t)
        values = {
            meaning(token, t)[0]: token
            for token in reversed(range(num_tokens(t)))
            if not meaning(token, t)[1]
        }
        streams = coded([values[u] for u in rounded.tolist()], t)
        every[t] = bits_of_indices(usage, rounded) + 8 * sum(len(s.data) for s in streams)
    if table is None:
        assert even <= min(every.values()) + 1e-6
    else:
        assert every[table.significant] <= min(even, *every.values()) + 1e-6


@pytest.mark.parametrize("k", [1, 2, 100, 5000])
@pytest.mark.parametrize("times", [1, 3, 1000])
def test_motifs_that_are_used_alike_need_no_table(k, times):
    assert choose_usage_table(torch.full((k,), times)) is None


def test_one_motif_alone_needs_no_table_but_one_of_many_has_one():
    assert choose_usage_table(torch.tensor([10_000])) is None
    table = choose_usage_table(torch.tensor([0] * 50 + [10_000] + [0] * 50))
    assert table.usage.nonzero().tolist() == [[50]]


@pytest.mark.parametrize(("k", "m"), [(256, 67_000), (6743, 134_861), (64, 20_000)])
def test_a_table_of_a_network_is_shorter_than_its_number_among_all_tables(k, m):
    usage = draws(k, m)
    table = choose_usage_table(usage)
    number = (lgamma(m + k) - lgamma(k) - lgamma(m + 1)) / log(2)
    exact = bits_of_indices(usage, usage)
    # Rounding must not cost in the indices what it saves in the table.
    bits = 8 * sum(len(stream.data) for stream in table.streams)
    assert bits < number
    assert bits + bits_of_indices(usage, table.usage) < number + exact
