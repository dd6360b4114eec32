"""Values of every dtype come back bit for bit, and in no more bytes than they have."""

import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from momos.codec import DEFLATE, PACK_VALUES, CorruptError, Pack, Stream, pack, unpack
from momos.codec.planes import RAW
from momos.files.manifest import DTYPES

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def of_bytes(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Values of these bytes; no arithmetic touches them."""
    return (data & 1 if dtype == torch.bool else data).view(dtype)


def random_bytes(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count,), generator=generator, dtype=torch.uint8)


def unpacked(packed: Pack, count: int, dtype: torch.dtype) -> Tensor:
    """The bytes of the values."""
    data = torch.full((count * dtype.itemsize,), 7, dtype=torch.uint8)
    unpack(packed, data.view(dtype))
    return data


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@given(data=st.data())
def test_values_are_unpacked_bit_for_bit(dtype, data):
    count = data.draw(st.integers(0, 200))
    kind = data.draw(st.sampled_from(["random", "equal", "few", "zero"]))
    raw = random_bytes(count * dtype.itemsize, data.draw(st.integers(0, 99)))
    if kind == "equal" and count:
        raw = raw[: dtype.itemsize].repeat(count)
    elif kind == "few":
        raw &= 0x81
    elif kind == "zero":
        raw.zero_()
    values = of_bytes(raw, dtype)
    packed = pack(values)
    assert len(packed.planes) == dtype.itemsize
    assert packed.num_bytes <= values.nbytes
    assert torch.equal(unpacked(packed, count, dtype), values.view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("count", [65_537, PACK_VALUES])
def test_long_packs_are_unpacked_bit_for_bit(dtype, count):
    if dtype.itemsize > 4 and count == PACK_VALUES:
        count //= 4  # as many bytes as the others
    raw = random_bytes(count * dtype.itemsize)
    raw[::3] = 0
    values = of_bytes(raw, dtype)
    packed = pack(values)
    assert torch.equal(unpacked(packed, count, dtype), values.view(torch.uint8))


@pytest.mark.parametrize("dtype", FLOATS)
def test_values_that_are_not_numbers_are_unpacked_bit_for_bit(dtype):
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    special = torch.tensor([-0.0, 0.0, torch.inf, -torch.inf, torch.nan], dtype=dtype)
    payloads = special.view(bits)[-1:] | torch.arange(50, dtype=bits)
    values = torch.cat([special.view(bits), payloads, -payloads]).view(dtype)
    assert int(values.isnan().sum()) > 50
    found = unpacked(pack(values), len(values), dtype).view(bits)
    assert torch.equal(found, values.view(bits))


# Length


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("count", [0, 1, 100, 65_536, PACK_VALUES])
def test_zeros_take_next_to_nothing(dtype, count):
    values = of_bytes(torch.zeros(count * dtype.itemsize, dtype=torch.uint8), dtype)
    assert pack(values).num_bytes <= 8 * dtype.itemsize


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.complex128])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 1000, 70_000])
def test_random_bytes_take_no_more_than_they_are(dtype, count):
    values = of_bytes(random_bytes(count * dtype.itemsize), dtype)
    packed = pack(values)
    assert packed.num_bytes <= values.nbytes
    assert all(plane.rate == RAW for plane in packed.planes if count >= 1000)


@pytest.mark.parametrize("dtype", FLOATS)
def test_weights_take_less_than_they_are(dtype):
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(100_000, generator=generator, dtype=torch.float64) / 30).to(dtype)
    exponents = {torch.float16: 0.92, torch.bfloat16: 0.75, torch.float32: 0.87}
    assert pack(values).num_bytes <= exponents.get(dtype, 0.95) * values.nbytes


@pytest.mark.parametrize(
    "values",
    [
        torch.arange(100_000),
        torch.ones(400, 400, dtype=torch.bool).tril().flatten(),
        torch.arange(1000).repeat(50).int(),
    ],
    ids=["numbers", "triangle", "repeats"],
)
def test_patterns_are_deflated(values):
    packed = pack(values)
    assert DEFLATE in [plane.rate for plane in packed.planes]
    assert packed.num_bytes <= 0.02 * values.nbytes
    found = unpacked(packed, len(values), values.dtype)
    assert torch.equal(found, values.view(torch.uint8))


def test_no_plane_is_longer_than_by_any_of_the_three_ways():
    for values in (torch.arange(3000.0), torch.linspace(-1, 1, 5000), torch.zeros(9)):
        planes = values.view(torch.uint8).view(-1, 4).T.contiguous()
        for plane, stream in zip(planes, pack(values).planes, strict=True):
            data = plane.numpy().tobytes()
            assert len(stream.data) <= len(data)
            assert len(stream.data) <= 1.01 * len(zlib.compress(data, 9)) + 8


# What is refused


@pytest.mark.parametrize("rate", [RAW, DEFLATE])
@pytest.mark.parametrize("count", [0, 9, 11])
def test_a_plane_of_another_length_is_refused(rate, count):
    data = bytes(count)
    stream = Stream(rate, zlib.compress(data) if rate == DEFLATE else data)
    with pytest.raises(CorruptError, match=f"a plane must have 10 bytes, got {count}"):
        unpack(Pack([stream]), torch.zeros(10, dtype=torch.uint8))


def test_a_pack_with_another_number_of_planes_is_refused():
    for count in (0, 3, 5):
        with pytest.raises(CorruptError):
            unpack(Pack([Stream(RAW, bytes(6))] * count), torch.zeros(6))


@pytest.mark.parametrize("data", [bytes([0, 1, 2]), bytes([255, 0, 1])])
def test_a_bool_that_is_neither_0_nor_1_is_refused(data):
    with pytest.raises(CorruptError, match="a bool must be stored as 0 or 1"):
        unpack(Pack([Stream(RAW, data)]), torch.zeros(3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must end with its zlib stream"),
        (b"no zlib", "must be a zlib stream"),
        (zlib.compress(bytes(10))[:-1], "must end with its zlib stream"),
        (zlib.compress(bytes(10)) + b"x", "must end with its zlib stream"),
        (zlib.compress(bytes(10))[:-1] + b"x", "must be a zlib stream"),
    ],
)
def test_a_deflated_plane_is_one_whole_zlib_stream(data, message):
    with pytest.raises(CorruptError, match=message):
        unpack(Pack([Stream(DEFLATE, data)]), torch.zeros(10, dtype=torch.uint8))


def test_a_bomb_is_refused_before_it_takes_memory():
    bomb = zlib.compress(bytes(1 << 26), 9)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError):
            unpack(Pack([Stream(DEFLATE, bomb)]), torch.zeros(10, dtype=torch.uint8))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(data=st.binary(max_size=80), rate=st.integers(0, 32), count=st.integers(0, 70))
def test_any_bytes_are_refused_or_a_plane(data, rate, count):
    values = torch.zeros(count, dtype=torch.uint8)
    try:
        unpack(Pack([Stream(rate, data)]), values)
    except CorruptError:
        return
    assert rate or values.numpy().tobytes() == data
    assert rate != DEFLATE or zlib.decompress(data) == values.numpy().tobytes()


@pytest.mark.parametrize("count", [0, 1])
def test_values_are_contiguous_whatever_the_stride_of_less_than_two(count):
    values = torch.from_numpy(np.zeros(12, np.float32)[::12][:count])
    assert values.is_contiguous()
    assert torch.equal(
        unpacked(pack(values), count, torch.float32).view(torch.float32), values
    )
