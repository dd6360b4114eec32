"""QuBD has the reference's codes and scores, and says what it cannot score."""

import hashlib
import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from momos.complexity import Qubd, bdm, qubd
from momos.complexity import qubd as package_qubd
from momos.complexity.bdm import _quantiles

REFERENCE = json.loads(
    (Path(__file__).parent / "reference/qubd_reference.json").read_text()
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def qubd_reference(weight: Tensor, bits: int, lo: float, hi: float) -> list[float]:
    """The definition of the planes of a matrix and a range, rounded to nearest."""
    low, levels = torch.tensor(lo), 2**bits - 1
    step = (torch.tensor(hi) - low) / levels
    codes = ((weight - low) / step).round().clamp(0, levels).long()
    return [bdm(codes // 2**plane % 2, ndim=2) for plane in range(bits)]


# The values


@pytest.mark.parametrize(
    "entry", REFERENCE["values"], ids=lambda e: f"{e['name']}-{e['bits']}-{e['percentile']}"
)
def test_the_values_are_those_of_the_reference(entry):
    array = eval(entry["make"], {"np": np})  # an expression of our own reference file
    assert hashlib.sha256(array.tobytes()).hexdigest() == entry["sha256_f32"]
    found = qubd(
        torch.from_numpy(array), bits=entry["bits"], percentile=entry["percentile"]
    )
    assert (found.lo, found.hi) == (entry["lo"], entry["hi"])
    assert found.shape == tuple(entry["shape_2d"])
    assert found.planes == pytest.approx(entry["planes_lsb_first"], rel=1e-12)
    assert found.total == pytest.approx(entry["total"], rel=1e-12)


@given(
    rows=st.integers(4, 20),
    columns=st.integers(4, 20),
    bits=st.integers(1, 24),
    percentile=st.sampled_from([None, 99.9, 90.0, 50.0]),
    seed=st.integers(0, 2**32),
)
def test_the_planes_are_those_of_the_definition(rows, columns, bits, percentile, seed):
    weight = normal(rows, columns, seed=seed)
    found = qubd(weight, bits=bits, percentile=percentile)
    assert list(found.planes) == qubd_reference(weight, bits, found.lo, found.hi)
    assert found.total == sum(found.planes)
    if percentile is None:
        assert (found.lo, found.hi) == (weight.min(), weight.max())


def test_the_offsets_of_zeros_are_those_of_the_reference():
    for edge, expected in REFERENCE["all_zero_offsets_slide30"].items():
        found = qubd(torch.zeros(int(edge), int(edge)), bits=1)
        assert found.total == pytest.approx(expected["bdm_zeros"], rel=1e-12)
        distinct = expected["expected_random_bdm_if_all_blocks_distinct"]
        assert found.total / distinct == pytest.approx(expected["ratio"], rel=1e-12)


def test_nearest_rounds_halves_to_even():
    # 0 to 3 in steps of 1: 0.5 → 0, 1.5 → 2, 2.5 → 2
    weight = torch.tensor([0.0, 0.5, 1.5, 2.5, 3.0]).repeat(20, 1).T.reshape(10, 10)
    codes = torch.tensor([0, 0, 2, 2, 3]).repeat(20, 1).T.reshape(10, 10)
    planes = [bdm(codes >> plane & 1, ndim=2) for plane in (0, 1)]
    assert list(qubd(weight, bits=2, percentile=None).planes) == planes


def test_floor_truncates_as_the_first_public_version():
    weight = torch.tensor([0.0, 0.6, 1.9, 2.5, 3.0]).repeat(20, 1).T.reshape(10, 10)
    # A range of 3 + 1e-8 is 3 in float32, so the largest weight keeps the last code.
    codes = torch.tensor([0, 0, 1, 2, 3]).repeat(20, 1).T.reshape(10, 10)
    planes = [bdm(codes >> plane & 1, ndim=2) for plane in (0, 1)]
    assert list(qubd(weight, bits=2, percentile=None, rounding="floor").planes) == planes
    clamped = qubd(normal(64, 64), percentile=90.0, rounding="floor")
    assert clamped.total != qubd(normal(64, 64), percentile=90.0).total


def test_more_than_two_dimensions_are_flattened_but_the_first():
    weight = normal(16, 3, 5, 4)
    assert qubd(weight) == qubd(weight.flatten(1))
    assert qubd(weight).shape == (16, 60)
    assert qubd(weight.to(memory_format=torch.channels_last)) == qubd(weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_points_are_scored_as_their_values_in_float32(dtype):
    weight = normal(32, 40).to(dtype)
    assert qubd(weight) == qubd(weight.float())


def test_a_weight_is_left_as_it_was():
    weight = nn.Parameter(normal(32, 32))
    before = weight.detach().clone()
    for rounding in ("nearest", "floor"):
        qubd(weight, rounding=rounding)
    assert torch.equal(weight, before)


def test_strides_and_lazy_negation_do_not_matter():
    weight = normal(40, 36)
    assert qubd(weight.T) == qubd(weight.T.contiguous())
    negated = torch.complex(weight, weight).conj().imag
    assert negated.is_neg()
    assert qubd(negated) == qubd(-weight)


@pytest.mark.gpu
@pytest.mark.parametrize("percentile", [None, 99.9])
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_a_weight_on_a_gpu_has_the_same_score(percentile, rounding):
    weight = normal(515, 1030)
    expected = qubd(weight, percentile=percentile, rounding=rounding)
    found = qubd(weight.cuda(), percentile=percentile, rounding=rounding)
    assert (found.lo, found.hi) == pytest.approx((expected.lo, expected.hi), rel=1e-6)
    # Division on a GPU may round otherwise, so that a code differs here and there.
    assert found.total == pytest.approx(expected.total, rel=1e-4)


# The range


@given(
    number=st.integers(1, 500),
    percentile=st.sampled_from([100.0, 99.9, 99.0, 50.0, 1e-3]),
    seed=st.integers(0, 2**32),
)
def test_the_quantiles_are_those_of_torch(number, percentile, seed):
    values = normal(number, seed=seed)
    cut = (1 - percentile / 100) / 2
    for fraction, found in zip(
        (cut, 1 - cut), _quantiles(values, cut, 1 - cut), strict=True
    ):
        # The rank of the fraction in float32, not rounded again, as torch does from 2.15 on
        exact = torch.quantile(values.double(), float(np.float32(fraction)))
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(exact.item(), rel=1e-6, abs=1e-7)
        assert found.item() == pytest.approx(
            torch.quantile(values, fraction).item(), abs=1e-3
        )


def test_more_weights_than_torch_has_quantiles_for_are_scored():
    weight = torch.linspace(-1, 1, 4100 * 4100).view(4100, 4100)
    assert weight.numel() > 1 << 24
    found = qubd(weight, bits=1, percentile=99.9)
    assert (found.lo, found.hi) == pytest.approx((-0.999, 0.999), rel=1e-6)


def test_the_percentile_is_central():
    weight = torch.arange(1001.0).repeat(4, 1)
    found = qubd(weight, percentile=90.0)
    assert (found.lo, found.hi) == pytest.approx((50, 950), abs=0.5)
    whole = qubd(weight, percentile=100.0)
    assert whole == qubd(weight, percentile=None)


@pytest.mark.parametrize("value", [0.0, 1.5, -3e38])
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("percentile", [None, 99.9])
def test_a_constant_weight_is_zeros_in_every_plane(value, rounding, percentile):
    found = qubd(torch.full((8, 8), value), rounding=rounding, percentile=percentile)
    zeros = bdm(np.zeros((8, 8), int), ndim=2)
    assert found == Qubd(found.total, (zeros,) * 8, (8, 8), found.lo, found.lo)
    assert found.total == pytest.approx(8 * zeros, rel=1e-12)


def test_a_range_below_1e8_is_zeros():
    assert qubd(normal(8, 8) * 1e-10).total == qubd(torch.zeros(8, 8)).total


def test_one_outlier_collapses_the_score_of_the_whole_range_and_not_of_the_percentile():
    """The artefact: the other 65 535 weights are what they were."""
    weight = normal(256, 256)
    outlier = weight.clone()
    outlier[0, 0] = 1000
    whole = qubd(outlier, percentile=None).total / qubd(weight, percentile=None).total
    central = qubd(outlier).total / qubd(weight).total
    assert whole < 0.3
    assert central == pytest.approx(1, abs=0.005)
    # With the range of the outlier, all but the last two planes hold next to nothing.
    planes = qubd(outlier, percentile=None).planes
    assert max(planes[2:]) < 0.01 * qubd(weight).planes[0]


# What has no value


@pytest.mark.parametrize(
    "shape", [(), (100,), (3, 40), (40, 3), (2, 3, 40), (4, 0), (0, 9, 9)]
)
def test_fewer_than_4_rows_or_columns_are_refused(shape):
    message = (
        r"weight must have at least 4 rows and 4 columns after flatten\(1\), got shape \("
    )
    with pytest.raises(ValueError, match=message):
        qubd(torch.zeros(shape))


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("percentile", [None, 99.9])
def test_a_value_that_is_not_finite_is_refused_and_named(bad, percentile):
    weight = normal(8, 8)
    weight[3, 5] = float(bad)
    with pytest.raises(ValueError, match=f"weight must be finite, got {bad}"):
        qubd(weight, percentile=percentile)


def test_a_range_beyond_float32_is_refused():
    weight = 3e38 * normal(8, 8).sign()
    with pytest.raises(ValueError, match="the range of weight must fit float32, got -"):
        qubd(weight, percentile=None)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_what_is_no_floating_point_is_refused(dtype):
    message = f"weight must be a floating-point tensor, got {dtype}"
    with pytest.raises(TypeError, match=message):
        qubd(torch.zeros(8, 8, dtype=dtype))


def test_what_is_no_tensor_or_has_no_values_is_refused():
    with pytest.raises(TypeError, match="must be a floating-point tensor, got ndarray"):
        qubd(np.zeros((8, 8)))
    with pytest.raises(ValueError, match="weight must hold values, got a meta tensor"):
        qubd(torch.zeros(8, 8, device="meta"))


@pytest.mark.parametrize("bits", [0, -1, 25])
def test_bits_are_1_to_24(bits):
    with pytest.raises(ValueError, match=f"bits must be 1 to 24, got {bits}"):
        qubd(torch.zeros(8, 8), bits=bits)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.1, float("nan")])
def test_the_percentile_is_above_0_and_at_most_100(percentile):
    with pytest.raises(
        ValueError, match="percentile must be above 0 and at most 100, got "
    ):
        qubd(torch.zeros(8, 8), percentile=percentile)


def test_roundings_are_two():
    with pytest.raises(
        ValueError, match='rounding must be "nearest" or "floor", got \'up\''
    ):
        qubd(torch.zeros(8, 8), rounding="up")


def test_a_result_does_not_change():
    assert package_qubd is qubd
    with pytest.raises(FrozenInstanceError):
        qubd(torch.zeros(8, 8)).total = 0
