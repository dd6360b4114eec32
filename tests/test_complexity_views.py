"""Every view says of a weight what its name says, of the weight's own bits."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kt_coder import Reader, Writer, bits_of, float_fields
from torch import Tensor

from momos.complexity import (
    byte_planes,
    count_symbols,
    float_code,
    packed,
    raw_bytes,
    sign_exponents,
    signs,
    ternary,
    uniform_codes,
)
from momos.complexity.codes import PIECE
from momos.complexity.views import FORMATS

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
BIAS = {5: 15, 8: 127, 11: 1023}
OTHERS = [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]
BAD = [math.nan, math.inf, -math.inf]

dtypes = st.sampled_from(DTYPES)
lists = st.lists(st.floats(-1e4, 1e4), max_size=60)


def gaussian(num_weights: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_weights, generator=generator).to(dtype)


def any_bits(num_weights: int, dtype: torch.dtype) -> Tensor:
    """Random bits: NaN, infinities and subnormal numbers among them."""
    generator = torch.Generator().manual_seed(0)
    size = (num_weights * dtype.itemsize,)
    return torch.randint(256, size, generator=generator, dtype=torch.uint8).view(dtype)


# Signs


@given(lists, dtypes)
def test_signs_are_those_above_zero_and_ternary_tells_zeros_apart(values, dtype):
    weight = torch.tensor([*values, 0.0, -0.0], dtype=dtype)
    assert signs(weight).tolist() == [value > 0 for value in weight.tolist()]
    assert ternary(weight).tolist() == [
        (value > 0) - (value < 0) + 1 for value in weight.tolist()
    ]
    assert signs(weight).dtype == torch.bool
    assert ternary(weight).dtype == torch.uint8


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_smallest_numbers_have_signs(dtype):
    form = FORMATS[dtype]
    least = torch.tensor([1, -1], dtype=form.bits).abs().view(dtype)
    weight = torch.stack([least[0], -least[1]])
    assert signs(weight).tolist() == [True, False]
    assert ternary(weight).tolist() == [2, 0]


# Uniform codes


@given(lists.filter(bool), dtypes, st.integers(1, 16))
def test_codes_are_the_nearest_of_even_steps(values, dtype, bits):
    weight = torch.tensor(values, dtype=dtype)
    codes = uniform_codes(weight, bits=bits)
    exact = [Fraction(value) for value in weight.tolist()]
    low, high, top = min(exact), max(exact), 2**bits - 1
    assert codes.dtype == (torch.uint8 if bits <= 8 else torch.int32)
    for code, value in zip(codes.tolist(), exact, strict=True):
        place = (value - low) / (high - low) * top if high > low else Fraction(0)
        assert abs(code - place) <= Fraction(1, 2) + Fraction(1, 10**9)


def test_codes_of_the_toy():
    weight = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
    codes = uniform_codes(weight, bits=2)
    assert codes.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("percentile", [100, 99.9, 90, 12.5, 1e-6])
@pytest.mark.parametrize("num_weights", [1, 2, 3, 1_000, 2_001])
def test_a_percentile_cuts_both_ends_alike(dtype, percentile, num_weights):
    weight = gaussian(num_weights, dtype)
    tail = (1 - percentile / 100) / 2
    low, high = np.quantile(weight.double().numpy(), [tail, 1 - tail])
    expected = torch.zeros(num_weights)
    if high > low:
        scaled = (weight.double() - low) / (high - low) * 255
        expected = scaled.round().clamp(0, 255)
    codes = uniform_codes(weight, bits=8, percentile=percentile).double()
    off = (codes - expected).abs()
    assert off.max() <= 1  # where the two quantiles round differently
    assert off.mean() <= (1e-3 if percentile > 1 else 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, -0.0, 3.5, -2.0])
@pytest.mark.parametrize("percentile", [None, 99.9])
def test_a_constant_has_one_code(dtype, value, percentile):
    weight = torch.full((30,), value, dtype=dtype)
    assert uniform_codes(weight, bits=8, percentile=percentile).tolist() == [0] * 30


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_widest_range_that_fits_has_codes(dtype):
    most = torch.finfo(dtype).max / (4 if dtype == torch.float64 else 1)
    weight = torch.tensor([-most, 0, most], dtype=dtype)
    assert uniform_codes(weight, bits=8).tolist() == [0, 128, 255]
    assert uniform_codes(weight, bits=16).tolist() == [0, 32768, 65535]


def test_codes_of_pieces_have_one_range():
    weight = torch.linspace(-1, 1, PIECE + 3)
    codes = uniform_codes(weight, bits=8)
    assert bool((codes[1:] >= codes[:-1]).all())
    assert (codes[0], codes[PIECE // 2], codes[-1]) == (0, 127, 255)


# Floats


@pytest.mark.parametrize("dtype", DTYPES)
def test_fields_make_the_float_again_whatever_it_stands_for(dtype):
    weight = any_bits(5_000, dtype)
    form, (sign, exponent, mantissa) = FORMATS[dtype], float_fields(weight)
    assert int(sign.max()) == 1
    assert int(exponent.max()) == 2**form.exponent - 1
    assert 0 <= int(mantissa.min()) < int(mantissa.max()) < 2**form.mantissa
    assert int(exponent.min()) == 0 or dtype == torch.float64
    head = (sign.long() << form.exponent) + exponent
    assert torch.equal(head, sign_exponents(weight).long())
    joined = (head << form.mantissa) + mantissa.long()
    assert torch.equal(joined.to(form.bits), weight.view(form.bits))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fields_mean_what_ieee_754_says(dtype):
    weight = gaussian(1_000, dtype)
    weight = weight[weight.abs() > 1e-3]
    form, (sign, exponent, mantissa) = FORMATS[dtype], float_fields(weight)
    value = (1 + mantissa.double() / 2**form.mantissa) * 2.0 ** (
        exponent.double() - BIAS[form.exponent]
    )
    assert torch.equal(torch.where(sign == 1, -value, value), weight.double())


def write_floats(writer: Writer, weight: Tensor) -> None:
    form = FORMATS[weight.dtype]
    writer.symbols(sign_exponents(weight).flatten().tolist(), 2 << form.exponent)
    for mantissa in float_fields(weight)[2].flatten().tolist():
        writer.raw(mantissa, form.mantissa)


def read_floats(reader: Reader, count: int, dtype: torch.dtype) -> Tensor:
    form = FORMATS[dtype]
    heads = reader.symbols(count, 2 << form.exponent)
    whole = [(head << form.mantissa) + reader.raw(form.mantissa) for head in heads]
    width = 8 * dtype.itemsize
    signed = [number - ((number >> (width - 1)) << width) for number in whole]
    return torch.tensor(signed, dtype=form.bits).view(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [gaussian, any_bits])
@pytest.mark.parametrize("num_weights", [0, 1, 3_000])
def test_the_float_code_decodes(dtype, make, num_weights):
    weight, form = make(num_weights, dtype), FORMATS[dtype]
    writer = Writer()
    write_floats(writer, weight)
    back = read_floats(Reader(writer.words()), num_weights, dtype)
    assert torch.equal(back.view(form.bits), weight.view(form.bits))
    length = float_code(weight)
    assert abs(bits_of(writer.words()) - length) <= 0.001 * length + 48


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        (torch.float16, 13.55),
        (torch.bfloat16, 10.55),
        (torch.float32, 26.55),
        (torch.float64, 55.55),
    ],
)
def test_of_gaussian_weights_the_float_code_leaves_the_exponents_few_bits(dtype, bits):
    assert float_code(gaussian(1_000_000, dtype)) / 1e6 == pytest.approx(bits, abs=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_and_the_shape_of_weights_is_nothing_to_the_float_code(dtype):
    weight = gaussian(6_000, dtype)
    assert (
        float_code(weight) == float_code(weight.flip(0)) == float_code(weight.view(60, 100))
    )
    assert float_code(weight[::2]) == float_code(weight[::2].clone())


def test_the_float_code_counts_pieces_as_one():
    weight = gaussian(PIECE + 5)
    counts = count_symbols(sign_exponents(weight), alphabet=512)
    assert int(counts.sum()) == PIECE + 5
    halves = float_code(weight[:PIECE]) + float_code(weight[PIECE:])
    assert float_code(weight) < halves


# Bytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_byte_planes_are_the_bytes_of_the_values(dtype):
    weight = any_bits(300, dtype).view(3, 100)
    planes = byte_planes(weight)
    assert planes.shape == (dtype.itemsize, 300)
    assert planes.T.flatten().tolist() == list(raw_bytes(weight))
    assert raw_bytes(weight) == weight.flatten().view(torch.int16).numpy().tobytes()


@given(st.lists(st.booleans(), max_size=40))
def test_packed_bits_are_eight_in_a_byte_the_first_leading(bits):
    whole = "".join(str(int(bit)) for bit in bits)
    whole += "0" * (-len(whole) % 8)
    expected = bytes(int(whole[i : i + 8], 2) for i in range(0, len(whole), 8))
    assert packed(torch.tensor(bits, dtype=torch.bool)) == expected
    assert len(raw_bytes(torch.tensor(bits, dtype=torch.bool))) == len(bits)


# All views


VIEWS = {
    "signs": signs,
    "ternary": ternary,
    "uniform_codes": lambda weight: uniform_codes(weight, bits=8, percentile=99.9),
    "sign_exponents": sign_exponents,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (), (7,), (3, 4), (2, 3, 4, 5)])
def test_views_keep_the_shape_and_leave_the_weight_alone(view, dtype, shape):
    weight = torch.nn.Parameter(gaussian(math.prod(shape), dtype).view(shape))
    before = weight.detach().clone()
    assert view(weight).shape == shape
    assert not view(weight).requires_grad
    assert torch.equal(weight, before)
    if len(shape) > 1:
        turned = weight.detach().transpose(0, 1)
        assert torch.equal(view(turned), view(weight).transpose(0, 1))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (), (7,), (3, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_and_lengths_are_there_for_every_shape(shape, dtype):
    weight = torch.nn.Parameter(gaussian(math.prod(shape), dtype).view(shape))
    assert len(raw_bytes(weight)) == byte_planes(weight).numel()
    assert len(raw_bytes(weight)) == weight.numel() * dtype.itemsize
    assert float_code(weight) >= weight.numel() * FORMATS[dtype].mantissa
    assert len(packed(signs(weight))) == math.ceil(weight.numel() / 8)


@pytest.mark.parametrize("view", list(VIEWS.values())[:3], ids=list(VIEWS)[:3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", BAD)
def test_views_of_values_refuse_what_is_not_finite(view, dtype, bad):
    weight = gaussian(PIECE + 9, dtype)
    weight[[3, PIECE + 2]] = bad
    with pytest.raises(ValueError, match="must be finite, got 2 NaN or infinite values"):
        view(weight)


@pytest.mark.parametrize("view", [*VIEWS.values(), float_code], ids=[*VIEWS, "float_code"])
@pytest.mark.parametrize("dtype", OTHERS)
def test_views_of_floats_refuse_other_numbers(view, dtype):
    message = "weight must be float16, bfloat16, float32 or float64, got "
    with pytest.raises(TypeError, match=message + str(dtype).removeprefix("torch.")):
        view(torch.ones(3).to(dtype))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "bits must be 1 to 16, got 0"),
        ({"bits": 17}, "bits must be 1 to 16, got 17"),
        ({"bits": 8, "percentile": 0}, "above 0 and at most 100, got 0"),
        ({"bits": 8, "percentile": 100.1}, "above 0 and at most 100, got 100.1"),
        ({"bits": 8, "percentile": math.nan}, "above 0 and at most 100, got nan"),
    ],
)
def test_codes_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        uniform_codes(torch.ones(3), **settings)


def test_a_range_beyond_float64_is_refused():
    weight = torch.tensor([-1e308, 1e308], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"must be finite, got -1e\+308 to 1e\+308"):
        uniform_codes(weight, bits=8)


def test_only_booleans_are_packed():
    with pytest.raises(TypeError, match=r"bits must be booleans, got torch\.uint8"):
        packed(torch.ones(8, dtype=torch.uint8))
