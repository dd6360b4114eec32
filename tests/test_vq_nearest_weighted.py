"""`weighted_nearest` is its definition, index for index; `weighted_means` lower the distortion."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from momos import nearest
from momos.vq import nearest as weighted
from momos.vq.nearest import weighted_means, weighted_nearest, weighted_nearest_reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
shapes = st.tuples(st.integers(0, 40), st.integers(1, 30), st.integers(1, 9))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def assert_defined(blocks, motifs, importance, penalty=None) -> None:
    expected = weighted_nearest_reference(blocks, motifs, importance, penalty=penalty)
    found = weighted_nearest(blocks, motifs, importance, penalty=penalty)
    assert torch.equal(found, expected)


def undecided(blocks, motifs, importance) -> int:
    """How many blocks the matrix products leave to the definition."""
    with patch.object(weighted, "_decided", wraps=weighted._decided) as decided:
        assert_defined(blocks, motifs, importance)
    return sum(len(call.args[0]) for call in decided.call_args_list)


@given(
    shape=shapes,
    seed=st.integers(0, 999),
    dtype=st.sampled_from(DTYPES),
    shift=st.sampled_from([0.0, 1.0, 3000.0]),
    lattice=st.booleans(),
    priced=st.booleans(),
    piece=st.sampled_from([1, 37, 1 << 19]),
)
def test_it_is_the_definition(shape, seed, dtype, shift, lattice, priced, piece):
    (m, k, s), g = shape, seeded(seed)
    blocks, motifs, importance = normal(g, m, s), normal(g, k, s), normal(g, m, s).exp()
    if lattice:  # ties
        blocks, motifs, importance = blocks.round(), motifs.round(), importance.round()
    penalty = normal(g, k).abs() if priced else None
    with patch.object(weighted, "PIECE", piece):
        assert_defined(
            (blocks + shift).to(dtype), (motifs + shift).to(dtype), importance, penalty
        )


@given(
    scales=st.tuples(*[st.integers(-320, 308)] * 3),
    m=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_it_is_the_definition_where_float64_ends(scales, m, seed):
    g = seeded(seed)
    rows = [
        torch.nan_to_num(normal(g, count, 3) * 10.0**scale)
        for count, scale in zip((m, 5, m), scales, strict=True)
    ]
    assert_defined(rows[0], rows[1], rows[2].abs())


@given(shape=shapes, seed=st.integers(0, 999))
def test_equal_importance_is_nearest(shape, seed):
    (m, k, s), g = shape, seeded(seed)
    blocks, motifs = normal(g, m, s).float(), normal(g, k, s).float()
    found = weighted_nearest(blocks, motifs, torch.ones_like(blocks))
    assert torch.equal(found, nearest(blocks, motifs))


@given(shape=shapes, seed=st.integers(0, 999), power=st.integers(-20, 20))
def test_only_ratios_of_importance_and_penalty_matter(shape, seed, power):
    (m, k, s), g = shape, seeded(seed)
    blocks, motifs, importance = normal(g, m, s), normal(g, k, s), normal(g, m, s).abs()
    penalty, scale = normal(g, k).abs(), 2.0**power
    assert torch.equal(
        weighted_nearest(blocks, motifs, importance, penalty=penalty),
        weighted_nearest(blocks, motifs, importance * scale, penalty=penalty * scale),
    )


def test_no_importance_leaves_the_penalty_and_then_the_lowest_index():
    blocks, motifs = normal(seeded(0), 5, 2), normal(seeded(1), 3, 2)
    nothing = torch.zeros_like(blocks)
    assert weighted_nearest(blocks, motifs, nothing).tolist() == [0] * 5
    penalty = torch.tensor([2.0, 1.0, 1.0])
    assert weighted_nearest(blocks, motifs, nothing, penalty=penalty).tolist() == [1] * 5


def test_an_error_counts_by_its_importance():
    motifs = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    importance = torch.tensor([[1.0, 9.0], [9.0, 1.0]])
    assert weighted_nearest(torch.zeros(2, 2), motifs, importance).tolist() == [1, 0]


def test_matrix_products_decide_almost_all_blocks():
    g = seeded(0)
    blocks, motifs = normal(g, 2000, 4).float(), normal(g, 300, 4).float()
    importance = normal(g, 2000, 4).exp().float()
    assert undecided(blocks, motifs, importance) == 0
    assert undecided(blocks, motifs.repeat(2, 1), importance) == 2000


@given(shape=shapes, seed=st.integers(0, 999), dtype=st.sampled_from(DTYPES))
def test_means_are_between_their_blocks_and_lower_the_distortion(shape, seed, dtype):
    (m, k, s), g = shape, seeded(seed)
    blocks = normal(g, m, s).to(dtype)
    importance, motifs = normal(g, m, s).relu(), normal(g, k, s)
    indices = torch.randint(k, (m,), generator=g)
    means = weighted_means(blocks, importance, indices, unused=motifs)
    assert bool(means.isfinite().all())

    def distortion(motifs: Tensor) -> float:
        return float((importance * (blocks - motifs[indices]).square()).sum())

    assert distortion(means) <= distortion(motifs) + 1e-12
    for j in range(k):
        own, weight = blocks[indices == j].double(), importance[indices == j]
        for i in range(s):
            some = own[weight[:, i] > 0, i]
            if len(some):
                assert some.min() - 1e-12 <= means[j, i] <= some.max() + 1e-12
            else:
                assert means[j, i] == motifs[j, i]


def test_equal_importance_gives_plain_means():
    blocks = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]])
    motifs = torch.tensor([[9.0, 9.0], [7.0, 7.0], [8.0, 8.0]])
    means = weighted_means(blocks, torch.ones(3, 2), torch.tensor([1, 1, 0]), unused=motifs)
    assert means.tolist() == [[5, 5], [2, 4], [8, 8]]


BLOCKS, MOTIFS, ONES = torch.zeros(3, 2), torch.zeros(4, 2), torch.ones(3, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((BLOCKS, MOTIFS[:0], ONES), "motifs must have at least one row and one value"),
        ((BLOCKS, torch.zeros(4, 3), ONES), r"blocks must have shape \(m, 3\)"),
        ((BLOCKS, MOTIFS, ONES[:2]), r"importance must have the shape \(3, 2\) of blocks"),
        ((BLOCKS, MOTIFS, -ONES), "importance must be at least 0, got -1.0"),
        ((BLOCKS / 0, MOTIFS, ONES), "blocks must be finite, got 6"),
        ((BLOCKS, MOTIFS / 0, ONES), "motifs must be finite, got 8"),
        ((BLOCKS, MOTIFS, ONES / 0), "importance must be finite, got 6"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        weighted_nearest(*arguments)


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (torch.zeros(3), r"penalty must have shape \(4,\), got \(3,\)"),
        (torch.full((4,), torch.inf), "penalty must be finite, got 4"),
    ],
)
def test_a_penalty_that_does_not_fit_is_refused(penalty, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        weighted_nearest(BLOCKS, MOTIFS, ONES, penalty=penalty)


def test_whole_numbers_are_refused():
    with pytest.raises(TypeError, match=r"^blocks must be floating, got torch.int64"):
        weighted_nearest(BLOCKS.long(), MOTIFS, ONES)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.tensor([0, 1, 4]), "indices must be 0 to 3, got 4"),
        (torch.tensor([0, -1, 1]), "indices must be 0 to 3, got -1"),
        (torch.tensor([0, 1]), r"indices must have shape \(3,\), got \(2,\)"),
    ],
)
def test_indices_that_do_not_fit_are_refused(indices, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        weighted_means(BLOCKS, ONES, indices, unused=MOTIFS)
