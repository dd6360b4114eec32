"""Which scale multiplies which weight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momos.blocks import Layout, Placement
from momos.stored import (
    SHRINK,
    channels_of,
    grid_step,
    num_scales,
    rounded_roots,
    spread,
    stored_dtype,
    whole_steps,
)


@pytest.mark.parametrize(
    ("kind", "shape", "count"),
    [
        ("none", (3, 4), 0),
        ("tensor", (3, 4), 1),
        ("tensor", (), 1),
        ("channel", (3, 4), 3),
        ("channel", (5, 4, 3, 3), 5),
        ("channel", (7,), 1),  # else a bias would have a scale for each weight
        ("channel", (), 1),
    ],
)
def test_a_tensor_of_channels_has_a_scale_for_each(kind, shape, count):
    assert num_scales(kind, shape) == count


@st.composite
def ranges(draw):
    channels, size = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    start = draw(st.integers(0, channels * size))
    return channels, size, start, draw(st.integers(start, channels * size))


@given(ranges())
def test_every_weight_has_the_scale_of_its_channel(range_):
    channels, size, start, stop = range_
    scale = torch.rand(channels)
    found = spread(scale, placed((channels, size)), start, stop)
    expected = scale[torch.arange(start, stop) // size]
    assert torch.equal(found.expand(stop - start) if channels == 1 else found, expected)


def placed(shape: tuple[int, ...], axis: int = 0) -> Placement:
    (place,) = Layout.cut(1, [("a", shape, torch.float32)], {"a": axis}).placements
    return place


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 3), st.integers(0)
)
def test_channels_are_the_slices_along_their_axis(shape, axis, ends):
    axis %= len(shape)
    place = placed(tuple(shape), axis)
    start, stop = sorted(
        (ends % (place.num_weights + 1), ends // 7 % (place.num_weights + 1))
    )
    whole = (
        torch.arange(shape[axis]).view([-1, *[1] * (len(shape) - 1 - axis)]).expand(shape)
    )
    assert torch.equal(channels_of(place, start, stop), whole.reshape(-1)[start:stop])
    scale = torch.rand(shape[axis])
    if len(scale) > 1:
        expected = scale[whole].reshape(-1)[start:stop]
        assert torch.equal(spread(scale, place, start, stop), expected)


def test_scales_are_normal_bfloat16_numbers():
    squares = torch.tensor([0, 1e-300, 1e-90, 1e-70, 2, 1e70, 1e80, 1e300]).double()
    found = rounded_roots(torch.cat([squares, torch.rand(100).double()]))
    assert torch.equal(found, found.bfloat16().float())
    assert bool((found >= torch.finfo(torch.float32).tiny).all())
    assert bool(torch.isfinite(found).all())
    assert found[[0, 1, 2, 6, 7]].tolist() == [1.0] * 5
    assert float(found[4]) == pytest.approx(2**0.5, rel=2**-8)


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
