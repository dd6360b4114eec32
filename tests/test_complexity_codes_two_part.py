"""The two-part code is a code: a decoder that knows only the dtype gets the mosaic back."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kt_coder import Reader, Writer, bits_of, float_fields
from torch import Tensor

from momos.complexity import (
    elias_delta_bits,
    float_code,
    kt_code,
    sign_exponents,
    two_part_code,
)
from momos.complexity.views import FORMATS

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64]


def encode(motifs: Tensor, indices: Tensor):
    """As the docstring says: sizes, then the used motifs, then the indices."""
    used, among = indices.long().unique(return_inverse=True)
    dictionary = motifs[used]
    writer = Writer()
    for size in (motifs.shape[1], len(used), len(indices)):
        writer.size(size)
    if motifs.dtype == torch.int8:
        writer.symbols(dictionary.view(torch.uint8).flatten().tolist(), 256)
    else:
        form = FORMATS[motifs.dtype]
        writer.symbols(sign_exponents(dictionary).flatten().tolist(), 2 << form.exponent)
        for mantissa in float_fields(dictionary)[2].flatten().tolist():
            writer.raw(mantissa, form.mantissa)
    writer.symbols(among.tolist(), max(len(used), 1))
    return writer.words()


def decode(words, dtype: torch.dtype) -> Tensor:
    """The blocks."""
    reader = Reader(words)
    s, k, m = reader.size(), reader.size(), reader.size()
    if dtype == torch.int8:
        values = torch.tensor(reader.symbols(k * s, 256), dtype=torch.uint8)
        motifs = values.view(torch.int8).view(k, s)
        return motifs[torch.tensor(reader.symbols(m, max(k, 1)), dtype=torch.int64)]
    form = FORMATS[dtype]
    heads = reader.symbols(k * s, 2 << form.exponent)
    whole = [(head << form.mantissa) + reader.raw(form.mantissa) for head in heads]
    width = 8 * dtype.itemsize
    signed = [number - ((number >> (width - 1)) << width) for number in whole]
    motifs = torch.tensor(signed, dtype=form.bits).view(dtype).view(k, s)
    return motifs[torch.tensor(reader.symbols(m, max(k, 1)), dtype=torch.int64)]


@st.composite
def mosaics(draw):
    dtype = draw(st.sampled_from([*DTYPES, torch.int8]))
    k, s = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    indices = draw(st.lists(st.integers(0, k - 1), max_size=60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    motifs = torch.randn(k, s, generator=generator).mul(9).to(dtype)
    motifs[0] = 0
    return motifs, torch.tensor(indices, dtype=torch.int64)


def skewed(num_motifs: int, block_size: int, num_blocks: int):
    generator = torch.Generator().manual_seed(0)
    motifs = torch.randn(num_motifs, block_size, generator=generator)
    shares = torch.rand(num_blocks, generator=generator) ** 3
    return motifs, (shares * num_motifs).long()


@given(mosaics())
def test_it_decodes_in_as_many_bits_as_it_says(mosaic):
    motifs, indices = mosaic
    words = encode(motifs, indices)
    assert torch.equal(decode(words, motifs.dtype), motifs[indices])
    length = two_part_code(motifs, indices, num_motifs=len(motifs)).total
    assert abs(bits_of(words) - length) <= 0.01 * length + 64


@pytest.mark.parametrize("shape", [(40, 4, 3_000), (300, 2, 4_000)])
def test_larger_mosaics_decode_too(shape):
    motifs, indices = skewed(*shape)
    words = encode(motifs, indices)
    assert torch.equal(decode(words, motifs.dtype), motifs[indices])
    length = two_part_code(motifs, indices, num_motifs=len(motifs)).total
    assert abs(bits_of(words) - length) <= 0.001 * length + 64


@given(mosaics())
def test_its_parts_are_the_codes_of_its_parts(mosaic):
    motifs, indices = mosaic
    part = two_part_code(motifs, indices, num_motifs=len(motifs))
    used, among = indices.unique(return_inverse=True)
    assert part.num_used == len(used)
    whole = motifs.dtype == torch.int8
    assert part.dictionary == (
        kt_code(motifs[used].view(torch.uint8), alphabet=256)
        if whole
        else float_code(motifs[used])
    )
    assert part.mosaic == pytest.approx(
        kt_code(among, alphabet=max(len(used), 1)), abs=1e-9
    )
    sizes = (motifs.shape[1], len(used), len(indices))
    assert part.sizes == sum(elias_delta_bits(size + 1) for size in sizes)
    assert part.total == part.dictionary + part.mosaic + part.sizes


@given(mosaics(), st.integers(1, 20))
def test_motifs_that_no_block_uses_cost_nothing(mosaic, unused):
    motifs, indices = mosaic
    padding = torch.full((unused, motifs.shape[1]), 3.25).to(motifs.dtype)
    part = two_part_code(motifs, indices, num_motifs=len(motifs))
    for longer, shift in (
        (torch.cat([motifs, padding]), 0),
        (torch.cat([padding, motifs]), unused),
    ):
        assert two_part_code(longer, indices + shift, num_motifs=len(longer)) == part


def test_skewed_usage_is_shorter_than_the_bound_of_the_paper():
    motifs, indices = skewed(262, 4, 250_000)
    part = two_part_code(motifs, indices, num_motifs=262)
    bound = 262 * 4 * 32 + 250_000 * math.ceil(math.log2(262))
    assert part.total < 0.9 * bound


def test_uniform_usage_saves_the_ceiling():
    # complexity.md §6: 2.04 bits for each of 1e6 weights, where nine bits a block make 2.28.
    generator = torch.Generator().manual_seed(0)
    motifs = torch.randn(262, 4, generator=generator)
    indices = torch.randint(262, (250_000,), generator=generator)
    part = two_part_code(motifs, indices, num_motifs=262)
    assert part.total / 1e6 == pytest.approx(2.04, abs=0.01)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_type_of_the_indices_is_nothing_to_the_code(dtype):
    motifs, indices = skewed(200, 3, 2_000)
    part = two_part_code(motifs, indices, num_motifs=200)
    assert two_part_code(motifs, indices.to(dtype), num_motifs=200) == part


def test_a_mosaic_of_no_blocks_is_its_sizes():
    part = two_part_code(torch.ones(3, 4), torch.zeros(0, dtype=torch.uint8), num_motifs=3)
    assert (part.dictionary, part.mosaic, part.num_used) == (0, 0, 0)
    assert part.total == part.sizes == elias_delta_bits(5) + 2


@pytest.mark.parametrize("index", [-1, 3, 2**40])
def test_an_index_that_names_no_motif_is_refused(index):
    indices = torch.tensor([0, index, 2])
    message = f"indices must be 0 to 2, got {min(index, 0)} to {max(index, 2)}"
    with pytest.raises(ValueError, match=message):
        two_part_code(torch.ones(3, 4), indices, num_motifs=3)


@pytest.mark.parametrize("shape", [(2, 4), (4, 4), (3,), (3, 4, 1)])
def test_the_motifs_are_as_many_as_said(shape):
    with pytest.raises(ValueError, match=r"motif_values must have shape \(3, s\), got \("):
        two_part_code(torch.ones(shape), torch.tensor([0]), num_motifs=3)


def test_other_numbers_are_refused():
    with pytest.raises(TypeError, match=r"indices must be integers, got torch\.float32"):
        two_part_code(torch.ones(3, 4), torch.ones(3), num_motifs=3)
    with pytest.raises(TypeError, match=r"indices must be integers, got torch\.bool"):
        two_part_code(torch.ones(3, 4), torch.ones(3).bool(), num_motifs=3)
    with pytest.raises(TypeError, match=r"weight must be float16, .*, got int64"):
        two_part_code(torch.ones(3, 4).long(), torch.tensor([0]), num_motifs=3)
    with pytest.raises(ValueError, match=r"indices must have shape \(m,\), got \(2, 2\)"):
        two_part_code(torch.ones(3, 4), torch.zeros(2, 2).long(), num_motifs=3)
