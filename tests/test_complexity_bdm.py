"""BDM has the values of pybdm, and refuses what has none."""

import hashlib
import json
import math
import sys
from collections import Counter
from importlib import metadata
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momos.complexity import bdm, block_counts, ordered_bdm, ordered_length, score
from momos.complexity.ctm import count, sequence_table, square_table, tiles

REFERENCE = json.loads(
    (Path(__file__).parent / "reference/pybdm_reference.json").read_text()
)
INPUTS = {entry["name"]: entry for entry in REFERENCE["bdm_1d"] + REFERENCE["bdm_2d"]}
# What to ask for, the reference's name for it
SETTINGS = [
    ({}, "bdm_ignore"),
    ({"boundary": "recursive"}, "bdm_recursive_min2"),
    ({"boundary": "correlated"}, "bdm_correlated_shift1"),
    ({"normalized": True}, "nbdm_ignore"),
]
PARTITIONS = {
    "ignore": "PartitionIgnore",
    "recursive": "PartitionRecursive",
    "correlated": "PartitionCorrelated",
}
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint64"]
binary_inputs = st.builds(
    lambda seed, density, shape: np.random.default_rng(seed).random(shape) < density,
    st.integers(0, 2**32),
    st.sampled_from([0, 0.1, 0.5]),
    st.integers(12, 130) | st.tuples(st.integers(4, 14), st.integers(4, 20)),
)


def made(entry: dict) -> np.ndarray:
    bits = eval(entry["make"], {"np": np})  # an expression of our own reference file
    digest = hashlib.sha256(bits.astype(np.uint8).tobytes()).hexdigest()
    assert digest == entry["sha256_uint8"]
    return bits


def bdm_reference(bits: np.ndarray) -> float:
    """The definition of `bdm`, block by block."""
    edge = 12 if bits.ndim == 1 else 4
    shape = tuple(side // edge for side in bits.shape)
    starts = [[edge * i for i in start] for start in np.ndindex(*shape)]
    blocks = [bits[tuple(slice(i, i + edge) for i in start)] for start in starts]
    found = Counter(
        int("".join(str(int(cell)) for cell in block.flat), 2) for block in blocks
    )
    table = sequence_table(12) if bits.ndim == 1 else square_table(4)
    return math.fsum(table[block] + math.log2(number) for block, number in found.items())


@pytest.fixture
def pybdm(monkeypatch) -> ModuleType:
    """pybdm itself, with the one function it needs of pkg_resources."""
    folder = metadata.distribution("pybdm").locate_file("pybdm/ctmdata")
    shim = ModuleType("pkg_resources")
    vars(shim)["resource_stream"] = lambda _, name: BytesIO(
        Path(str(folder), name).read_bytes()
    )
    monkeypatch.setitem(sys.modules, "pkg_resources", shim)
    import pybdm

    return pybdm


# The values


@pytest.mark.parametrize(
    ("name", "settings", "key"),
    [
        (name, settings, key)
        for name, entry in INPUTS.items()
        for settings, key in SETTINGS
        if key in entry  # the longest were too long for pybdm
    ],
)
def test_the_values_are_those_of_pybdm(name, settings, key):
    entry = INPUTS[name]
    bits, expected = made(entry), entry[key]
    if isinstance(expected, str) or (expected == 0 and not settings.get("normalized")):
        with pytest.raises(ValueError, match="bdm needs at least"):
            bdm(bits, ndim=bits.ndim, **settings)
    else:
        value = bdm(bits, ndim=bits.ndim, **settings)
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize(
    ("boundary", "normalized"),
    [
        ("ignore", False),
        ("ignore", True),
        ("recursive", False),
        ("recursive", True),
        ("correlated", False),  # pybdm does not normalize it either
    ],
)
def test_any_input_has_the_value_that_pybdm_gives_it(boundary, normalized, pybdm):
    generator = np.random.default_rng(0)
    partition = getattr(pybdm.partitions, PARTITIONS[boundary])
    measures = {ndim: pybdm.BDM(ndim, partition=partition) for ndim in (1, 2)}
    least, narrowest = (3, 2) if boundary == "recursive" else (12, 4)
    shapes = [(n,) for n in range(least, 50)]
    shapes += [(h, w) for h in range(narrowest, 10) for w in range(narrowest, 10)]
    if boundary == "recursive" and normalized:
        # For others pybdm looks for tables of rectangles, which do not exist.
        shapes = [(n,) for n in range(least, 50)] + [(4, 4), (4, 8), (8, 4), (8, 8)]
    for shape in shapes:
        bits = (generator.random(shape) < generator.choice([0.1, 0.5])).astype(int)
        expected = measures[bits.ndim].bdm(bits, normalized=normalized)
        value = bdm(bits, ndim=bits.ndim, boundary=boundary, normalized=normalized)
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-13), shape


@given(bits=binary_inputs)
def test_the_value_is_that_of_the_definition(bits):
    assert bdm(bits, ndim=bits.ndim) == pytest.approx(bdm_reference(bits), rel=1e-12)


