"""Re-assignment of all tensors in one launch is the definition, and does not wait.

Triton's interpreter runs the kernels, in another process (as in test_vq_triton.py); a second one
compiles them for real devices. What the host does around them is counted on a pretended device.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
import torch
from kernels import compiled, run
from torch import Tensor, nn
from torch.nn.functional import pad

import momos
import momos.vq.cpu
import momos.vq.nearest
from elsewhere import pretended
from momos.learning import following, schedule
from momos.vq.nearest import nearest_reference

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
SHAPES, WEIGHTS = [(17, 5), (5,), (70, 3), (1,)], [1.0, 0.25, 3.0, 2.0]
CASES: dict[str, dict[str, Any]] = {
    "scaled": {"size": 2, "k": 20, "scaled": True},
    "half": {"size": 3, "k": 5, "dtype": torch.bfloat16},
    "ties": {"size": 2, "k": 40, "lattice": True},
    "groups": {"size": 1, "k": 20, "scaled": True, "grouped": True},
    "float16": {"size": 4, "k": 17, "dtype": torch.float16, "lattice": True},
    "tiny": {"size": 2, "k": 20, "times": 2.0**-146},
    "huge": {"size": 2, "k": 20, "times": 2.0**126},
    "near": {"size": 2, "k": 20, "centre": 1.0, "times": 2.0**-21},
}


def tensors(
    size: int,
    k: int,
    *,
    dtype: torch.dtype = torch.float32,
    scaled: bool = False,
    lattice: bool = False,
    grouped: bool = False,
    centre: float = 0.0,
    times: float = 1.0,
) -> tuple[list, Tensor, Tensor, Tensor, list[Tensor]]:
    """Parts, motifs, roots and scales; and the blocks of each part."""
    from momos.vq.together import Part

    g = torch.Generator().manual_seed(size + k)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=g)
        return centre + times * (values.round() if lattice else values)

    half = [(0, k // 2), (k // 2, k - k // 2)] * 2
    parts, blocks, scales, start = [], [], [], 0
    for number, shape in enumerate(SHAPES):
        latent = draw(*shape).to(dtype)
        count = (shape[0] if number % 2 == 0 else 1) if scaled else 0
        scale = (torch.rand(max(1, count), generator=g) + 0.5).bfloat16().float()
        scales += [scale] if scaled else []
        first, most = half[number] if grouped else (0, k)
        value = torch.zeros_like(latent)
        parts.append(Part(latent, value, start, first, most, count, WEIGHTS[number]))
        flat = latent.float().view(-1)
        if scaled:
            flat = flat / scale.repeat_interleave(latent.numel() // count)
        rows = pad(flat, (0, -latent.numel() % size)).view(-1, size)
        blocks.append(rows)
        start += len(rows)
    roots = torch.zeros(4, k) if lattice else times * torch.rand(4, k, generator=g)
    scale = torch.cat(scales) if scaled else torch.zeros(0)
    return parts, draw(k, size), roots, scale, blocks


def fault(**options: Any) -> str:
    """Empty if the kernels are right."""
    from momos.vq import together

    parts, motifs, roots, scales, blocks = tensors(**options)
    expected = torch.cat(
        [
            part.first
            + nearest_reference(
                pad(rows, (0, 1)),
                torch.cat([motifs, root[:, None]], 1)[part.first :][: part.num_motifs],
            )
            for part, rows, root in zip(parts, blocks, roots, strict=True)
        ]
    )
    table = together.Table.of(parts, motifs.shape[1])
    indices = torch.full((len(expected),), -1, dtype=torch.int32)
    done = together.assign(table, motifs, roots, scales, out=indices)
    if not torch.equal(indices.long(), expected):
        return f"{int((indices != expected).sum())} of {len(expected)} indices"
    weights = torch.cat(
        [
            torch.full((len(rows), 1), part.weight)
            for part, rows in zip(parts, blocks, strict=True)
        ]
    ).double()
    rows = torch.cat(blocks).double() * weights
    sums = torch.zeros(motifs.shape).double().index_add_(0, expected, rows)
    if not torch.allclose(
        done.sums, sums, rtol=1e-12, atol=1e-12 * float(rows.abs().max())
    ):
        return "sums"
    if not torch.equal(done.usage, torch.bincount(expected, minlength=len(motifs))):
        return "usage"
    again = torch.full_like(indices, -1)
    same = together.assign(table, motifs, roots, scales, out=again, kept=indices)
    if not torch.equal(again, indices) or not torch.equal(same.sums, done.sums):
        return "kept indices"
    for fixed in (False, True):  # as the device says
        third, old = torch.full_like(indices, -1), (indices if fixed else again * 0)
        said = torch.tensor(fixed)
        done = together.assign(
            table, motifs, roots, scales, out=third, kept=old, fixed=said
        )
        if not torch.equal(third, indices) or not torch.equal(same.sums, done.sums):
            return f"indices that are fixed: {fixed}"
    step = torch.tensor(0.37)
    together.write(table, motifs, scales, step, indices)
    ends = [0, *torch.tensor([part.num_scales for part in parts]).cumsum(0).tolist()]
    starts = [*(part.start for part in parts), len(indices)]
    for part, (a, b), (low, high) in zip(
        parts, pairwise(starts), pairwise(ends), strict=True
    ):
        flat, own = (
            motifs[indices[a:b].long()].view(-1)[: part.latent.numel()],
            scales[low:high],
        )
        factor = (
            own.repeat_interleave(len(flat) // max(1, len(own)))
            if len(own)
            else torch.ones(1)
        )
        if not torch.equal(
            part.value.view(-1), (flat * (factor * step)).to(part.value.dtype)
        ):
            return "weights"
    parts[2].latent.view(-1)[7] = torch.inf
    flags = together.assign(table, motifs, roots, scales, out=indices).flags.tolist()
    return "" if flags == [0, 0, 1, 0] and not done.flags.any() else f"flags {flags}"


def network(device: str | torch.device = "cpu") -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 5)).to(device)


def learning(device: str | torch.device = "cpu", **options: Any) -> tuple[nn.Module, Any]:
    model = network(device)
    config = momos.MosaicConfig.learned(num_motifs=12, **options)
    importance = {"0.weight": 1.0, "2.weight": 3.0}
    momos.parametrize_(model, config, learn="weights", importance=importance)
    return model, momos.Reassign(model, total_steps=5, fixed=0.2)


def steps(**options: Any) -> str:
    """Whether five steps are those of the CPU."""
    (ours, fast), (theirs, slow) = learning(**options), learning(**options)
    for step in range(5):
        with torch.no_grad():
            for model in (ours, theirs):
                for number, weight in enumerate(model.parameters()):
                    weight.add_(
                        0.1
                        * (
                            torch.arange(weight.numel()).view_as(weight) + step + number
                        ).sin()
                    )
        with patch.object(following, "runs_on", lambda device: True):
            assert following.supported(fast.bank)
            found = fast.step()
        expected = slow.step()
        if not torch.equal(fast.bank.indices, slow.bank.indices):
            return f"indices at step {step}"
        if (found.changed, found.motifs_used) != (expected.changed, expected.motifs_used):
            return f"counts at step {step}: {found} for {expected}"
        for tile, other in zip(fast.bank.tiles, slow.bank.tiles, strict=True):
            if not torch.allclose(tile.value, other.value, rtol=1e-5):
                return f"weights at step {step}"
        fast.bank.motifs.copy_(slow.bank.motifs)  # the last bit of a mean may differ
    return refused(ours, fast)


def refused(model: nn.Module, reassign: Any) -> str:
    """What is not finite is named at the check, and changes nothing before."""
    reassign.total_steps, reassign.steps = 100, 50
    before = reassign.bank.motifs.clone(), reassign.bank.indices.clone()
    with torch.no_grad():
        model[2].parametrizations.weight.original[0, 0] = torch.nan
    with patch.object(following, "runs_on", lambda device: True):
        reassign.step()
        after = reassign.bank.motifs, reassign.bank.indices
        if not all(map(torch.equal, before, after)):
            return "a weight that is not finite changed motifs"
        reassign.steps = 63
        try:
            reassign.step()
        except ValueError as error:
            wanted = "weights must be finite, got 1 of 60 NaN or infinite in parameter '2.weight'"
            return "" if str(error) == wanted and reassign.steps == 63 else str(error)
    return "it was not refused"


STEPS: dict[str, dict[str, Any]] = {
    "rated": {"scales": "tensor", "bits": 8, "rate_weight": 0.3},
    "grouped": {"scales": "tensor", "bits": 16, "rate_weight": 0.3, "groups": (("0.*",),)},
    "revived": {"scales": "none", "bits": 32, "rate_weight": 0.0},
}


FEW = ["scaled", "groups", "rated", "summed"]  # the others take longer
KERNELS = ["80_write", "80_assign", "90_write", "90_assign"]


def compile_kernels(names: list[str]) -> dict[str, dict[str, int]]:
    """Bytes of the kernels' binaries, fused float64 products and inexact divisions, by target."""
    from momos.vq import together

    shared = {
        "S": 2,
        "SCALED": True,
        "FIELDS": together.FIELDS,
        "BLOCK_M": together.BLOCK_M,
    }
    tables, floats, ints = ["*i64", "*i32"], ["*fp32"] * 3, ["*i32"] * 2
    scalars = ["i32", "i32", "fp32", "fp32"]
    of_kernel: dict[str, tuple[list[str], dict[str, Any]]] = {
        "_assign": (
            [*tables, "*fp64", *floats, "*i32", "*i1", *ints, "*fp64", *scalars],
            {"KEPT": 2, "BLOCK_K": together.BLOCK_K, "DTYPE": together.tl.float32},
        ),
        "_write": ([*tables, *floats, "*i32"], {"DTYPE": together.tl.bfloat16}),
    }
    found = {}
    for name in names:
        kernel = name[2:]
        types, constants = of_kernel[kernel]
        made = compiled(
            getattr(together, kernel),
            types,
            constants | shared,
            target=int(name[:2]),
            enable_fp_fusion=False,
        )
        found[name] = {
            "binary": len(made.asm["cubin"]),
            "fused": len(re.findall(r"fma\S*f64", made.asm["ptx"])),
            "inexact": len(re.findall(r"div\.(full|approx)", made.asm["ptx"])),
        }
    return found


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run(__file__, "interpret", FEW, tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run(__file__, "interpret", rest_of(FEW), tmp_path_factory.mktemp("triton"))


def rest_of(names: list[str]) -> list[str]:
    return [name for name in [*CASES, *STEPS, "summed"] if name not in names]


@pytest.mark.parametrize("name", FEW)
def test_all_tensors_take_the_motifs_of_the_definition(few, name) -> None:
    assert few[name] == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", rest_of(FEW))
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
        assert counts["inexact"] == 0, f"{name} divides inexactly"


@pytest.mark.filterwarnings("ignore:momos has no engine for cuda:UserWarning")
def test_a_step_neither_waits_nor_loops() -> None:
    """But for the look at the flags, once in so many steps; launches do not grow with layers."""
    from momos.vq import together

    def assigned(table: Any, motifs: Tensor, *args: Any, **options: Any) -> Any:
        sums = motifs.double()
        flags = table.fields[:, 0].int() * 0
        return together.Assigned(sums, sums[:, 0] * 0, sums[:, 0].long() * 0 + 1, flags)

    launches = []
    for depth in (2, 6):
        with ExitStack() as stack:
            where = stack.enter_context(pretended("cuda:0"))
            stack.enter_context(patch.object(together, "assign", assigned))
            stack.enter_context(patch.object(together, "write", lambda *args: None))
            stack.enter_context(
                patch.object(momos.vq.nearest, "_MAKERS", {"cpu": momos.vq.cpu.searcher})
            )
            layers = [nn.Linear(6, 6) for _ in range(depth)]
            model = nn.Sequential(*layers).to(where.device)
            config = momos.MosaicConfig.learned(num_motifs=5, rate_weight=0.3)
            momos.parametrize_(model, config, learn="weights")
            reassign = momos.Reassign(model, total_steps=1000)
            assert isinstance(reassign.step(), schedule.Reassignment)
            where.waits.clear()
            where.launches.clear()
            where.uploads = 0
            done = reassign.step()
            assert not where.waits
            assert not where.uploads
            launches.append(sum(where.launches.values()))
            assert done is not None
            assert done.motifs_used == 5
            assert sum(where.waits.values()) == 1
    assert launches[0] == launches[1]


def summed() -> str:
    """Sums however skewed; the other way, for many motifs, too."""
    from momos.vq import together
    from momos.vq.gather import _sum_cuda

    g = torch.Generator().manual_seed(0)
    for size, k, dtype in (
        (1, 5, torch.float32),
        (2, 40, torch.float16),
        (3, 17, torch.float64),
    ):
        rows = torch.randn(700, size, generator=g).to(dtype)
        indices = torch.randint(k - 1, (700,), generator=g).int()  # the last has none
        indices[300:] = 2
        expected = torch.zeros(k, size).double().index_add_(0, indices, rows.double())
        found = together.sum_by_motif(rows, indices, k)
        if not torch.allclose(found, expected, rtol=1e-12, atol=1e-12):
            return f"sums of {k} motifs"
        with patch("momos.vq.gather.MOST_TOGETHER", 0):
            many = _sum_cuda(rows, indices, k)
        if not torch.allclose(many, expected.to(dtype), rtol=1e-3, atol=1e-6):
            return f"sums of {k} motifs, sorted"
    return ""


def interpret(names: list[str]) -> dict[str, str]:
    found: dict[str, Callable[[], str]] = {
        name: lambda options=options: fault(**options) for name, options in CASES.items()
    } | {name: lambda options=options: steps(**options) for name, options in STEPS.items()}
    found["summed"] = summed
    return {name: found[name]() for name in names}


if __name__ == "__main__":
    work = {"interpret": interpret, "compile": compile_kernels}[sys.argv[1]]
    print(json.dumps(work(sys.argv[2:])))
