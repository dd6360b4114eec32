"""Every compiled engine returns the indices of the definition, index for index."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from fractions import Fraction
from importlib import import_module
from itertools import product
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from momos import nearest, nearest_reference
from momos.vq import cpu
from momos.vq.nearest import searcher

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZES = [1, 2, 3, 4, 5, 8, 16, 17, 40]
# Around the numbers of motifs that the engines take at once: 8, 16, 64, 128, 8 x 64, 8 x 128.
COUNTS = [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1025, 2000]
SETS = ["portable", *import_module("momos.vq._portable").instruction_sets()]
CASES: dict[str, Callable[[Generator], tuple[Tensor, Tensor]]] = {}


def case(make: Callable[[Generator], tuple[Tensor, Tensor]]):
    CASES[make.__name__] = make
    return make


def normal(g: Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)


def lattice(g: Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randint(-2, 3, shape, generator=g).to(dtype)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@contextmanager
def instructions(name: str):
    """The engines as a processor with this instruction set has them."""
    with patch.object(cpu, "native", lambda: import_module(f"momos.vq._{name}")):
        yield


def kinds(block_size: int) -> list[str]:
    return ["grid", "flat"] if block_size <= 2 else ["flat"]


def by_engine(blocks: Tensor, motifs: Tensor, kind: str) -> Tensor:
    wide = torch.float64 in (blocks.dtype, motifs.dtype)
    return cpu.query(cpu.build(motifs, wide=wide, kind=kind), blocks, wide=wide).long()


def assert_exact(blocks: Tensor, motifs: Tensor, name: str) -> None:
    """Both kinds of engine and the choice between them equal the definition."""
    expected = nearest_reference(blocks, motifs)
    with instructions(name):
        found = {kind: by_engine(blocks, motifs, kind) for kind in kinds(blocks.shape[1])}
        found["chosen"] = nearest(blocks, motifs)
    for kind, indices in found.items():
        assert_same(indices, expected, f"{kind}, {name}")
    if blocks.shape[1] > 1:
        assert_exact_without_the_last_value(blocks, motifs, name)


def assert_exact_without_the_last_value(blocks: Tensor, motifs: Tensor, name: str) -> None:
    """The same for blocks whose last value is 0 and is not given."""
    few = blocks[:, :-1]
    expected = nearest_reference(torch.nn.functional.pad(few, (0, 1)), motifs)
    found = {}
    with instructions(name):
        found["chosen"] = searcher(motifs, padded=True)(few).long()
        wide = torch.float64 in (blocks.dtype, motifs.dtype)
        for count in (0, 10**4, 10**6) if blocks.shape[1] <= 3 else ():
            engine = cpu.build(motifs, wide=wide, kind="cells", num_blocks=count)
            if cpu.native().candidates(engine) <= len(motifs):  # not infinite: it gave up
                found[f"cells for {count}"] = cpu.query(engine, few, wide=wide).long()
    for kind, indices in found.items():
        assert_same(indices, expected, f"{kind}, {name}")


def assert_same(found: Tensor, expected: Tensor, what: str) -> None:
    wrong = (found != expected).nonzero()[:, 0].tolist()
    told = [f"block {i}: {found[i]} for {expected[i]}" for i in wrong[:5]]
    assert not wrong, f"{what}: {len(wrong)} wrong, {told}"


# The definition itself


@given(
    data=st.data(), shape=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 4))
)
def test_the_definition_is_the_first_of_the_smallest_squared_distances(data, shape):
    (m, k, s), number = shape, st.integers(-3, 3)
    rows = st.lists(number, min_size=s, max_size=s)
    blocks = data.draw(st.lists(rows, min_size=m, max_size=m))
    motifs = data.draw(st.lists(rows, min_size=k, max_size=k))
    found = nearest_reference(torch.tensor(blocks) / 8, torch.tensor(motifs) / 8)
    for block, index in zip(blocks, found.tolist(), strict=True):
        distances = [
            sum(Fraction(b - z) ** 2 for b, z in zip(block, motif, strict=True))
            for motif in motifs
        ]
        assert index == distances.index(min(distances))


def test_the_definition_sums_in_order_of_position():
    # Both are 2^54 + 3.125; what is added to 2^54 bit by bit, each bit below 2, is lost.
    motifs = torch.tensor(
        [[1.25, 1.25, 2.0**27], [2.0**27, 1.25, 1.25]], dtype=torch.float64
    )
    assert nearest_reference(torch.zeros(1, 3, dtype=torch.float64), motifs).item() == 1


# Cases that broke, or were written to break, one engine or another


@case
def zeros(_):
    return torch.zeros(90, 2), torch.zeros(70, 2)


@case
def signed_zeros(g):
    return -torch.zeros(70, 2), torch.cat([normal(g, 20, 2), torch.zeros(2, 2)])


@case
def mostly_zeros(g):
    return normal(g, 400, 2).relu(), normal(g, 300, 2).relu()


@case
def ties_on_a_lattice_of_1(g):
    return lattice(g, 300, 1) / 2, lattice(g, 90, 1)


@case
def ties_on_a_lattice_of_2(g):
    return lattice(g, 300, 2) / 2, lattice(g, 90, 2)


@case
def ties_on_a_lattice_of_4(g):
    return lattice(g, 300, 4) / 2, lattice(g, 700, 4)


@case
def ties_on_a_lattice_of_16(g):
    return lattice(g, 300, 16) / 2, lattice(g, 700, 16)


@case
def ties_across_the_whole_grid(g):
    angle = torch.arange(64) * (torch.pi / 32)
    circle = torch.stack([angle.cos(), angle.sin()], 1).double()
    corners = torch.tensor([[3.0, 4.0], [4.0, 3.0], [-3.0, 4.0], [5.0, 0.0], [0.0, -5.0]])
    return torch.zeros(9, 2).double(), torch.cat([8 * circle, corners.double(), 9 * circle])


@case
def copies_of_motifs(g):
    motifs = normal(g, 40, 2)[torch.randint(40, (900,), generator=g)]
    return normal(g, 300, 2), motifs


@case
def copies_of_motifs_of_8(g):
    motifs = normal(g, 40, 8)[torch.randint(40, (900,), generator=g)]
    return normal(g, 300, 8), motifs


@case
def halfway_between_motifs(g):
    motifs = lattice(g, 500, 3).double() / 4 + 2.0**-40 * lattice(g, 500, 3)
    pairs = torch.randint(500, (2, 300), generator=g)
    return motifs[pairs].mean(0), motifs


for spread in (1e-6, 2.0**-23, 1e-12, 2.0**-52):
    for size in (1, 2, 4, 17):
        CASES[f"around_one_within_{spread:.0e}_of_{size}"] = lambda g, e=spread, s=size: (
            1 + e * lattice(g, 300, s, dtype=torch.float64),
            1 + e * normal(g, 400, s, dtype=torch.float64),
        )


@case
def around_one_in_float32(g):
    return 1 + 1e-6 * normal(g, 400, 2), 1 + 1e-6 * normal(g, 1500, 2)


@case
def around_one_in_float32_of_8(g):
    return 1 + 1e-6 * normal(g, 400, 8), 1 + 1e-6 * normal(g, 1500, 8)


@case
def two_motifs_a_rounding_apart(g):
    blocks, offset = normal(g, 300, 5), 0.01 * normal(g, 300, 5)
    near = torch.stack([blocks + offset, blocks - offset, blocks + offset.flip(1)])
    return blocks, near.flatten(0, 1)


@case
def sums_that_depend_on_their_order(g):
    offset = normal(g, 6, dtype=torch.float64)
    orders = torch.stack([torch.randperm(6, generator=g) for _ in range(300)])
    return torch.zeros(70, 6, dtype=torch.float64), offset[orders]


@case
def products_that_must_round_twice(g):
    """Distances that tie when products are rounded, and not when they are fused with sums."""
    offset = normal(g, 400, 2, dtype=torch.float64)
    return torch.zeros(9, 2, dtype=torch.float64), torch.cat(
        [offset, offset.flip(1)]
    ) * 1e-3


for scale in (1e-30, 1e-38, 2.0**-149, 1e30, 1e37):
    for size in (2, 4):
        CASES[f"scaled_by_{scale:.0e}_of_{size}"] = lambda g, c=scale, s=size: (
            (lattice(g, 300, s, dtype=torch.float64) * c).float(),
            (4 * normal(g, 400, s, dtype=torch.float64) * c).clamp(-3e38, 3e38).float(),
        )

for scale in (1e200, 1e150, 1e-150, 1e-200, 1e-300, 2.0**-1074):
    for size in (2, 3):
        CASES[f"float64_scaled_by_{scale:.0e}_of_{size}"] = lambda g, c=scale, s=size: (
            lattice(g, 300, s, dtype=torch.float64) * c,
            4 * normal(g, 400, s, dtype=torch.float64) * c,
        )


@case
def largest_floats(g):
    largest = torch.finfo(torch.float32).max
    return largest * lattice(g, 90, 3).sign(), largest * normal(g, 90, 3).clamp(-1, 1)


@case
def largest_doubles(g):
    largest = torch.finfo(torch.float64).max
    return largest * lattice(g, 90, 2).sign().double(), largest * normal(
        g, 90, 2
    ).double().sin()


@case
def an_outlying_block(g):
    return torch.cat([normal(g, 400, 2), torch.tensor([[1e30, -1e30]])]), normal(g, 300, 2)


@case
def an_outlying_block_of_4(g):
    return torch.cat([torch.full((1, 4), 3e38), normal(g, 400, 4)]), normal(g, 300, 4)


@case
def an_outlying_motif(g):
    return normal(g, 400, 2), torch.cat([torch.tensor([[1e30, 1e6]]), normal(g, 300, 2)])


@case
def an_outlying_motif_of_4(g):
    return normal(g, 400, 4), torch.cat([torch.full((1, 4), -3e38), normal(g, 300, 4)])


@case
def far_below_the_largest(g):
    motifs = torch.cat([1e-22 * normal(g, 300, 4), torch.ones(1, 4)])
    return 1e-22 * normal(g, 300, 4), motifs


@case
def far_outside_the_motifs(g):
    return 1e4 * normal(g, 300, 2), normal(g, 300, 2)


@case
def heavy_tails(g):
    return normal(g, 400, 2) / normal(g, 400, 2), normal(g, 900, 2) / normal(g, 900, 2)


@case
def heavy_tails_of_8(g):
    return normal(g, 400, 8) / normal(g, 400, 8), normal(g, 900, 8) / normal(g, 900, 1)


@case
def every_scale_of_float32(g):
    scale = 10.0 ** torch.randint(-40, 38, (2, 400, 1), generator=g)
    return (normal(g, 400, 2) * scale[0]).clamp(-3e38, 3e38), normal(g, 400, 2) * scale[
        1
    ] / 9


@case
def every_scale_of_float64(g):
    scale = 10.0 ** torch.randint(-220, 220, (2, 400, 1), generator=g).double()
    return normal(g, 400, 3) * scale[0], normal(g, 400, 3) * scale[1]


@case
def coordinates_of_different_scale(g):
    scale = 10.0 ** torch.tensor([-12, 0, 5, -3])
    return normal(g, 400, 4) * scale, normal(g, 900, 4) * scale


@case
def motifs_on_an_axis(g):
    return normal(g, 400, 2), normal(g, 1500, 2) * torch.tensor([0.0, 1.0])


@case
def motifs_on_a_diagonal(g):
    return normal(g, 400, 2), normal(g, 1500, 1).expand(-1, 2)


@case
def motifs_on_a_line_of_8(g):
    return normal(g, 400, 8), normal(g, 1500, 1) * normal(g, 8)


@case
def motifs_in_clumps(g):
    clump = torch.randint(0, 3, (1500, 1), generator=g)
    return 1.5 + normal(g, 400, 2), clump + 1e-7 * normal(g, 1500, 2)


@case
def motifs_on_a_sphere_around_the_blocks(g):
    motifs = normal(g, 1500, 3)
    return 1e-6 * normal(g, 300, 3), motifs / motifs.norm(dim=1, keepdim=True)


@case
def mixed_dtypes(g):
    return normal(g, 300, 3, dtype=torch.bfloat16), normal(g, 400, 3, dtype=torch.float64)


@case
def a_float64_block_between_float32_motifs(g):
    motifs = normal(g, 400, 2)
    return motifs.double() + 1e-12 * normal(g, 400, 2), motifs


@case
def float64_blocks_off_the_middle_of_float32_motifs(g):
    blocks, offset = normal(g, 300, 5), normal(g, 300, 5) / 100
    motifs = torch.stack([blocks + offset, blocks - offset])
    return motifs.double().mean(0) + 1e-10 * normal(g, 300, 5), motifs.flatten(0, 1)


@case
def float64_motifs_off_the_middle_of_float32_blocks(g):
    blocks, offset = normal(g, 300, 5), normal(g, 300, 5, dtype=torch.float64) / 100
    motifs = torch.stack([blocks + offset, blocks - offset * (1 + 1e-10)])
    return blocks, motifs.flatten(0, 1)


@case
def many_blocks_in_the_grid(g):
    return normal(g, 20_000, 2), normal(g, 1500, 2)


@case
def not_contiguous(g):
    return normal(g, 3, 300).T, normal(g, 400, 6)[:, ::2]


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("name", CASES)
def test_engines_equal_the_definition(name, instruction_set):
    assert_exact(*CASES[name](seeded(0)), instruction_set)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("size", SIZES)
def test_engines_equal_the_definition_at_every_number_of_motifs(size, instruction_set):
    for k in COUNTS:
        g = seeded(k)
        assert_exact(normal(g, 70, size), normal(g, k, size), instruction_set)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("m", [0, 1, 3, 4, 5, 15, 16, 17, 31, 33, 257, 5000])
def test_engines_equal_the_definition_at_every_number_of_blocks(m, instruction_set):
    for size, g in product((1, 2, 4), (seeded(m),)):
        blocks, motifs = normal(g, m, size), normal(g, 30, size)
        assert_exact(blocks, motifs, instruction_set)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize(("blocks", "motifs"), [*product(DTYPES, DTYPES)])
def test_engines_equal_the_definition_in_every_pair_of_dtypes(
    blocks, motifs, instruction_set
):
    for size, draw in product((1, 2, 4, 5), (normal, lattice)):
        g = seeded(size)
        pair = draw(g, 130, size, dtype=blocks) / 4, draw(g, 150, size, dtype=motifs) / 3
        assert_exact(*pair, instruction_set)


@pytest.mark.parametrize("instruction_set", SETS)
@given(
    shape=st.tuples(st.integers(0, 150), st.integers(1, 300), st.sampled_from(SIZES)),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    draw=st.sampled_from([normal, lattice]),
    centre=st.sampled_from([0.0, 1.0]),
    exponent=st.integers(-14, 12),
    seed=st.integers(0, 2**32),
)
def test_engines_equal_the_definition_on_any_input(
    instruction_set, shape, dtypes, draw, centre, exponent, seed
):
    (m, k, s), g, scale = shape, seeded(seed), 2.0**exponent
    blocks = (centre + scale * draw(g, m, s, dtype=torch.float64)).to(dtypes[0])
    motifs = (centre + scale * draw(g, k, s, dtype=torch.float64)).to(dtypes[1])
    assert_exact(blocks, motifs, instruction_set)


# What follows from the definition


@pytest.mark.parametrize("instruction_set", SETS)
@given(
    size=st.sampled_from(SIZES),
    dtype=st.sampled_from(DTYPES),
    centre=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_a_block_equal_to_a_motif_keeps_it(instruction_set, size, dtype, centre, seed):
    g = seeded(seed)
    motifs = torch.unique((centre + normal(g, 500, size) / 64).to(dtype), dim=0)
    order = torch.randperm(len(motifs), generator=g)
    with instructions(instruction_set):
        assert torch.equal(nearest(motifs[order], motifs), order)
        for kind in kinds(size):
            assert torch.equal(by_engine(motifs[order], motifs, kind), order)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_of_equal_motifs_the_first_is_taken(size, instruction_set):
    g = seeded(0)
    blocks, motifs = normal(g, 300, size), normal(g, 200, size)
    with instructions(instruction_set):
        once, thrice = nearest(blocks, motifs), nearest(blocks, motifs.repeat(3, 1))
    assert torch.equal(once, thrice)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_order_and_the_company_of_blocks_do_not_matter(size, instruction_set):
    g = seeded(0)
    blocks, motifs = normal(g, 40_000, size), normal(g, 700, size)
    order = torch.randperm(len(blocks), generator=g)
    with instructions(instruction_set):
        for kind in kinds(size):
            whole = by_engine(blocks, motifs, kind)
            assert torch.equal(by_engine(blocks[order], motifs, kind), whole[order])
            assert torch.equal(by_engine(blocks[77:100], motifs, kind), whole[77:100])


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("size", [2, 3])
def test_the_number_of_threads_does_not_matter(size, instruction_set):
    g = seeded(0)
    blocks, motifs = normal(g, 50_000, size), normal(g, 100, size)
    expected = nearest_reference(blocks, motifs)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 16):
            torch.set_num_threads(threads)
            with instructions(instruction_set):
                for kind in kinds(size):
                    assert torch.equal(by_engine(blocks, motifs, kind), expected)
    finally:
        torch.set_num_threads(before)


def test_a_searcher_finds_piece_by_piece_what_nearest_finds_at_once():
    g = seeded(0)
    motifs = normal(g, 90, 4)
    search = searcher(motifs)
    for dtype in (torch.float32, torch.float64, torch.float16):
        blocks = normal(g, 500, 4).to(dtype)
        pieces = torch.cat([search(piece).long() for piece in blocks.split(77)])
        assert torch.equal(pieces, nearest(blocks, motifs))


def test_indices_are_int64_on_the_device_of_the_blocks():
    found = nearest(torch.ones(3, 2), torch.ones(4, 2))
    assert (found.dtype, found.device, found.shape) == (
        torch.int64,
        torch.device("cpu"),
        (3,),
    )


def test_inputs_are_not_changed_and_gradients_not_followed():
    g = seeded(0)
    blocks, motifs = normal(g, 50, 2).requires_grad_(), normal(g, 40, 2).requires_grad_()
    copies = blocks.detach().clone(), motifs.detach().clone()
    assert not nearest(blocks, motifs).requires_grad
    assert torch.equal(blocks, copies[0])
    assert torch.equal(motifs, copies[1])


@pytest.mark.parametrize("size", [2, 8])
def test_no_matrix_of_blocks_by_motifs_is_made(size):
    g = seeded(0)
    blocks, motifs = normal(g, 200_000, size), normal(g, 4096, size)
    nearest(blocks[:100], motifs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    nearest(blocks, motifs)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # KiB (bytes on macOS); the matrix takes 3 200 000


# The choice of an engine


def test_spread_motifs_of_two_values_are_searched_in_a_grid():
    motifs = normal(seeded(0), 20_000, 2)
    assert cpu.native().candidates(cpu.build(motifs, wide=False)) < min(
        cpu.MOST_CANDIDATES.values()
    )


def test_motifs_on_a_line_are_not_searched_in_a_grid():
    motifs = normal(seeded(0), 20_000, 2) * torch.tensor([0.0, 1.0])
    with instructions("portable"):
        native = cpu.native()
        assert native.candidates(cpu.build(motifs, wide=False, kind="grid")) > 400
        assert native.candidates(cpu.build(motifs, wide=False)) == 20_000  # all: the tree


def test_the_best_instruction_set_of_the_processor_is_taken():
    assert cpu.native().__name__ == f"momos.vq._{[*SETS[1:], 'portable'][0]}"


# Errors


def assert_refused(blocks: Tensor, motifs: Tensor, name: str) -> None:
    """As many values as are not finite are counted, whichever engine looks at them."""
    count = int((~torch.isfinite(blocks)).sum())
    message = f"blocks must be finite, got {count} values that are NaN or infinite"
    with instructions(name):
        with pytest.raises(ValueError, match=message):
            nearest(blocks, motifs)
        for kind in kinds(blocks.shape[1]):
            with pytest.raises(FloatingPointError, match="finite"):
                by_engine(blocks, motifs, kind)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_that_are_not_finite_are_counted(dtype, value, instruction_set):
    g = seeded(0)
    for size, k, row in product((1, 2, 3, 8), (1, 700), (0, 15, 299)):
        blocks, motifs = normal(g, 300, size, dtype=dtype), normal(g, k, size, dtype=dtype)
        blocks[row, -1] = value
        assert_refused(blocks, motifs, instruction_set)
        blocks[17] = -value
        assert_refused(blocks, motifs, instruction_set)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("row", [0, 20_000, 39_999])
def test_one_infinite_block_among_many_is_noticed(row, instruction_set):
    for size in (1, 2, 3):
        blocks = torch.zeros(40_000, size)
        blocks[row, 0] = float("inf")
        assert_refused(blocks, torch.ones(5, size), instruction_set)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_motifs_that_are_not_finite_are_counted(value):
    motifs = torch.ones(5, 2)
    motifs[1:4, 0] = value
    with pytest.raises(
        ValueError, match="motifs must be finite, got 3 values that are NaN"
    ):
        nearest(torch.ones(3, 2), motifs)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (0, 0)])
def test_there_is_at_least_one_motif_of_one_value(shape):
    message = r"motifs must have at least one row and one value, got shape \("
    with pytest.raises(ValueError, match=message):
        nearest(torch.ones(3, shape[1]), torch.ones(shape))


def test_blocks_and_motifs_share_one_block_size():
    with pytest.raises(ValueError, match="must share one block size, got 3 and 2"):
        nearest(torch.ones(5, 3), torch.ones(5, 2))


def test_blocks_and_motifs_are_on_one_device():
    with pytest.raises(ValueError, match="must be on one device, got meta and cpu"):
        nearest(torch.ones(5, 2, device="meta"), torch.ones(5, 2))
    with pytest.raises(ValueError, match="motifs must hold values, got a meta tensor"):
        nearest(torch.ones(5, 2), torch.ones(5, 2, device="meta"))


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e5m2]
)
def test_other_dtypes_are_refused(dtype):
    good, bad = torch.ones(3, 2), torch.ones(3, 2).to(dtype)
    with pytest.raises(
        TypeError, match=f"blocks must be float16.* or float64, got {dtype}"
    ):
        nearest(bad, good)
    with pytest.raises(
        TypeError, match=f"motifs must be float16.* or float64, got {dtype}"
    ):
        nearest(good, bad)


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2), ()])
def test_blocks_and_motifs_have_two_dimensions(shape):
    with pytest.raises(ValueError, match="blocks must have two dimensions, got shape"):
        nearest(torch.ones(shape), torch.ones(3, 2))
    with pytest.raises(ValueError, match="motifs must have two dimensions, got shape"):
        nearest(torch.ones(3, 2), torch.ones(shape))


@pytest.mark.parametrize("instruction_set", SETS)
def test_the_compiled_part_reads_no_buffer_of_another_size(instruction_set):
    native = import_module(f"momos.vq._{instruction_set}")
    motifs, indices = torch.ones(5, 2), torch.zeros(3, dtype=torch.int32)
    for kind in ("grid", "flat"):
        with pytest.raises(ValueError, match="motifs must have 48 bytes, got 40"):
            native.build(kind, motifs.numpy(), 6, 2, False)
        with pytest.raises(ValueError, match="motifs must have 80 bytes, got 40"):
            native.build(kind, motifs.numpy(), 5, 2, True)
        with pytest.raises(ValueError, match="num_motifs or block_size out of range"):
            native.build(kind, motifs[:0].numpy(), 0, 2, False)
        engine = native.build(kind, motifs.numpy(), 5, 2, False)
        parts, three = (torch.ones(5).numpy(),), indices.numpy()  # two blocks and a half
        assert native.query(engine, parts, 0, 3, three, 1) == 0
        for first, last in ((-1, 2), (2, 1), (1, 4)):
            with pytest.raises(
                ValueError, match=f"blocks {first} to {last} are not among 3"
            ):
                native.query(engine, parts, first, last, three, 1)
        with pytest.raises(ValueError, match="indices must have 8 bytes, got 12"):
            native.query(engine, parts, 1, 3, three, 1)
        with pytest.raises(ValueError, match="part 0 must have whole values of 4 bytes"):
            native.query(engine, (b"123456",), 0, 1, three[:1], 1)
    with pytest.raises(ValueError, match="out of range"):
        native.build("grid", torch.ones(5, 3).numpy(), 5, 3, False)
    with pytest.raises(ValueError, match="kind must be cells, grid or flat, got tree"):
        native.build("tree", motifs.numpy(), 5, 2, False)


# Ctrl-C


def test_a_long_search_can_be_interrupted(interruptible):
    motifs, blocks = torch.randn(20_000, 16), torch.randn(400_000, 16)  # for a minute
    search = searcher(motifs)
    search(blocks[:64])  # the engine is built
    alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    started = time.perf_counter()
    alarm.start()
    with pytest.raises(KeyboardInterrupt):
        search(blocks)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("seconds", [0.0, 1e9])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_pieces_of_any_length_find_the_same(size, seconds):
    """Time decides how long pieces are, and nothing else."""
    g = Generator().manual_seed(size)
    motifs = torch.randn(300, size, generator=g)
    blocks = torch.randn(9000, size, generator=g)
    whole = cpu.query(cpu.build(motifs, wide=False), blocks, wide=False)
    with patch.object(cpu, "SECONDS", seconds), patch.object(cpu, "FIRST_WORK", 1):
        assert torch.equal(nearest(blocks, motifs), whole.long())
    wrong = blocks.clone()
    wrong[8999, 0] = torch.inf
    with (
        patch.object(cpu, "SECONDS", seconds),
        pytest.raises(ValueError, match="blocks must be finite, got 1 values"),
    ):
        nearest(wrong, motifs)
