"""Gathering and summing are each other's transpose, exact, and never read outside memory."""

import copy
import math
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from momos.vq import cpu
from momos.vq.gather import gather, straight_through, sum_by_motif, sum_by_motif_reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZES = [*range(1, 10), 16, 17]
SHARE = 1 << 14  # blocks that are summed in one go (native/sums.hpp)
# (m, k): none, one, few; one share more or less; several; motifs too many for several tables.
SHAPES = [(0, 3), (1, 1), (5, 2), (6, 9), (SHARE, 64), (SHARE + 1, 1), (3 * SHARE + 5, 64)]
SHAPES += [(2 * SHARE, 1100), (60_000, 3000)]
SETS = ["portable", *import_module("momos.vq._portable").instruction_sets()]
# torch.func.jvp loads scripts when it is first called, and torch warns of them.
SCRIPTS = pytest.mark.filterwarnings("ignore:.torch.jit.script(_method)?. is deprecated")
# torch.compile makes an instance of autograd.Function itself, and torch warns of that.
COMPILES = pytest.mark.filterwarnings("ignore:.*should not be instantiated")


@contextmanager
def instructions(name: str):
    with patch.object(cpu, "native", lambda: import_module(f"momos.vq._{name}")):
        yield


@contextmanager
def threads(number: int):
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(1)


def drawn(
    m: int, s: int, k: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Rows and indices; some motifs are used often, some not at all."""
    g = Generator().manual_seed(seed)
    rows = torch.randn(m, s, generator=g, dtype=torch.float64).to(dtype)
    indices = torch.randint(k, (m,), generator=g, dtype=torch.int32)
    return rows, torch.where(torch.rand(m, generator=g) < 0.3, k // 2, indices).int()


def assert_one_rounding(sums: Tensor, rows: Tensor, indices: Tensor) -> None:
    """The sums are the definition's, but for the order of float64 additions and a rounding."""
    expected = sum_by_motif_reference(rows, indices, len(sums))
    kind = torch.finfo(rows.dtype)
    total = sum_by_motif_reference(rows.double().abs(), indices, len(sums))
    slack = kind.eps * (expected.double().abs() + kind.tiny) + len(rows) * 2.0**-52 * total
    assert sums.dtype == rows.dtype
    assert bool(((sums.double() - expected.double()).abs() <= slack).all())


# The sum


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("s", SIZES)
def test_sums_are_the_definitions_to_one_rounding(s, dtype, name):
    with instructions(name):
        for m, k in SHAPES:
            rows, indices = drawn(m, s, k, dtype)
            assert_one_rounding(sum_by_motif(rows, indices, k), rows, indices)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("s", SIZES)
def test_sums_of_whole_numbers_are_exact(s, dtype):
    for m, k in SHAPES:
        rows, indices = drawn(m, s, k, dtype)
        whole = rows.round()
        found = sum_by_motif(whole, indices, k)
        assert torch.equal(found, sum_by_motif_reference(whole, indices, k))


@given(
    shape=st.tuples(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from(DTYPES),
    integers=st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]),
    seed=st.integers(0, 1000),
)
def test_small_sums_are_the_definitions(shape, dtype, integers, seed):
    m, s, k = shape
    rows, indices = drawn(m, s, k, dtype, seed)
    assert_one_rounding(sum_by_motif(rows, indices.to(integers), k), rows, indices)


@pytest.mark.parametrize("s", SIZES)
def test_sums_depend_on_neither_threads_nor_the_instruction_set(s):
    for m, k in SHAPES:
        rows, indices = drawn(m, s, k, torch.float32)
        found = []
        for name in SETS:
            for number in (1, 2, 3):
                with instructions(name), threads(number):
                    found.append(sum_by_motif(rows, indices, k))
        assert all(torch.equal(found[0], other) for other in found)


def test_sums_over_more_blocks_than_the_smallest_shares_hold_are_exact():
    indices = (torch.arange(257 * SHARE) % 3).int()
    rows = torch.ones(len(indices), 1)
    assert torch.equal(
        sum_by_motif(rows, indices, 4)[:, 0].long(), torch.bincount(indices, minlength=4)
    )


def test_a_motif_without_blocks_sums_to_zero():
    rows, indices = drawn(100, 3, 4, torch.float32)
    sums = sum_by_motif(rows, 2 * indices, 9)
    assert torch.equal(sums[1::2], torch.zeros(4, 3))
    assert sum_by_motif(rows[:0], indices[:0], 0).shape == (0, 3)


