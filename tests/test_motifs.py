"""Motifs come from the blocks, the zero motif first; draws are fair and can be repeated."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from momos import distinct_motifs, kmeans_motifs, motifs, nearest_reference, sample_motifs

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
STARTS = ["spread", "sample"]
CHOICES = [sample_motifs, distinct_motifs, kmeans_motifs]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def distortion(blocks: Tensor, bank: Tensor) -> float:
    nearest = bank[nearest_reference(blocks, bank)]
    return float((blocks.double() - nearest.double()).square().sum())


def rows(tensor: Tensor) -> list[tuple[float, ...]]:
    """Rows as values that compare: -0.0 is 0.0."""
    return [tuple(value + 0.0 for value in row) for row in tensor.tolist()]


@st.composite
def few_values(draw) -> Tensor:
    """Blocks among which many are equal, zeros of both signs included."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 5)))
    values = draw(st.sampled_from([(0.0, -0.0, 1.0), (-0.0, 0.0), (-2.0, 0.0, 0.5, 3.0)]))
    g = seeded(draw(st.integers(0, 2**32)))
    picked = torch.tensor(values)[torch.randint(len(values), shape, generator=g)]
    return picked.to(draw(st.sampled_from(DTYPES)))


# Any choice


@pytest.mark.parametrize("choose", CHOICES)
@given(
    blocks=few_values(),
    k=st.integers(1, 60),
    zero=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_motifs_are_no_more_than_asked_for_and_the_zero_motif_is_first(
    choose, blocks, k, zero, seed
):
    bank = choose(blocks, k, zero_motif=zero, generator=seeded(seed))
    assert 1 <= len(bank) <= k
    assert (bank.shape[1], bank.dtype) == (blocks.shape[1], blocks.dtype)
    if zero:
        assert not bank[0].any()


@pytest.mark.parametrize("choose", CHOICES)
def test_the_same_generator_draws_the_same_motifs(choose):
    blocks = normal(500, 2)
    first, second = (choose(blocks, 20, generator=seeded(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, choose(blocks, 20, generator=seeded(2)))


@pytest.mark.parametrize("choose", CHOICES)
def test_a_generator_moves_on_and_can_be_put_back(choose):
    blocks, g = normal(500, 2), seeded()
    state = g.get_state()
    first, second = (choose(blocks, 20, generator=g) for _ in range(2))
    assert not torch.equal(first, second)
    g.set_state(state)
    assert torch.equal(choose(blocks, 20, generator=g), first)


@pytest.mark.parametrize("choose", CHOICES)
def test_the_blocks_are_neither_changed_nor_shared(choose):
    blocks = normal(30, 2)
    copy = blocks.clone()
    choose(blocks, 100, zero_motif=False, generator=seeded()).zero_()
    assert torch.equal(blocks, copy)


@pytest.mark.parametrize("choose", CHOICES)
def test_motifs_carry_no_gradient(choose):
    blocks = normal(30, 2).requires_grad_()
    assert not choose(blocks, 10, generator=seeded()).requires_grad


@pytest.mark.parametrize("choose", CHOICES)
def test_one_motif_is_the_zero_motif(choose):
    assert choose(normal(30, 3), 1, generator=seeded()).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("choose", CHOICES)
def test_there_is_at_least_one_motif(choose):
    with pytest.raises(ValueError, match="num_motifs must be at least 1, got 0"):
        choose(normal(30, 3), 0)


@pytest.mark.parametrize("choose", CHOICES)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (6,), (2, 3, 4)])
def test_blocks_are_rows_of_values(choose, shape):
    message = r"blocks must have at least one row and one value, got shape \("
    with pytest.raises(ValueError, match=message):
        choose(torch.ones(shape), 2)


@pytest.mark.parametrize("choose", CHOICES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_motifs_that_are_not_finite_are_never_returned(choose, value):
    with pytest.raises(ValueError, match="blocks must be finite"):
        choose(torch.full((9, 2), value), 4, generator=seeded())


# The paper's sample


@given(
    m=st.integers(1, 200),
    k=st.integers(1, 250),
    zero=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_sample_draws_no_position_twice(m, k, zero, seed):
    blocks = torch.arange(1.0, m + 1)[:, None]  # the position, counted from 1
    bank = sample_motifs(blocks, k, zero_motif=zero, generator=seeded(seed))
    drawn = bank[int(zero) :, 0].tolist()
    assert len(drawn) == min(k - zero, m)
    assert len(set(drawn)) == len(drawn)
    assert 0 not in drawn


@pytest.mark.parametrize(("m", "k"), [(20, 8), (60, 6)])  # dense and sparse draws
def test_a_sample_is_uniform_by_position(m, k):
    draws, g, blocks = 4000, seeded(), torch.arange(float(m))[:, None]
    drawn = torch.cat(
        [sample_motifs(blocks, k, zero_motif=False, generator=g).T for _ in range(draws)]
    ).long()
    assert (drawn.sort(1).values.diff() > 0).all()  # no position twice in one sample
    for positions, share in ((drawn, k / m), (drawn[:, :1], 1 / m), (drawn[:, -1:], 1 / m)):
        counts = torch.bincount(positions.flatten(), minlength=m).double()
        assert len(counts) == m
        expected = draws * share
        # For draws without replacement this is about chi-square with m - 1 degrees.
        statistic = (
            (counts - expected).square().sum() / (expected * (1 - share)) * (1 - 1 / m)
        )
        assert statistic < m - 1 + 5 * (2 * (m - 1)) ** 0.5


def test_a_sample_draws_pairs_uniformly():
    m, draws, g = 6, 6000, seeded()
    blocks, counts = torch.arange(float(m))[:, None], torch.zeros(m, m)
    for _ in range(draws):
        first, second = sample_motifs(blocks, 2, zero_motif=False, generator=g)[:, 0].long()
        counts[first, second] += 1
    assert not counts.diagonal().any()
    expected = draws / (m * (m - 1))
    off = counts[~torch.eye(m, dtype=torch.bool)]
    assert (off - expected).abs().max() < 5 * expected**0.5


def test_a_sample_draws_frequent_blocks_often():
    blocks = torch.cat([torch.ones(90, 2), normal(10, 2)])
    bank = sample_motifs(blocks, 51, generator=seeded())
    assert (bank == 1).all(1).sum() >= 40


def test_a_sample_is_of_blocks_in_any_arrangement():
    blocks = normal(3, 50).T
    bank = sample_motifs(blocks, 20, generator=seeded())
    assert set(rows(bank[1:])) <= set(rows(blocks))


# The distinct sample


@given(
    blocks=few_values(),
    k=st.integers(1, 60),
    zero=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_distinct_motifs_are_different_blocks_and_as_many_as_there_are(
    blocks, k, zero, seed
):
    bank = distinct_motifs(blocks, k, zero_motif=zero, generator=seeded(seed))
    there = set(rows(blocks)) | ({(0.0,) * blocks.shape[1]} if zero else set())
    assert set(rows(bank)) <= there
    assert len(set(rows(bank))) == len(bank) == min(k, len(there))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_distinct_motifs_differ_even_by_one_rounding(dtype, size):
    step = torch.finfo(dtype).eps
    steps = torch.arange(9, dtype=torch.float64).repeat(3) * step
    blocks = (1 + torch.outer(steps, torch.ones(size).double())).to(dtype)
    bank = distinct_motifs(blocks, 100, zero_motif=False, generator=seeded())
    assert sorted(bank[:, -1].double().tolist()) == (1 + steps[:9]).tolist()


def test_a_rare_block_is_found_among_equal_ones():
    blocks = torch.zeros(5000, 2)
    blocks[torch.arange(0, 5000, 500)] = normal(10, 2)
    bank = distinct_motifs(blocks, 11, generator=seeded())
    assert set(rows(bank)) == set(rows(blocks))


def test_distinct_motifs_of_zero_blocks_are_the_zero_motif():
    blocks = torch.cat([torch.zeros(5, 2), -torch.zeros(5, 2)])
    for zero in (True, False):
        assert distinct_motifs(blocks, 7, zero_motif=zero).tolist() == [[0, 0]]


def test_distinct_motifs_are_drawn_from_everywhere():
    blocks, g = torch.arange(1.0, 31)[:, None], seeded()
    drawn = torch.cat([distinct_motifs(blocks, 4, generator=g)[1:, 0] for _ in range(2000)])
    counts = torch.bincount(drawn.long(), minlength=31)[1:]
    assert (counts - 200).abs().max() < 5 * 200**0.5


# k-means


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_iteration_makes_the_distortion_larger(start, zero, dtype):
    for seed, size in ((0, 1), (1, 2), (2, 4)):
        blocks = (normal(600, size, seed=seed) + 0.5).to(dtype)
        before = float("inf")
        for iterations in range(8):
            bank = kmeans_motifs(
                blocks,
                24,
                zero_motif=zero,
                start=start,
                iterations=iterations,
                generator=seeded(seed),
            )
            after = distortion(blocks, bank)
            assert after <= before * (1 + 1e-12)
            before = after


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_iteration_moves_each_motif_to_the_mean_of_its_blocks(dtype):
    blocks = normal(900, 3, dtype=dtype) + 1
    for iterations in range(3):
        options = {"num_motifs": 12, "start": "sample"}
        before = kmeans_motifs(blocks, **options, iterations=iterations, generator=seeded())
        after = kmeans_motifs(
            blocks, **options, iterations=iterations + 1, generator=seeded()
        )
        nearest = nearest_reference(blocks, before)
        assert len(nearest.unique()) == 12
        assert not after[0].any()
        for j in range(1, 12):
            mean = blocks[nearest == j].double().mean(0).to(dtype)
            torch.testing.assert_close(after[j], mean, rtol=2e-7, atol=1e-7)


def test_pieces_do_not_change_the_motifs():
    blocks = normal(900, 3)
    whole = kmeans_motifs(blocks, 40, generator=seeded())
    with patch.object(motifs, "PIECE", 100):
        pieces = kmeans_motifs(blocks, 40, generator=seeded())
    torch.testing.assert_close(pieces, whole)


def test_the_iterations_end_at_a_fixed_point():
    blocks = normal(300, 2)
    settled = kmeans_motifs(blocks, 8, iterations=500, generator=seeded())
    assert torch.equal(
        settled, kmeans_motifs(blocks, 8, iterations=501, generator=seeded())
    )
    nearest = nearest_reference(blocks, settled)
    for j in range(1, 8):
        torch.testing.assert_close(settled[j], blocks[nearest == j].mean(0))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("seed", range(5))
def test_kmeans_loses_less_than_a_sample(start, seed):
    blocks = normal(2000, 4, seed=seed)
    options = {"num_motifs": 32, "generator": seeded(seed)}
    sample = distortion(blocks, sample_motifs(blocks, **options))
    assert distortion(blocks, kmeans_motifs(blocks, start=start, **options)) < 0.8 * sample


def test_one_motif_a_round_starts_with_motifs_far_apart(monkeypatch):
    """That is k-means++ (Arthur and Vassilvitskii 2007)."""
    monkeypatch.setattr(motifs, "GROWTH", 1.0)
    blocks = torch.cat([torch.zeros(5000, 2), 100 + torch.arange(4.0).repeat(2, 1).T * 100])
    for seed in range(10):
        bank = kmeans_motifs(blocks, 5, iterations=0, generator=seeded(seed))
        assert distortion(blocks, bank) == 0


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("power", [2.0**-100, 2.0**-60, 2.0**60, 2.0**100])
def test_kmeans_does_not_depend_on_the_scale_of_the_blocks(start, power):
    """Powers of two change no rounding, so not one bit may differ."""
    blocks = normal(600, 2)
    for iterations in (0, 5):
        options = {"num_motifs": 20, "start": start, "iterations": iterations}
        bank = kmeans_motifs(blocks, generator=seeded(), **options)
        scaled = kmeans_motifs(blocks * power, generator=seeded(), **options)
        assert torch.equal(scaled, bank * power)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("iterations", [0, 25])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extra", [0, 1, 50])
def test_with_a_motif_for_every_different_block_nothing_is_lost(
    start, iterations, dtype, extra
):
    for size, zero in ((1, True), (2, False), (4, True)):
        step = torch.finfo(dtype).eps
        steps = torch.arange(30, dtype=torch.float64)[:, None].repeat(3, size)
        blocks = (1 + step * steps).to(dtype)
        bank = kmeans_motifs(
            blocks,
            30 + zero + extra,
            zero_motif=zero,
            start=start,
            iterations=iterations,
            generator=seeded(),
        )
        assert distortion(blocks, bank) == 0


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("iterations", [0, 25])
def test_nothing_is_lost_where_blocks_repeat(start, iterations):
    blocks = normal(30, 2).repeat(4, 1)
    bank = kmeans_motifs(blocks, 31, start=start, iterations=iterations, generator=seeded())
    assert distortion(blocks, bank) == 0


def heavy_tailed(m: int, s: int, *, seed: int = 0) -> Tensor:
    """Normal weights, one in a thousand 30 times larger."""
    g = seeded(seed)
    weights = torch.randn(m * s, generator=g)
    far = torch.rand(m * s, generator=g) < 1e-3
    return torch.where(far, 30 * weights, weights).view(m, s)


@pytest.mark.parametrize(("m", "s"), [(1 << 15, 1), (1 << 14, 2)])
def test_heavy_tails_are_no_worse_than_by_one_motif_a_round(m, s, monkeypatch):
    blocks = heavy_tailed(m, s)
    spread, sample = (
        distortion(blocks, kmeans_motifs(blocks, 64, start=start, generator=seeded()))
        for start in ("spread", "sample")
    )
    monkeypatch.setattr(motifs, "GROWTH", 1.0)  # k-means++
    full = distortion(blocks, kmeans_motifs(blocks, 64, generator=seeded()))
    assert spread <= 1.3 * full
    assert sample > 1.3 * full  # or these blocks would show nothing


def test_a_start_by_distance_finds_every_far_block():
    far = 1000.0 * torch.tensor([[1, 0], [0, 1], [-1, 0], [1, 1]])
    blocks = torch.cat([normal(20_000, 2), far])
    bank = kmeans_motifs(blocks, 32, iterations=0, generator=seeded())
    assert set(rows(far)) <= set(rows(bank))


def test_where_squares_underflow_the_start_is_the_sample():
    blocks = torch.arange(1.0, 9, dtype=torch.float64)[:, None] * 1e-300
    bank = kmeans_motifs(blocks, 5, iterations=0, generator=seeded())
    assert len(bank) == 5
    assert set(rows(bank)) <= {(0.0,), *rows(blocks)}


def test_means_of_equal_doubles_are_those_doubles():
    blocks = torch.tensor([[0.1], [0.7]], dtype=torch.float64).repeat_interleave(3, 0)
    for k in (2, 3):
        bank = kmeans_motifs(blocks, k, zero_motif=False, generator=seeded())
        assert distortion(blocks, bank) == 0


def starting_from(rows: Tensor):
    """Lets k-means start from `rows`, whatever start it was told."""
    return patch.object(motifs, "_spread", lambda *_: rows.clone())


def test_motifs_that_no_block_uses_are_revived():
    blocks = normal(400, 2)
    few = torch.cat([torch.zeros(1, 2), blocks[:6].repeat(4, 1)[:19]])
    with starting_from(few):
        bank = kmeans_motifs(blocks, 20, iterations=30, generator=seeded())
    usage = torch.bincount(nearest_reference(blocks, bank), minlength=20)
    assert usage[1:].min() > 0
    well_started = kmeans_motifs(blocks, 20, iterations=30, generator=seeded())
    assert distortion(blocks, bank) < 2 * distortion(blocks, well_started)


def test_a_revived_motif_goes_to_the_farthest_block():
    blocks = torch.cat([normal(300, 2) / 100, torch.tensor([[50.0, 50.0], [-9.0, 9.0]])])
    with starting_from(torch.cat([torch.zeros(1, 2), blocks[:1].repeat(3, 1)])):
        bank = kmeans_motifs(blocks, 4, iterations=1, generator=seeded())
    assert (50.0, 50.0) in rows(bank)
    assert (-9.0, 9.0) in rows(bank)


@pytest.mark.parametrize("start", STARTS)
def test_the_zero_motif_never_moves(start):
    blocks = normal(500, 2) / 10 + 5
    for iterations in (0, 1, 25):
        bank = kmeans_motifs(
            blocks, 9, start=start, iterations=iterations, generator=seeded()
        )
        assert bank[0].tolist() == [0, 0]
        assert bank[1:].all()


def test_an_unknown_start_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"start must be one of spread, sample, got 'far'"):
        kmeans_motifs(normal(9, 2), 4, start="far")


def test_iterations_are_not_negative():
    with pytest.raises(ValueError, match="iterations must be at least 0, got -1"):
        kmeans_motifs(normal(9, 2), 4, iterations=-1)


def test_one_block_that_is_not_finite_is_an_error_that_says_so():
    blocks = normal(50, 2)
    blocks[7, 1] = float("nan")
    for k in (3, 100):
        with pytest.raises(ValueError, match="blocks must be finite, got 1 value"):
            kmeans_motifs(blocks, k, generator=seeded())
