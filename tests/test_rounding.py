"""Motifs as whole numbers: the step loses no more than any other that was tried."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momos.rounding import SHRINK, grid_step, stored_dtype, whole_steps


def motifs(seed: int, k: int = 30, s: int = 3) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(k, s, generator=draw) ** 3


@given(
    seed=st.integers(0, 99), bits=st.integers(2, 8), scale=st.sampled_from([1e-9, 1, 1e9])
)
def test_the_step_is_a_short_number_and_no_value_is_beyond_the_grid(seed, bits, scale):
    values = scale * motifs(seed)
    step = grid_step(values, torch.ones(len(values)).long(), bits)
    assert torch.equal(step, step.bfloat16().float())
    whole = whole_steps(values, step, bits)
    assert torch.equal(whole, whole.round())
    assert float(whole.abs().max()) <= 2 ** (bits - 1) - 1


@given(seed=st.integers(0, 99), bits=st.integers(2, 8))
def test_no_step_that_was_tried_loses_less(seed, bits):
    values, usage = motifs(seed), torch.arange(30)

    def loss(step: torch.Tensor) -> float:
        errors = (whole_steps(values, step, bits) * step - values).double().square()
        return float((errors.sum(1) * usage).sum())

    best = loss(grid_step(values, usage, bits))
    widest = values.abs().max() / (2 ** (bits - 1) - 1) * (1 + 2**-8)
    assert best == min(loss((widest * shrink).bfloat16().float()) for shrink in SHRINK)


def test_motifs_that_no_block_uses_do_not_stretch_the_grid():
    values, usage = torch.tensor([[0.0], [0.9], [1.0], [2.4]]), torch.tensor([9, 9, 9, 0])
    short = grid_step(values, usage, 4)
    assert short < grid_step(values, torch.ones(4).long(), 4)


def test_zeros_are_whole_numbers_of_any_step():
    step = grid_step(torch.zeros(3, 2), torch.ones(3).long(), 8)
    assert float(step) == 1
    assert not whole_steps(torch.zeros(3, 2), step, 8).any()


@pytest.mark.parametrize("largest", [1e300, 1e-60])
def test_motifs_that_no_float32_step_fits_are_refused(largest):
    values = torch.full((3, 2), largest, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"of 8 bits must be .* got motifs up to 1e"):
        grid_step(values, torch.ones(3).long(), 8)


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(2, torch.int8), (8, torch.int8), (16, torch.float16), (32, torch.float64)],
)
def test_bits_say_the_dtype(bits, dtype):
    assert stored_dtype(bits, torch.float64) == dtype