@pytest.mark.parametrize(("edge", "ratio"), [(8, 0.1976), (16, 0.0535), (32, 0.0144)])
def test_zeros_have_the_offsets_that_the_paper_shows(edge, ratio):
    distinct = (edge / 4) ** 2 * square_table(4).mean()
    zeros = bdm(np.zeros((edge, edge), np.uint8), ndim=2)
    assert round(zeros / distinct, 4) == ratio


def test_every_block_once_scores_the_most_there_is():
    bits = (np.arange(4096)[:, None] >> np.arange(11, -1, -1) & 1).reshape(-1)
    assert bdm(bits, normalized=True) == pytest.approx(1, rel=1e-12)
    assert bdm(bits) == pytest.approx(sequence_table(12).sum(), rel=1e-12)


@pytest.mark.parametrize("boundary", ["ignore", "correlated"])
def test_complement_and_reversal_do_not_change_the_score(boundary):
    bits = np.random.default_rng(0).random(1200) < 0.3
    value = bdm(bits, boundary=boundary)
    assert bdm(~bits, boundary=boundary) == pytest.approx(value, rel=1e-12)
    assert bdm(bits[::-1], boundary=boundary) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("boundary", ["ignore", "correlated"])
@pytest.mark.parametrize(
    "change", [np.invert, np.transpose, np.flipud, np.fliplr, np.rot90]
)
def test_complement_reflection_and_rotation_do_not_change_the_score(change, boundary):
    bits = np.random.default_rng(0).random((40, 64)) < 0.3
    value = bdm(bits, ndim=2, boundary=boundary)
    assert bdm(change(bits), ndim=2, boundary=boundary) == pytest.approx(value, rel=1e-12)


# The counts


@given(bits=binary_inputs)
def test_the_packed_counts_are_those_of_the_definition(bits):
    cells = bits.view(np.uint8)
    expected = count(cells, 12 if bits.ndim == 1 else 4)
    assert np.array_equal(tiles(cells), expected)
    assert expected.sum() == math.prod(
        n // (12 if bits.ndim == 1 else 4) for n in bits.shape
    )


@given(
    bits=binary_inputs,
    dtype=st.sampled_from(DTYPES),
    boundary=st.sampled_from(list(PARTITIONS)),
)
def test_arrays_and_tensors_of_any_integers_have_one_value(bits, dtype, boundary):
    typed = bits.astype(dtype)
    value = bdm(bits, ndim=bits.ndim, boundary=boundary)
    assert bdm(typed, ndim=bits.ndim, boundary=boundary) == value
    assert bdm(torch.from_numpy(typed), ndim=bits.ndim, boundary=boundary) == value


@given(bits=binary_inputs, sliding=st.booleans())
def test_tensors_are_counted_as_arrays_are(bits, sliding):
    edge, cells = 12 if bits.ndim == 1 else 4, bits.view(np.uint8)
    found = count(torch.from_numpy(cells), edge, sliding=sliding)
    assert np.array_equal(found, count(cells, edge, sliding=sliding))


@pytest.mark.gpu
@pytest.mark.parametrize("boundary", PARTITIONS)
def test_tensors_on_a_gpu_are_counted_as_arrays_are(boundary):
    bits = torch.from_numpy(np.random.default_rng(0).random((1003, 2005)) < 0.3)
    for dtype in (torch.bool, torch.uint8, torch.int64):
        on_gpu = bits.to("cuda", dtype)
        assert bdm(on_gpu, boundary=boundary) == bdm(bits, boundary=boundary)
        assert bdm(on_gpu, ndim=2, boundary=boundary) == bdm(
            bits, ndim=2, boundary=boundary
        )
    with pytest.raises(ValueError, match="bits must be 0 or 1, got 2"):
        bdm(on_gpu + 1)


def test_one_dimension_flattens_and_strides_do_not_matter():
    bits = np.random.default_rng(0).random((30, 50)) < 0.3
    assert bdm(bits) == bdm(bits.reshape(-1))
    assert bdm(bits.T) == bdm(np.ascontiguousarray(bits.T))
    assert bdm(bits[::2, ::-3], ndim=2) == bdm(bits[::2, ::-3].copy(), ndim=2)
    assert bdm(torch.from_numpy(bits).T, ndim=2) == bdm(bits.T, ndim=2)


def test_an_array_that_cannot_be_written_is_measured():
    bits = np.zeros(24, np.uint8)
    bits.flags.writeable = False
    assert bdm(bits) == pytest.approx(26.610413747641715, rel=1e-12)


@pytest.mark.parametrize(("ndim", "shape"), [(1, (12 * 50 + 7,)), (2, (4 * 12 + 3, 30))])
def test_the_counts_of_pieces_add_up(ndim, shape):
    bits = np.random.default_rng(0).random(shape) < 0.3
    step = 12 * 7 if ndim == 1 else 4 * 5
    pieces = [bits[i : i + step] for i in range(0, len(bits), step)]
    total = sum(block_counts(piece, ndim) for piece in pieces)
    assert np.array_equal(total, block_counts(bits, ndim))
    assert score(total) == bdm(bits, ndim=ndim)
    assert ordered_length(total, bits.shape) == ordered_bdm(bits, ndim=ndim)


