"""The CUDA engine equals the definition, index for index.

Triton's interpreter runs it on CPU tensors. It has to be switched on before Triton is first
imported, which torch may have done long ago, so the cases run in one other process: this
file as a script. A second one compiles the kernel for real devices, without having any.
"""

import importlib.util
import itertools
import json
import re
import sys
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jaxtyping import install_import_hook
from kernels import compiled, run
from torch import Generator, Tensor

from momos.vq.nearest import nearest_reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZES = [2, 16]  # blocks of the kernels that are compiled
TARGETS = [80, 89, 90]  # datacentre Ampere, consumer Ada, Hopper
CASES: dict[str, Callable[[Generator], tuple[Tensor, Tensor]]] = {}
PROPERTIES = ["any_small_input", "ordinary_blocks_need_no_float64"]

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def case(make: Callable[[Generator], tuple[Tensor, Tensor]]):
    CASES[make.__name__] = make
    return make


def normal(g: Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)


def lattice(g: Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randint(-2, 3, shape, generator=g).to(dtype)


for size in (1, 2, 3, 4, 8, 16, 17):
    for dtype in DTYPES:
        name = f"{size}_{str(dtype).removeprefix('torch.')}"
        CASES[f"normal_{name}"] = lambda g, size=size, dtype=dtype: (
            normal(g, 70, size, dtype=dtype),
            normal(g, 50, size, dtype=dtype),
        )
        CASES[f"ties_{name}"] = lambda g, size=size, dtype=dtype: (
            lattice(g, 70, size, dtype=dtype),
            lattice(g, 50, size, dtype=dtype),
        )

for m, k in [(0, 3), (1, 1), (65, 1), (1, 40), (64, 15), (63, 16), (65, 17), (129, 129)]:
    CASES[f"{m}_blocks_{k}_motifs"] = lambda g, m=m, k=k: (normal(g, m, 3), normal(g, k, 3))


@case
def long_walks(g):
    blocks, motifs = normal(g, 300, 2) / normal(g, 300, 1), normal(g, 500, 2)
    return blocks, motifs / normal(g, 500, 1)


@case
def copies_of_motifs(g):
    motifs = normal(g, 20, 2)[torch.randint(20, (90,), generator=g)]
    return normal(g, 100, 2), motifs


@case
def blocks_that_are_motifs(g):
    motifs = normal(g, 60, 4)
    return motifs[torch.randint(60, (150,), generator=g)], motifs


@case
def near_one(g):
    return 1 + 1e-6 * normal(g, 130, 2), 1 + 1e-6 * normal(g, 200, 2)


@case
def near_one_in_float64(g):
    return 1 + 1e-6 * normal(g, 130, 2).double(), 1 + 1e-6 * normal(g, 200, 2).double()


@case
def two_motifs_a_rounding_apart(g):
    blocks, offset = normal(g, 200, 5), 0.01 * normal(g, 200, 5)
    near = torch.stack([blocks + offset, blocks - offset, blocks + offset.flip(1)])
    return blocks, near.flatten(0, 1)


@case
def sums_that_depend_on_their_order(g):
    offset = normal(g, 6, dtype=torch.float64)
    orders = torch.stack([torch.randperm(6, generator=g) for _ in range(60)])
    return torch.zeros(70, 6, dtype=torch.float64), offset[orders]


def lost(s: int = 16) -> Tensor:
    """(1, e, …, e): in float32 no e² changes a sum that began with 1."""
    return torch.cat([torch.ones(1), torch.full((s - 1,), 0.75 * 2.0**-12)])


@case
def ties_that_float32_breaks(_):
    return torch.zeros(1, 16), torch.stack([lost().flip(0), lost()])


@case
def ties_that_float32_makes(_):
    return torch.zeros(1, 16), torch.stack([lost(), lost().round()])


@case
def nearest_beyond_what_float32_takes_for_the_reach(_):
    far = torch.zeros(15, 16)
    far[:, 0] = torch.linspace(1.5, 2, 15)
    nearest = (1 + 2.0**-22) * lost().round()
    return torch.zeros(1, 16), torch.cat([-far, -lost()[None], nearest[None], far])


@case
def a_tie_at_the_reach(_):
    motifs = torch.linspace(1, 2, 16, dtype=torch.float64)[:, None]
    return torch.zeros(5, 1), torch.cat([motifs, -motifs])


@case
def copies_fill_the_last_tile(g):
    return torch.full((10, 2), 9.0), torch.cat([normal(g, 17, 2), torch.full((1, 2), 8.0)])


@case
def spread_in_the_last_coordinate(g):
    scale = torch.tensor([0.0, 1e-3, 1.0])
    return normal(g, 100, 3) * scale, normal(g, 300, 3) * scale


@case
def zeros(g):
    return torch.zeros(70, 3), torch.zeros(40, 3)


@case
def signed_zeros(g):
    return -torch.zeros(70, 3), torch.cat([normal(g, 20, 3), torch.zeros(2, 3)])


@case
def mostly_zeros(g):
    return normal(g, 150, 2).relu(), normal(g, 90, 2).relu()


@case
def tiny(g):
    return 1e-30 * normal(g, 70, 3), 1e-30 * normal(g, 50, 3)


@case
def below_the_normal_numbers(g):
    return lattice(g, 70, 3) * 2.0**-149, normal(g, 50, 3) * 2.0**-147


@case
def far_apart_in_scale(g):
    scale = 10.0 ** torch.randint(-40, 38, (2, 150, 1), generator=g)
    return normal(g, 150, 2) * scale[0], normal(g, 150, 2) * scale[1]


@case
def largest_floats(g):
    blocks = torch.finfo(torch.float32).max * lattice(g, 70, 3).sign()
    return blocks, 1e38 * normal(g, 50, 3).clamp(-3, 3)


@case
def one_outlying_block(g):
    return torch.cat([normal(g, 99, 2), torch.tensor([[1e30, -1e30]])]), normal(g, 70, 2)


@case
def one_outlying_motif(g):
    return normal(g, 99, 2), torch.cat([torch.tensor([[1e30, 1e6]]), normal(g, 70, 2)])


@case
def far_below_the_largest(g):
    motifs = torch.cat([1e-22 * normal(g, 70, 4), torch.ones(1, 4)])
    return 1e-22 * normal(g, 150, 4), motifs


@case
def squares_that_overflow(g):
    blocks, motifs = lattice(g, 100, 2).double(), lattice(g, 80, 2).double()
    return 1e200 * blocks + normal(g, 100, 2), 1e200 * motifs


@case
def squares_that_underflow(g):
    return 1e-200 * normal(g, 100, 2).double(), 1e-200 * normal(g, 80, 2).double()


@case
def squares_that_do_all_of_it(g):
    scale = 10.0 ** torch.randint(-200, 200, (2, 150, 1), generator=g).double()
    return normal(g, 150, 2) * scale[0], normal(g, 150, 2) * scale[1]


@case
def float64_finer_than_float32(g):
    spread = 1e-12
    return 1 + spread * normal(g, 70, 2).double(), 1 + spread * normal(g, 80, 2).double()


@case
def mixed_dtypes(g):
    return normal(g, 70, 3, dtype=torch.bfloat16), normal(g, 50, 3, dtype=torch.float64)


@case
def not_contiguous(g):
    return normal(g, 3, 70).T, normal(g, 50, 6)[:, ::2]


def mismatch(blocks: Tensor, motifs: Tensor, device: str = "cpu") -> str:
    """Empty if the engine is right."""
    from momos.vq import triton as engine

    found = engine.nearest(blocks.to(device), motifs.to(device)).cpu()
    expected = nearest_reference(blocks, motifs)
    if found.dtype != torch.int64 or found.shape != expected.shape:
        return f"found {found.dtype} {tuple(found.shape)}"
    wrong = (found != expected).nonzero()[:, 0].tolist()
    return ", ".join(f"block {i}: {found[i]} for {expected[i]}" for i in wrong[:5])


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],  # shrinking takes minutes in the interpreter
)
@given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 80), st.integers(1, 20)),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    draw=st.sampled_from([normal, lattice]),
    centre=st.sampled_from([0.0, 1.0]),
    exponent=st.integers(-14, 12),
    seed=st.integers(0, 2**32),
)
def any_small_input(shape, dtypes, draw, centre, exponent, seed):
    (m, k, s), g = shape, Generator().manual_seed(seed)
    scale = 2.0**exponent
    blocks = (centre + scale * draw(g, m, s, dtype=torch.float64)).to(dtypes[0])
    motifs = (centre + scale * draw(g, k, s, dtype=torch.float64)).to(dtypes[1])
    assert mismatch(blocks, motifs) == ""


