"""Sums that do not depend on the order of their values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from momos.vq.exact import Grid
from momos.vq.nearest import add_differences


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(-300, 300))
def test_sums_are_the_same_in_any_order_and_near_the_exact_one(seed, count, exponent):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.randn(count, generator=generator, dtype=torch.float64).exp()
    values = torch.randn(count, generator=generator, dtype=torch.float64) * scale
    values *= 2.0**exponent
    grid = Grid.of(float(values.abs().max()), count)
    high, low = grid.split(values)
    order = torch.randperm(count, generator=generator)
    for term in (high, low):
        assert (
            math.fsum(term.tolist())
            == float(term.sum())
            == float(term[order].cumsum(0)[-1])
        )
    bound = float(values.abs().max())
    exact = math.fsum(values.tolist())
    assert abs(float(high.sum() + low.sum()) - exact) <= 2**-70 * count**3 * bound + abs(
        2**-52 * exact
    )


@pytest.mark.parametrize("values", [[0.0, -0.0], [5e-324, -5e-324], [1e308, 1e308, -1e308]])
def test_extreme_values_stay_what_they_are(values):
    own = torch.tensor(values, dtype=torch.float64)
    high, low = Grid.of(float(own.abs().max()), len(own)).split(own)
    assert torch.equal(high + low, own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_engines_of_differences_add_the_same(dtype):
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(500, 3, generator=generator, dtype=dtype)
    motifs = torch.randn(7, 3, generator=generator, dtype=dtype)
    indices = torch.randint(7, (500,), generator=generator, dtype=torch.int32)
    grid = Grid.of(float(blocks.abs().max() + motifs.abs().max()), 500)
    sums, counts = torch.zeros(2, 7, 3).double(), torch.zeros(7).double()
    add_differences(blocks, indices, motifs, grid, sums=sums, counts=counts)
    other = torch.zeros_like(sums)
    for total, term in zip(
        other, grid.split(blocks.double() - motifs[indices.long()].double()), strict=True
    ):
        total.index_add_(0, indices.long(), term)
    assert torch.equal(sums, other)
    assert torch.equal(counts, indices.long().bincount(minlength=7).double())
    order = torch.randperm(500, generator=generator)
    again = torch.zeros_like(sums)
    add_differences(blocks[order], indices[order], motifs, grid, sums=again, counts=counts)
    assert torch.equal(again, sums)