def test_values_that_are_not_finite_stay_with_their_motif():
    rows, indices = drawn(100, 3, 4, torch.float32)
    clean = sum_by_motif(rows, indices, 4)
    rows[7, 1] = math.inf
    sums = sum_by_motif(rows, indices, 4)
    assert sums[indices[7], 1] == math.inf
    assert (sums != clean).sum() == 1


def test_float64_carries_the_sum():
    rows = torch.tensor([1e8, 1.0, -1e8]).repeat(1000)[:, None]
    assert sum_by_motif(rows, torch.zeros(3000, dtype=torch.int32), 1).item() == 1000


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_any_strides_sum_alike(dtype):
    rows, indices = drawn(50, 6, 4, dtype)
    for strided in (
        rows.T.contiguous().T,
        rows[:, ::2],
        rows.flip(0),
        rows[:1].expand(50, 6),
    ):
        found = sum_by_motif(strided, indices, 4)
        assert torch.equal(found, sum_by_motif(strided.contiguous(), indices, 4))
        assert torch.equal(
            sum_by_motif(strided[::2], indices[::2], 4),
            sum_by_motif(strided[::2].contiguous(), indices[::2].contiguous(), 4),
        )


# Gathering


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("s", SIZES)
def test_blocks_are_their_motifs(s, dtype):
    for m, k in SHAPES:
        motifs, indices = drawn(k, s, 1, dtype)[0], drawn(m, s, k, dtype)[1]
        for strided in (motifs, motifs.T.contiguous().T):
            assert torch.equal(gather(strided, indices), motifs.index_select(0, indices))


@pytest.mark.parametrize("name", SETS)
def test_gathering_depends_on_neither_threads_nor_the_instruction_set(name):
    motifs, indices = torch.randn(64, 3), drawn(3 * SHARE + 5, 1, 64, torch.float32)[1]
    with instructions(name), threads(3):
        assert torch.equal(gather(motifs, indices), motifs[indices])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_a_motif_is_the_sum_over_its_blocks(dtype):
    rows, indices = drawn(1000, 4, 9, dtype)
    motifs = torch.randn(9, 4).to(dtype).requires_grad_()
    gather(motifs, indices).backward(rows)
    assert motifs.grad is not None
    assert torch.equal(motifs.grad, sum_by_motif(rows, indices, 9))


@pytest.mark.parametrize("m", [0, 1, 11])
@pytest.mark.parametrize("s", [1, 2, 3, 4])
def test_gradients_of_both_are_right_to_second_order(s, m):
    rows, indices = drawn(m, s, 5, torch.float64)
    motifs = torch.randn(5, s, dtype=torch.float64, requires_grad=True)
    rows.requires_grad_()
    for check in (gradcheck, gradgradcheck):
        assert check(lambda z: gather(z, indices).sin(), motifs)
        assert check(lambda r: sum_by_motif(r, indices, 6).sin(), rows)


# What is refused


@pytest.mark.parametrize("wrong", [-1, 5, 2**31 - 1, -(2**31), 2**32 + 1])
@pytest.mark.parametrize("place", [0, 3, SHARE, 2 * SHARE + 9])
def test_an_index_that_names_no_motif_is_refused(wrong, place):
    dtype = torch.int32 if abs(wrong) <= 2**31 and wrong != 2**32 + 1 else torch.int64
    rows, indices = drawn(2 * SHARE + 10, 2, 5, torch.float32)
    indices = indices.to(dtype)
    indices[place] = wrong
    words = f"indices must be at least 0 and below 5, got .*{wrong}"
    for number in (1, 3):
        with threads(number):
            with pytest.raises(ValueError, match=words):
                gather(rows[:5], indices)
            with pytest.raises(ValueError, match=words):
                sum_by_motif(rows, indices, 5)


def test_indices_without_motifs_are_refused():
    with pytest.raises(ValueError, match="at least 0 and below 0, got 0 to 0"):
        gather(torch.ones(0, 2), torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ValueError, match="at least 0 and below 0, got 0 to 0"):
        sum_by_motif(torch.ones(3, 2), torch.zeros(3, dtype=torch.int32), 0)


@pytest.mark.parametrize(
    ("rows", "indices", "words"),
    [
        (torch.ones(3), torch.zeros(3).int(), r"rows must have two .* got shape \(3,\)"),
        (torch.ones(3, 0), torch.zeros(3).int(), r"at least one value a row, .* \(3, 0\)"),
        (torch.ones(3, 1), torch.zeros(3, 1).int(), r"one dimension, got shape \(3, 1\)"),
        (torch.ones(3, 1), torch.zeros(4).int(), "must have one length, got 3 and 4"),
        (torch.ones(3, 1).int(), torch.zeros(3).int(), "rows must be .*, got torch.int32"),
        (torch.ones(3, 1), torch.zeros(3), "must be integers, got torch.float32"),
        (torch.ones(3, 1), torch.zeros(3).bool(), "must be integers, got torch.bool"),
        (torch.ones(3, 1), torch.zeros(3, device="meta").int(), "device, got cpu and meta"),
    ],
)
def test_wrong_inputs_are_refused(rows, indices, words):
    with pytest.raises((ValueError, TypeError), match=words):
        sum_by_motif(rows, indices, 5)