def ordinary_blocks_need_no_float64():
    from momos.vq import triton as engine

    search, g = engine._search, Generator().manual_seed(0)
    blocks = torch.cat([normal(g, 300, 2), torch.zeros(90, 2)])
    motifs = torch.cat([normal(g, 90, 2), torch.zeros(90, 2)])
    for scale in (1e-36, 1e-20, 1.0, 1e20, 1e36):
        with patch.object(engine, "_search", side_effect=search) as spy:
            assert mismatch(blocks * scale, motifs * scale) == ""
        assert spy.call_count == 1


def interpret(names: list[str]) -> dict[str, str]:
    """What is wrong with each case, shapes and dtypes in signatures included."""
    install_import_hook("momos.vq.triton", "beartype.beartype")
    verdicts = {}
    for name in names:
        if name in CASES:
            verdicts[name] = mismatch(*CASES[name](Generator().manual_seed(0)))
            continue
        try:
            globals()[name]()
            verdicts[name] = ""
        except AssertionError as error:
            verdicts[name] = "\n".join([repr(error), *getattr(error, "__notes__", [])])
    return verdicts


KERNELS = [
    f"{target}_{floats}_{size}"
    for target, floats, size in itertools.product(TARGETS, ["fp32", "fp64"], SIZES)
]


