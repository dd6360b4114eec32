"""The grid on CUDA is the definition, all tensors in one launch; a projection hardly waits.

Triton's interpreter runs the kernels, in another process (as in test_vq_triton.py); a second one
compiles them for real devices. What the host does around them is counted on a pretended device.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
import torch
from kernels import compiled, run
from torch import Generator, Tensor, nn

import momos
from elsewhere import pretended
from momos.vq import cpu, flats
from momos.vq.nearest import nearest_reference

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
FEW = ["spread", "copies", "one_weight", "projected", "refused"]
KERNELS = [
    f"{target}_{name}" for target in (80, 90) for name in ("tensors", "rewrite", "take")
]


def grid_fault(blocks: Tensor, motifs: Tensor) -> str:
    """Empty if the grid finds the motifs of the definition."""
    from momos.vq.grid import Grid, search

    found, flag = search(Grid.of(motifs), blocks)
    if int(flag):
        return "flag"
    wrong = int((found.long() != nearest_reference(blocks, motifs)).sum())
    return f"{wrong} of {len(blocks)}" if wrong else ""


def spread() -> str:
    from momos.vq.grid import Grid

    g = Generator().manual_seed(0)
    blocks, motifs = torch.randn(150, 2, generator=g), torch.randn(300, 2, generator=g)
    engine = cpu.build(motifs, wide=False, kind="grid")
    ours, theirs = float(Grid.of(motifs).candidates()), cpu.native().candidates(engine)
    if abs(ours - theirs) > 0.1 * theirs:  # the CPU's quantiles are of a sample
        return f"{ours} candidates for {theirs}"
    return grid_fault(blocks, motifs)


def copies() -> str:
    g = Generator().manual_seed(1)
    motifs = torch.randn(30, 2, generator=g).round()
    motifs = torch.cat([motifs, -torch.zeros(9, 2), torch.zeros(9, 2), motifs])
    return grid_fault(torch.randn(70, 2, generator=g).round() / 2, motifs)


def one_weight() -> str:
    g = Generator().manual_seed(2)
    return grid_fault(torch.randn(90, 1, generator=g), torch.randn(40, 1, generator=g))


def outlying() -> str:
    g = Generator().manual_seed(3)
    blocks = torch.randn(150, 2, generator=g) / torch.randn(150, 1, generator=g).square()
    return grid_fault(blocks, torch.randn(200, 2, generator=g))


def on_a_line() -> str:
    g = Generator().manual_seed(4)
    motifs = torch.randn(200, 1, generator=g) * torch.tensor([1.0, 1e-3])
    return grid_fault(torch.randn(100, 2, generator=g), motifs)


def wide_and_extreme() -> str:
    g = Generator().manual_seed(5)
    motifs = torch.randint(-2, 3, (60, 2), generator=g).double()
    return grid_fault(motifs[:20] * 1e200 / 3, motifs * 1e200) or grid_fault(
        motifs * 1e-200 / 3, motifs * 1e-200
    )


def one_motif() -> str:
    return grid_fault(torch.randn(9, 2), torch.ones(1, 2))


def tensors(*dtypes: torch.dtype) -> list[Tensor]:
    g = Generator().manual_seed(6)
    lengths = (1101, 7, 40)
    return [torch.randn(n, generator=g).to(d) for n, d in zip(lengths, dtypes, strict=True)]


def projected() -> str:
    """Tensors of one dtype and of several are read, searched and rewritten as on the CPU."""
    kinds = [(torch.float32,) * 3, (torch.float32, torch.bfloat16, torch.float16)]
    for dtypes in kinds:
        given, g = tensors(*dtypes), Generator().manual_seed(7)
        motifs = torch.randn(12, 2, generator=g)
        ours, theirs = [[flat.clone() for flat in given] for _ in range(2)]
        expected = flats.assign(theirs, motifs)
        with patch.object(flats, "has_kernels", lambda device: True):
            rows = torch.randint(len(expected.indices), (77,), generator=g)
            taken = flats.take(ours, rows, 2)
            found = flats.assign(ours, motifs)
            counts = flats.rewrite_(ours, motifs, found)
        if not torch.equal(found.indices, expected.indices):
            return f"indices of {dtypes}"
        here = flats.take(theirs, rows, 2)
        if taken is not None and here is not None and not torch.equal(taken, here):
            return f"rows of {dtypes}"
        distortion, moved = flats.rewrite_(theirs, motifs, expected)
        if abs(counts[0] - distortion) > 1e-12 * distortion or counts[1] != moved:
            return f"{counts} for {distortion} and {moved}"
        if not all(map(torch.equal, ours, theirs)):
            return f"weights of {dtypes}"
    return ""


def refused() -> str:
    given = tensors(*(torch.float32,) * 3)
    given[1][3] = torch.nan
    before = [flat.clone() for flat in given]
    with patch.object(flats, "has_kernels", lambda device: True):
        found = flats.assign(given, torch.randn(30, 2))
        try:
            flats.rewrite_(given, torch.randn(30, 2), found)
        except ValueError as error:
            same = all(
                torch.equal(a[:3], b[:3]) for a, b in zip(given, before, strict=True)
            )
            return "" if same and "got 1 values" in str(error) else str(error)
    return "it was not refused"


CASES: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        *(spread, copies, one_weight, outlying, on_a_line, wide_and_extreme),
        *(one_motif, projected, refused),
    )
}


def compile_kernels(names: list[str]) -> dict[str, dict[str, int]]:
    """Bytes of the kernels' binaries, fused float64 products and shared memory, by target."""
    from momos.vq import grid, rewriting

    table, motifs = ["*i64", "*i32"], ["*fp32", "*fp32", "*i32", "*i32", "*fp64"]
    options = {"S": 2, "DTYPE": grid.tl.float32, "FIELDS": rewriting.FIELDS}
    tiled = {"TILE": grid.TILE, "BLOCK_M": grid.BLOCK_M}
    of: dict[str, tuple[Any, list[str], dict[str, Any], int]] = {
        "tensors": (
            grid._tensors,
            [*table, *motifs, "*i32", "*i32", "i32", "i32"],
            options | tiled,
            1,
        ),
        "rewrite": (
            rewriting._rewrite,
            [*table, "*fp32", "*i32", "*i64", "*fp64"],
            options | tiled | {"DTYPE": grid.tl.bfloat16},
            4,
        ),
        "take": (
            rewriting._take,
            ["*i64", "*i64", "*i64", "*fp32", "i32"],
            options | {"ROWS": rewriting.ROWS},
            4,
        ),
    }
    found = {}
    for name in names:
        kernel, types, constants, warps = of[name[3:]]
        made = compiled(
            kernel,
            types,
            constants,
            target=int(name[:2]),
            num_warps=warps,
            enable_fp_fusion=False,
        )
        found[name] = {
            "binary": len(made.asm["cubin"]),
            "fused": len(re.findall(r"fma\S*f64", made.asm["ptx"])),
            "shared": made.metadata.shared,
        }
    return found


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run(__file__, "interpret", FEW, tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    names = [name for name in CASES if name not in FEW]
    return run(__file__, "interpret", names, tmp_path_factory.mktemp("triton"))


@pytest.mark.parametrize("name", FEW)
def test_the_kernels_do_what_the_definition_says(few, name) -> None:
    assert few[name] == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in FEW])