def test_a_negative_number_of_motifs_is_refused():
    with pytest.raises(ValueError, match="num_motifs must be at least 0, got -1"):
        sum_by_motif(torch.ones(3, 1), torch.zeros(3).int(), -1)


# Straight through


def test_straight_through_is_the_value_and_its_gradient_the_latents():
    latent = torch.randn(3, 4, requires_grad=True)
    value = torch.tensor([[-0.0, math.nan, math.inf, 1e-45]]).repeat(3, 1).requires_grad_()
    found = straight_through(latent, value)
    assert torch.equal(found.view(torch.int32), value.view(torch.int32))
    assert found.data_ptr() == value.data_ptr()
    gradient = torch.randn(3, 4)
    found.backward(gradient)
    assert latent.grad is not None
    assert torch.equal(latent.grad, gradient)
    assert value.grad is None


def test_straight_through_is_the_identity_to_second_order():
    latent = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for check in (gradcheck, gradgradcheck):
        assert check(lambda x: straight_through(x, x.detach()).sin(), latent)


def test_the_result_of_straight_through_cannot_be_changed_under_the_value():
    with pytest.raises(RuntimeError, match="view and is being modified inplace"):
        straight_through(torch.ones(3, requires_grad=True), torch.ones(3)).mul_(2)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(2), r"one shape, got torch.Size\(\[3\]\) and torch.Size\(\[2\]\)"),
        (torch.ones(3).double(), "one dtype, got torch.float32 and torch.float64"),
        (torch.ones(3, device="meta"), "one device, got cpu and meta"),
    ],
)
def test_straight_through_refuses_a_value_that_is_not_like_the_latent(value, words):
    with pytest.raises(ValueError, match=words):
        straight_through(torch.ones(3), value)


# Inside networks


class Tied(nn.Module):
    """A layer of motifs and a layer whose latent weight is rounded."""

    indices: Tensor

    def __init__(self) -> None:
        super().__init__()
        g = Generator().manual_seed(0)
        self.motifs = nn.Parameter(torch.randn(8, 2, generator=g))
        self.latent = nn.Parameter(torch.randn(4, 16, generator=g))
        self.register_buffer("indices", torch.randint(8, (64,), generator=g).int())

    def forward(self, x: Tensor) -> Tensor:
        weight = gather(self.motifs, self.indices).view(16, 8)
        rounded = straight_through(self.latent, self.latent.detach().round())
        return nn.functional.linear(nn.functional.linear(x, weight).relu(), rounded)


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    network.zero_grad()
    network(x).square().mean().backward()
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def images(number: int = 6) -> Tensor:
    return torch.randn(number, 8, generator=Generator().manual_seed(1))


@COMPILES
def test_networks_compile_in_one_graph():
    torch.compiler.reset()
    network = Tied()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    for number in (6, 7, 9):  # the second has its sizes made symbols
        for ours, eager in zip(
            gradients(compiled, images(number)),
            gradients(network, images(number)),
            strict=True,
        ):
            torch.testing.assert_close(ours, eager)


@COMPILES
def test_a_wrong_index_is_refused_in_compiled_code():
    torch.compiler.reset()
    network = Tied()
    network.indices[3] = 8
    with pytest.raises(ValueError, match="at least 0 and below 8, got 0 to 8"):
        torch.compile(network, backend="aot_eager", fullgraph=True)(images())


