"""Lengths in bits: the paper's bound to the bit, entropy never above it but for its table."""

import itertools
from math import ceil, comb, floor, log2

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from momos import Layout, Mosaic, MosaicConfig, description_bound, description_length

# n, m and k of the paper's networks at s=2, c=5 %, and the factor that must come out, cut
# after four decimals (the last is 3.01887, so rounding would make it 3.0189).
MLP = (986_634, 493_317, 24_665, 3.5165)
RESNET_20 = (269_722, 134_861, 6_743, 3.9506)
VIT_TINY = (5_526_346, 2_763_173, 138_158, 3.0188)


def mosaic(
    indices: list[int], k: int, *, size: int = 2, dtype: torch.dtype = torch.float32
) -> Mosaic:
    """A mosaic whose last block is padded by one value, where it has more than one."""
    weights = max(1, len(indices) * size - 1)
    layout = Layout.of(nn.ParameterDict({"a": torch.zeros(weights)}), block_size=size)
    return Mosaic(torch.zeros(k, size, dtype=dtype), torch.tensor(indices), layout)


USED = st.integers(1, 40).flatmap(
    lambda k: st.tuples(
        st.lists(st.integers(0, k - 1), min_size=1, max_size=200), st.just(k)
    )
)


@pytest.mark.parametrize(("n", "m", "k", "factor"), [MLP, RESNET_20, VIT_TINY])
def test_the_papers_factors_come_out(n, m, k, factor):
    bound = description_bound(num_blocks=m, num_motifs=k, block_size=2)
    assert bound == k * 2 * 32 + m * ceil(log2(k))
    assert floor(32 * n / bound * 10_000) / 10_000 == factor


def test_the_papers_mlp_has_the_papers_factor_from_its_layers():
    sizes = [3072, 256, 256, 256, 256, 10]
    layers = [nn.Linear(*pair, device="meta") for pair in itertools.pairwise(sizes)]
    layout = Layout.of(nn.Sequential(*layers), block_size=2)
    n, m, k, factor = MLP
    assert (layout.num_weights, layout.num_blocks) == (n, m)
    assert MosaicConfig(capacity=0.05).motifs_for(m) == k
    length = description_length(Mosaic(torch.zeros(k, 2), torch.zeros(m).int(), layout))
    assert floor(length.factor * 10_000) / 10_000 == factor


@given(
    m=st.integers(0, 10**9),
    k=st.integers(1, 10**7),
    s=st.integers(1, 64),
    q=st.integers(1, 64),
)
def test_the_bound_is_the_bank_and_whole_bits_for_each_block(m, k, s, q):
    width = next(bits for bits in range(30) if 2**bits >= k)
    expected = k * s * q + m * width
    assert description_bound(num_blocks=m, num_motifs=k, block_size=s, bits=q) == expected


def test_one_motif_needs_no_indices():
    assert description_bound(num_blocks=1000, num_motifs=1, block_size=4) == 128
    length = description_length(mosaic([0] * 100, 1))
    assert (length.bound, length.bank) == (64, 64)
    assert length.entropy == pytest.approx(64, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_blocks", -1), ("num_motifs", 0), ("block_size", 0), ("bits", 0)],
)
def test_numbers_out_of_range_are_named(name, value):
    numbers = {"num_blocks": 3, "num_motifs": 2, "block_size": 2, "bits": 32} | {
        name: value
    }
    with pytest.raises(ValueError, match=rf"{name} must be at least \d, got {value}"):
        description_bound(**numbers)


@given(used=USED)
def test_the_entropy_is_that_of_the_usage(used):
    indices, k = used
    shares = [indices.count(j) / len(indices) for j in set(indices)]
    expected = -len(indices) * sum(share * log2(share) for share in shares)
    length = description_length(mosaic(indices, k))
    assert length.mosaic_entropy == pytest.approx(expected, rel=1e-12, abs=1e-9)
    assert length.mosaic_entropy >= 0


