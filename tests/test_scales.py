"""Which scale multiplies which weight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momos.blocks import Layout, Placement
from momos.scales import channels_of, num_scales, rounded_roots, spread


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