@SCRIPTS
def test_torch_func_takes_gradients_through_a_mosaic():
    rows, indices = drawn(30, 3, 7, torch.float64)
    motifs = torch.randn(7, 3, dtype=torch.float64)

    def loss(motifs: Tensor, rows: Tensor) -> Tensor:
        return (gather(motifs, indices) - rows).pow(3).sum()

    def plain(motifs: Tensor, rows: Tensor) -> Tensor:
        return (motifs[indices.long()] - rows).pow(3).sum()

    for transform in (
        torch.func.grad,
        torch.func.jacrev,
        torch.func.jacfwd,
        torch.func.hessian,
        lambda f: torch.func.vmap(torch.func.grad(f), in_dims=(None, 0)),
        lambda f: torch.func.grad(lambda m, r: torch.func.vmap(f, (None, 0))(m, r).sum()),
        lambda f: lambda m, r: torch.func.jvp(f, (m, r), (m + 1, r)),
        lambda f: lambda m, r: torch.func.jvp(torch.func.grad(f), (m, r), (m + 1, r)),
    ):
        many = torch.stack([rows, rows + 1, rows * 2])
        given = rows if "vmap" not in transform.__code__.co_names else many
        found, expected = (transform(f)(motifs, given) for f in (loss, plain))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "in_dims", [(0, None), (2, None), (None, 0), (None, 1), (1, 1), (0, 0)]
)
@pytest.mark.parametrize("integers", [torch.int32, torch.int64, torch.uint8])
def test_vmap_is_one_sample_after_another(in_dims, integers):
    g = Generator().manual_seed(0)
    rows = torch.randn(20, 3, generator=g, dtype=torch.float64)
    motifs = torch.randn(4, 6, 3, generator=g, dtype=torch.float64)
    indices = torch.randint(6, (4, 20), generator=g).to(integers)
    values = motifs[0] if in_dims[0] is None else motifs.movedim(0, in_dims[0])
    names = indices[0] if in_dims[1] is None else indices.movedim(0, in_dims[1])
    found = torch.func.vmap(gather, in_dims)(values, names)
    each = [
        (motifs[0 if in_dims[0] is None else i], indices[0 if in_dims[1] is None else i])
        for i in range(4)
    ]
    assert torch.equal(found, torch.stack([gather(*one) for one in each]))
    many = torch.stack([rows * i for i in range(4)])
    values = rows if in_dims[0] is None else many.movedim(0, in_dims[0])
    found = torch.func.vmap(lambda r, i: sum_by_motif(r, i, 6), in_dims)(values, names)
    each = [
        (rows if in_dims[0] is None else many[i], indices[0 if in_dims[1] is None else i])
        for i in range(4)
    ]
    assert torch.equal(found, torch.stack([sum_by_motif(*one, 6) for one in each]))


@pytest.mark.parametrize("wrong", [-1, 6])
def test_under_vmap_an_index_that_names_another_samples_motif_is_refused(wrong):
    motifs = torch.randn(3, 6, 2)
    indices = torch.tensor([[0, 5], [wrong, 1], [2, 2]])
    with pytest.raises(ValueError, match="at least 0 and below 6, got"):
        torch.func.vmap(gather)(motifs, indices)


@SCRIPTS
def test_torch_func_takes_gradients_straight_through():
    latent, value = torch.randn(5, 3), torch.randn(5, 3)

    def loss(latent: Tensor, value: Tensor) -> Tensor:
        return straight_through(latent, value).square().sum()

    assert torch.equal(torch.func.grad(loss)(latent, value), 2 * value)
    found = torch.func.vmap(torch.func.grad(loss))(latent, value)
    assert torch.equal(found, 2 * value)
    _, tangent = torch.func.jvp(
        lambda x: straight_through(x, value), (latent,), (latent + 1,)
    )
    assert torch.equal(tangent, latent + 1)


def test_gradients_under_autocast_are_near_and_in_float32():
    network = Tied()
    exact = gradients(network, images())
    with torch.autocast("cpu", torch.bfloat16):
        for near, grad in zip(gradients(network, images()), exact, strict=True):
            assert near.dtype == torch.float32
            assert (near - grad).norm() < 0.1 * grad.norm()


def test_a_copy_is_a_network_of_its_own():
    network = Tied()
    other = copy.deepcopy(network)
    for mine, copied in zip(
        gradients(network, images()), gradients(other, images()), strict=True
    ):
        assert torch.equal(mine, copied)


def test_fake_tensors_have_the_shapes_and_dtypes_of_real_ones():
    motifs, indices = torch.ones(5, 3, dtype=torch.float16), torch.zeros(7).int()
    real = gather(motifs, indices)
    fake = gather(motifs.to("meta"), indices.to("meta"))
    assert (fake.shape, fake.dtype) == (real.shape, real.dtype)
    back = sum_by_motif(fake, indices.to("meta"), 5)
    assert (back.shape, back.dtype) == (motifs.shape, motifs.dtype)


def share_of_a_batch(rank: int, store: str, results: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    network = nn.parallel.DistributedDataParallel(Tied())
    torch.save(gradients(network, images()[rank::2]), f"{results}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_share_gradients(tmp_path: Path):
    torch.multiprocessing.spawn(
        share_of_a_batch, (str(tmp_path / "store"), str(tmp_path)), nprocs=2
    )
    whole = gradients(Tied(), images())
    for rank in range(2):
        for ours, grad in zip(torch.load(tmp_path / str(rank)), whole, strict=True):
            torch.testing.assert_close(ours, grad)