@given(used=USED)
def test_the_usage_table_is_one_of_all_ways_to_share_the_blocks(used):
    indices, k = used
    ways = comb(len(indices) + k - 1, k - 1)
    table = description_length(mosaic(indices, k)).usage_table
    assert table == pytest.approx(log2(ways), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("m", "k"), [(100_000, 5_000), (5_000, 100_000)])
def test_the_usage_table_is_right_at_length(m, k):
    table = description_length(mosaic([0] * m, k)).usage_table
    assert table == pytest.approx(log2(comb(m + k - 1, k - 1)), rel=1e-9)


@given(used=USED, dtype=st.sampled_from([torch.float16, torch.float32]))
def test_the_entropy_is_at_most_the_bound_and_the_table(used, dtype):
    length = description_length(mosaic(*used, dtype=dtype))
    assert length.entropy <= length.bound + length.usage_table + 1e-9
    assert length.entropy == length.bank + length.mosaic_entropy + length.usage_table


def test_motifs_used_evenly_need_exactly_the_bits_of_the_bound():
    length = description_length(mosaic(list(range(8)) * 5, 8))
    assert length.mosaic_entropy == 3 * 40
    assert length.bound == length.bank + length.mosaic_entropy


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        (torch.float16, 16),
        (torch.bfloat16, 16),
        (torch.float32, 32),
        (torch.float64, 64),
    ],
)
def test_a_motif_value_counts_the_bits_it_is_stored_in(dtype, bits):
    length = description_length(mosaic([0, 1, 2, 3, 4], 5, size=3, dtype=dtype))
    assert length.bank == 5 * 3 * bits
    assert length.bound == 5 * 3 * bits + 5 * 3


def whole(
    largest: int, *, config: MosaicConfig | None = None, scale: float = 0.5
) -> Mosaic:
    """Two tensors of whole motifs up to `largest`, the second with a scale for each row."""
    layout = Layout.cut(2, [("a", (4,), torch.float32), ("b", (3, 2), torch.float32)])
    motifs = torch.tensor([[0, 0], [1, largest]], dtype=torch.int8)
    scales = torch.ones(1), torch.tensor([1.0, 3.0, scale])
    return Mosaic(motifs, torch.tensor([0, 1, 0, 1, 1]), layout, scales, config)


@pytest.mark.parametrize(
    ("largest", "bits"),
    [
        (1, 2),
        (-1, 2),
        (2, 3),
        (3, 3),
        (-3, 3),
        (4, 4),
        (63, 7),
        (64, 8),
        (127, 8),
        (-128, 8),
    ],
)
def test_a_whole_motif_value_counts_the_fewest_bits_that_hold_all(largest, bits):
    length = description_length(whole(largest))
    assert length.bank == 4 * bits + 4 * 16
    assert length.bound == length.bank + 5


@pytest.mark.parametrize(("bits", "counted"), [(8, 8), (5, 5), (4, 4), (3, 4), (16, 4)])
def test_a_whole_motif_value_counts_the_bits_of_its_config(bits, counted):
    config = MosaicConfig(num_motifs=2, bits=bits, scales="channel")
    assert description_length(whole(5, config=config)).bank == 4 * counted + 4 * 16


def test_scales_count_16_bits_where_they_are_bfloat16():
    assert description_length(whole(1, scale=1.1)).bank == 4 * 2 + 4 * 32
    assert description_length(whole(1, scale=1.1015625)).bank == 4 * 2 + 4 * 16


def test_dense_is_32_bits_for_each_weight_and_none_for_padding():
    length = description_length(mosaic([0, 1, 1], 2, size=5))
    assert length.num_weights == 14
    assert length.dense == 32 * 14
    assert length.factor == length.dense / length.bound
    assert length.bound_per_weight == length.bound / 14
    assert length.entropy_per_weight == length.entropy / 14