def test_counting_many_blocks_is_counting_them_in_pieces():
    bits = np.random.default_rng(0).integers(0, 2, 7_000_003, dtype=np.uint8)
    assert np.array_equal(block_counts(bits), count(bits, 12))
    for shape in [(1400, 5000), (4, 1_750_000), (1_000_000, 7), (1_750_000, 4)]:
        matrix = bits[:7_000_000].reshape(shape)
        assert np.array_equal(block_counts(matrix, 2), count(matrix, 4))


def test_a_score_needs_counts_of_blocks():
    with pytest.raises(
        ValueError, match=r"counts must have shape \(4096,\) or .* got \(7,\)"
    ):
        score(np.ones(7, np.int64))
    with pytest.raises(ValueError, match="counts must hold at least one block, got none"):
        score(block_counts(np.zeros(11, int)))


# What has no value


@pytest.mark.parametrize(
    ("shape", "boundary", "message"),
    [
        (11, "ignore", "bdm needs at least 12 bits with boundary='ignore', got 11"),
        (0, "ignore", "bdm needs at least 12 bits with boundary='ignore', got 0"),
        (11, "correlated", "bdm needs at least 12 bits with boundary='correlated', got 11"),
        (1, "recursive", "bdm needs at least 2 bits with boundary='recursive', got 1"),
        ((3, 40), "ignore", "bdm needs at least 4×4 bits with boundary='ignore', got 3×40"),
        ((40, 3), "correlated", "at least 4×4 bits with boundary='correlated', got 40×3"),
        ((40, 1), "recursive", "at least 2×2 bits with boundary='recursive', got 40×1"),
    ],
)
def test_too_few_bits_are_refused_with_what_is_needed(shape, boundary, message):
    bits = np.zeros(shape, int)
    with pytest.raises(ValueError, match=message):
        bdm(bits, ndim=bits.ndim, boundary=boundary)


@pytest.mark.parametrize("bad", [2, -1, 255, 256, 2**40])
@pytest.mark.parametrize("of", [np.array, torch.tensor])
@pytest.mark.parametrize("boundary", PARTITIONS)
def test_values_other_than_0_and_1_are_refused(bad, of, boundary):
    with pytest.raises(ValueError, match=f"bits must be 0 or 1, got {bad}$"):
        bdm(of([0, 1] * 6 + [bad]), boundary=boundary)


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((25,), 24),  # in no block
        ((24,), 23),
        ((4 * 131_072 * 12 + 1,), -1),  # in a later piece, and in no block
        ((9, 4), (8, 0)),
        ((8, 7), (2, 6)),
        ((4, 6), (3, 5)),
        ((2, 5), (1, 4)),
        ((131_072 * 16 // 4 + 7, 5), (-1, -1)),
    ],
)
@pytest.mark.parametrize("boundary", ["ignore", "recursive"])
def test_a_byte_that_is_not_0_or_1_is_refused_wherever_it_is(shape, place, boundary):
    bits = np.zeros(shape, np.uint8)
    bits[place] = 3
    if min(shape) < 4 and boundary == "ignore":
        with pytest.raises(ValueError, match="bits must be 0 or 1, got 3"):
            block_counts(bits, bits.ndim)
    else:
        with pytest.raises(ValueError, match="bits must be 0 or 1, got 3"):
            bdm(bits, ndim=bits.ndim, boundary=boundary)
    with pytest.raises(ValueError, match="bits must be 0 or 1, got 3"):
        ordered_bdm(torch.from_numpy(bits), ndim=bits.ndim)


@pytest.mark.parametrize(
    ("bits", "found"),
    [
        (np.zeros(12), "float64"),
        (torch.zeros(12), "torch.float32"),
        (torch.zeros(12, dtype=torch.complex64), "torch.complex64"),
        (np.array(["0"] * 12), "<U1"),
    ],
)
def test_numbers_that_are_no_integers_are_refused(bits, found):
    with pytest.raises(TypeError, match=f"bits must be booleans or integers, got {found}"):
        bdm(bits)


def test_what_is_no_array_is_refused():
    with pytest.raises(
        TypeError, match="must be a numpy array or a torch tensor, got list"
    ):
        bdm([0] * 12)
    with pytest.raises(ValueError, match="bits must hold values, got a meta tensor"):
        bdm(torch.zeros(12, dtype=torch.bool, device="meta"))


def test_arguments_are_checked():
    bits = np.zeros((12, 2, 2), int)
    with pytest.raises(ValueError, match="bits must have 2 dimensions for ndim=2, got 3"):
        bdm(bits, ndim=2)
    with pytest.raises(ValueError, match="ndim must be 1 or 2, got 3"):
        bdm(bits, ndim=3)
    with pytest.raises(ValueError, match=r"boundary must be one of .*, got 'wrap'"):
        bdm(bits, boundary="wrap")
    with pytest.raises(
        ValueError, match="normalized must be False for boundary='correlated'"
    ):
        bdm(bits, boundary="correlated", normalized=True)
    with pytest.raises(ValueError, match="blocks of more than one CTM value, got one"):
        bdm(np.array([0, 1]), boundary="recursive", normalized=True)