def test_so_they_do_where_it_is_hard(rest, name) -> None:
    assert rest[name] == ""


@pytest.mark.parametrize(
    "names", [KERNELS[:1], pytest.param(KERNELS[1:], marks=pytest.mark.slow)]
)
def test_compiles_for_real_devices(tmp_path, names) -> None:
    kernels = run(__file__, "compile", names, tmp_path)
    assert list(kernels) == names
    for name, counts in kernels.items():
        assert counts["binary"] > 0, name
        assert counts["fused"] == 0, f"{name} fuses float64 products and sums"
        if name.endswith("tensors"):
            assert counts["shared"] == 0, f"{name} needs more than its warp"


def counted(depth: int) -> tuple[int, int]:
    """Waits and launches of a projection of a network of so many layers, kernels aside."""
    from momos.vq import grid, rewriting

    def assigned(made: Any, table: Any, *, out: Tensor) -> Tensor:
        return table.fields[:, 0].int() * 0

    def rewritten(table: Any, motifs: Tensor, indices: Tensor, stop: Tensor) -> Tensor:
        return motifs.double().sum(0) * 0 + stop

    def taken(table: Any, rows: Tensor) -> Tensor:
        return torch.stack([rows, rows + 1], 1).float()

    with ExitStack() as stack:
        where = stack.enter_context(pretended("cuda:0"))
        stack.enter_context(patch.object(grid, "assign", assigned))
        stack.enter_context(patch.object(rewriting, "rewrite", rewritten))
        stack.enter_context(patch.object(rewriting, "take", taken))
        stack.enter_context(
            patch.object(flats, "_room", lambda tensors, size: where.put(
                torch.zeros(sum(-(-len(t) // size) for t in tensors)).int()
            ))
        )  # fmt: skip
        model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(depth))).to(where.device)
        projector = momos.Projector(model, momos.MosaicConfig(num_motifs=9))
        where.waits.clear()
        where.launches.clear()
        projector.step()
        return sum(where.waits.values()), sum(where.launches.values())


def test_a_projection_waits_twice_and_does_not_loop() -> None:
    """For what is said of the motifs, and for the sums; launches do not grow with layers."""
    waits, launches = counted(2)
    assert waits == 2
    assert launches < 120
    assert counted(6) == (waits, launches)


def interpret(names: list[str]) -> dict[str, str]:
    return {name: CASES[name]() for name in names}


if __name__ == "__main__":
    work = {"interpret": interpret, "compile": compile_kernels}[sys.argv[1]]
    print(json.dumps(work(sys.argv[2:])))
