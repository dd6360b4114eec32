"""Motifs whose code length counts lose a little more and cost less."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momos import kmeans_motifs
from momos.vq.motifs import rated_motifs
from momos.vq.nearest import code_lengths, rated_searcher


def blocks(seed: int = 0, m: int = 4000, s: int = 2) -> torch.Tensor:
    return torch.randn(m, s, generator=torch.Generator().manual_seed(seed))


def start(rows: torch.Tensor, k: int) -> torch.Tensor:
    return kmeans_motifs(rows, k, generator=torch.Generator().manual_seed(0))


def cost(rows, motifs, usage, rate_weight) -> tuple[float, float]:
    """Squared error and bits of all blocks, each with its best motif."""
    own = rated_searcher(motifs, usage, rate_weight)(rows).long()
    error = (rows.double() - motifs[own].double()).square().sum()
    return float(error), float(code_lengths(usage)[own].sum())


@given(
    seed=st.integers(0, 50),
    k=st.integers(1, 20),
    s=st.integers(1, 4),
    rate_weight=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    zero_motif=st.booleans(),
)
def test_usage_is_of_all_blocks_and_the_zero_motif_stays(
    seed, k, s, rate_weight, zero_motif
):
    rows = blocks(seed, 200, s)
    first = rows[:k].clone()
    first[: int(zero_motif)] = 0
    motifs, usage = rated_motifs(rows, first, rate_weight, zero_motif=zero_motif)
    assert motifs.shape == first.shape
    assert motifs.dtype == first.dtype
    assert int(usage.sum()) == len(rows)
    assert bool(torch.isfinite(motifs).all())
    assert not zero_motif or not motifs[0].any()


@pytest.mark.parametrize("rate_weight", [0.05, 0.3])
def test_error_and_bits_together_are_fewer_than_before(rate_weight):
    rows = blocks()
    first = start(rows, 32)
    even = torch.bincount(rated_searcher(first, torch.ones(32), 0.0)(rows).long())
    motifs, usage = rated_motifs(rows, first, rate_weight)
    before = cost(rows, first, even, rate_weight)
    after = cost(rows, motifs, usage, rate_weight)
    assert after[1] < before[1]
    assert after[0] + rate_weight * after[1] < before[0] + rate_weight * before[1]


def test_a_heavier_rate_uses_fewer_motifs():
    rows = blocks()
    first = start(rows, 64)
    used = [int((rated_motifs(rows, first, w)[1] > 0).sum()) for w in (0.0, 0.1, 0.5, 5.0)]
    assert used == sorted(used, reverse=True)
    assert used[0] == 64
    assert used[-1] == 1


def test_without_a_weight_the_distortion_never_grows():
    rows = blocks()
    first = rows[:32].clone()
    even = torch.ones(32).long()
    motifs, _ = rated_motifs(rows, first, 0.0, zero_motif=False)
    assert cost(rows, motifs, even, 0.0)[0] < cost(rows, first, even, 0.0)[0]


def test_motifs_and_blocks_that_come_in_stay_as_they_are():
    rows = blocks()
    first = start(rows, 16)
    before = rows.clone(), first.clone()
    rated_motifs(rows, first, 0.3)
    assert torch.equal(rows, before[0])
    assert torch.equal(first, before[1])