def compile_kernels(names: list[str]) -> dict[str, dict[str, int]]:
    """Instructions of interest in the kernel, by target, precision and block size."""
    from momos.vq import triton as engine

    counts = {}
    for name in names:
        target, floats, size = name.split("_")
        tensors = [f"*{floats}", f"*{floats}", "*i32", "*i64", "*i64", "*i1"]
        kernel = compiled(
            engine._walk,
            [*tensors, "i32", "i32", "fp32", "fp32"],
            {"S": int(size), "BLOCK_M": engine.BLOCK_M, "BLOCK_K": engine.BLOCK_K},
            target=int(target),
            aligned=len(tensors),
            num_warps=1,
            enable_fp_fusion=floats == "fp32",
        )
        counts[name] = {
            "fused": len(re.findall(r"fma\S*f64", kernel.asm["ptx"])),
            "products": len(re.findall(r"mul\S*f64", kernel.asm["ptx"])),
            "shared": kernel.metadata.shared,
            "binary": len(kernel.asm["cubin"]),
        }
    return counts


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory) -> dict[str, str]:
    cache = tmp_path_factory.mktemp("triton")
    names = [*CASES, *PROPERTIES]
    return run(__file__, "interpret", names, cache, PYTHONWARNINGS="error::UserWarning")


@needs_triton
@pytest.mark.parametrize("name", [*CASES, *PROPERTIES])
def test_equals_the_definition_in_the_interpreter(verdicts, name):
    assert verdicts[name] == ""


@needs_triton
@pytest.mark.parametrize(
    "names", [KERNELS[:1], pytest.param(KERNELS[1:], marks=pytest.mark.slow)]
)
def test_compiles_for_real_devices(tmp_path, names):
    kernels = run(__file__, "compile", names, tmp_path, PYTHONWARNINGS="error::UserWarning")
    assert list(kernels) == names
    for name, counts in kernels.items():
        assert counts["binary"] > 0, name
        assert counts["fused"] == 0, f"{name} fuses float64 products and sums"
        assert (counts["products"] > 0) == ("fp64" in name)
        assert counts["shared"] == 0, f"{name} needs more than its warp"


def test_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "momos.vq.triton", raising=False)
    with pytest.raises(ImportError, match="nearest on CUDA needs the package triton"):
        importlib.import_module("momos.vq.triton")


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition_on_cuda(name):
    assert mismatch(*CASES[name](Generator().manual_seed(0)), device="cuda") == ""


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("size", [1, 2, 4, 8, 64])
def test_equals_the_definition_on_cuda_at_length(size):
    from momos.vq import triton as engine

    g = Generator().manual_seed(size)
    blocks, motifs = normal(g, 100_000, size).cuda(), normal(g, 20_000, size).cuda()
    expected = torch.cat([nearest_reference(part, motifs) for part in blocks.split(4096)])
    assert torch.equal(engine.nearest(blocks, motifs), expected)


if __name__ == "__main__":
    work = {"interpret": interpret, "compile": compile_kernels}[sys.argv[1]]
    print(json.dumps(work(sys.argv[2:])))
