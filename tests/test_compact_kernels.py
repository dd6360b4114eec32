"""The CPU kernels agree with their definitions, whatever the instruction set."""

from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from momos.compact import kernels, operators
from momos.compact.bitpack import WIDTHS, index_bits, num_packed_bytes, pack, unpack
from momos.vq import cpu

NAMES = [*cpu.import_module("momos.vq._portable").instruction_sets(), "portable"]
ENGINES = [import_module(f"momos.compact._{name}") for name in NAMES]


@pytest.fixture(params=ENGINES, ids=NAMES)
def engine(request, monkeypatch):
    monkeypatch.setattr(kernels, "native", lambda: request.param)
    return request.param


def some_indices(count, bits):
    generator = torch.Generator().manual_seed(count)
    most = min(1 << bits, 1 << 20)
    return torch.randint(0, most, (count,), generator=generator)


@given(st.sampled_from(WIDTHS), st.integers(0, 40), st.data())
def test_unpacking_undoes_packing(bits, count, data):
    indices = some_indices(count, bits)
    packed = pack(indices, bits)
    assert len(packed) == num_packed_bytes(count, bits)
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    assert torch.equal(unpack(packed, bits, start, stop).long(), indices[start:stop])
    at = torch.arange(start, stop)
    assert torch.equal(operators.named(packed, bits, at).long(), indices[start:stop])


def test_the_fewest_bits_are_taken():
    found = [index_bits(k) for k in (1, 16, 17, 256, 257, 4096, 4097, 65536, 65537)]
    assert found == [4, 4, 8, 8, 12, 12, 16, 16, 32]


def test_packed_bytes_are_little_endian():
    assert pack(torch.tensor([1, 2, 3]), 4).tolist() == [0x21, 0x03]
    assert pack(torch.tensor([0x123, 0x456]), 12).tolist() == [0x23, 0x61, 0x45]
    assert pack(torch.tensor([0x1234], dtype=torch.uint16), 16).tolist() == [0x34, 0x12]


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.bfloat16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("bits", WIDTHS)
def test_decoding_equals_its_definition(engine, bits, dtype):
    for size in (1, 2, 3, 4, 8):
        motifs = (torch.randn(1 << min(bits, 10), size) * 50).to(dtype)
        packed = pack(some_indices(101, bits) % len(motifs), bits)
        for start, stop in ((0, 101), (0, 0), (3, 70), (50, 101)):
            found = kernels.decode(motifs, packed, bits, start, stop)
            wanted = operators.blocks_reference(motifs, packed, bits, start, stop)
            assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("bits", "size"), [(4, 4), (8, 4), (8, 8), (8, 1), (12, 2), (16, 3)]
)
@pytest.mark.parametrize("num_inputs", [1, 3, 17])
def test_products_agree_with_the_dense_product(engine, bits, size, num_inputs):
    torch.manual_seed(bits + size + num_inputs)
    for num_rows, width in ((5, 3 * size + 1), (37, 4 * size), (300, 40 * size)):
        motifs = torch.randn(1 << min(bits, 9), size)
        count = -(-num_rows * width // size)
        packed = pack(some_indices(count, bits) % len(motifs), bits)
        inputs = torch.randn(num_inputs, width)
        dense = operators.blocks_reference(motifs, packed, bits, 0, count).view(-1)
        weight = dense[: num_rows * width].view(num_rows, width).double()
        found = kernels.product(inputs, motifs, packed, bits, num_rows)
        bound = inputs.double().abs() @ weight.abs().T * width * 2**-23
        assert bool(((found - inputs.double() @ weight.T).abs() <= bound).all())


@pytest.mark.parametrize("num_inputs", [1, 4])
def test_a_product_depends_on_neither_threads_nor_other_inputs(engine, num_inputs):
    motifs, inputs = torch.randn(256, 4), torch.randn(num_inputs, 128)
    packed = pack(some_indices(700 * 32, 8), 8)
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(kernels.product(inputs, motifs, packed, 8, 700))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    if num_inputs > 1:
        others = torch.cat([inputs, torch.randn(20, 128)])
        assert torch.equal(kernels.product(others, motifs, packed, 8, 700)[:4], found[0])


def test_an_index_without_a_motif_shows(engine):
    motifs, inputs = torch.randn(200, 4), torch.randn(1, 16)
    packed = torch.full((8 * 4,), 255, dtype=torch.uint8)
    with pytest.raises(ValueError, match="packed indices must be below 200"):
        kernels.decode(motifs, packed, 8, 0, 8)
    for rows in (inputs, inputs.expand(3, 16)):
        assert bool(kernels.product(rows, motifs, packed, 8, 8).isnan().all())
    with pytest.raises(ValueError, match="packed indices must be below 200"):
        kernels.product(torch.randn(1, 15), motifs, packed[:30], 8, 8)


def test_the_kernels_check_their_buffers(engine):
    packed, motifs = torch.zeros(8, dtype=torch.uint8), torch.zeros(4, 2)
    with pytest.raises(ValueError, match="packed indices must be more"):
        kernels.decode(motifs, packed, 8, 0, 9)
    with pytest.raises(ValueError, match="packed indices must have 16 bytes, got 8"):
        kernels.product(torch.zeros(1, 4), motifs, packed, 8, 8)
    with pytest.raises(ValueError, match="bits must be 4, 8, 12, 16 or 32, got 9"):
        kernels.decode(motifs, packed, 9, 0, 1)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_rows_tiles_and_scales_equal_the_dense_weight(data):
    bits = data.draw(st.sampled_from(WIDTHS))
    shape = [data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))]
    size = data.draw(st.integers(1, 5))
    motifs = torch.randn(min(1 << bits, 64), size)
    count = -(-shape[0] * shape[1] // size)
    packed = pack(some_indices(count, bits) % len(motifs), bits)
    axis = data.draw(st.sampled_from([0, 1]))
    scales = data.draw(
        st.sampled_from([None, torch.rand(1) + 0.5, torch.rand(shape[axis]) + 0.5])
    )
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    about = motifs, packed, scales, bits, shape, axis, torch.float32, dtype
    dense = operators.weight(*about)
    for ids in (torch.tensor([shape[0] - 1]), torch.arange(shape[0]).flip(0)):
        assert torch.equal(operators.rows(ids, *about), dense[ids])
    inputs = torch.randn(5, shape[1]).to(dtype)
    before, operators.EXACT_TILE = operators.EXACT_TILE, 4
    try:
        found = operators.linear(inputs, None, *about, True)
    finally:
        operators.EXACT_TILE = before
    wanted = operators.linear_reference(inputs, None, *about, True)
    assert torch.allclose(found.float(), wanted.float(), rtol=1e-2, atol=1e-2)
