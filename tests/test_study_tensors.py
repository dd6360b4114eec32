"""Layers painted by motif."""

from math import sqrt

import pytest
import torch
from torch import nn

from momos.study.report.tensors import paint, place


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def test_zero_is_white_and_equal_blocks_have_equal_colours() -> None:
    blocks = torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.5, 0.1], [1.0, -2.0]])
    colours = paint(blocks, reach=1.0)
    assert colours[0].tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    assert torch.equal(colours[1], colours[3])
    assert (colours[1] - colours[2]).abs().max() > 0.1
    assert bool((colours >= 0).all() and (colours <= 1).all())


def test_places_of_pairs_keep_distances() -> None:
    blocks = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        torch.cdist(place(blocks), place(blocks)) * sqrt(2),
        torch.cdist(blocks, blocks),
        atol=1e-5,
        rtol=1e-5,
    )


def test_larger_blocks_lie_at_the_means_of_their_halves() -> None:
    blocks = torch.tensor([[1.0, 3.0, -2.0, 0.0]])
    assert torch.equal(place(blocks), place(torch.tensor([[2.0, -1.0]])))
