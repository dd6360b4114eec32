"""The pure parts of bench/compress.py: curves through points, and integers with xz."""

import lzma
import runpy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

BENCH = Path(__file__).parents[1] / "bench"
FITS = runpy.run_path(str(BENCH / "compress_fits.py"))
bytes_at, bytes_for = FITS["bytes_at"], FITS["bytes_for"]
value_at, never_falling = FITS["value_at"], FITS["never_falling"]
by_integers = runpy.run_path(str(BENCH / "compress_methods.py"))["by_integers"]
ROWS = runpy.run_path(str(BENCH / "compress_rows.py"))


def test_the_bytes_at_a_divergence_are_those_of_the_curve() -> None:
    sizes = [100.0 * 1.2**i for i in range(10)]
    values = [(b / 200) ** -4 for b in sizes]  # 1 at 200 bytes
    found = bytes_at(sizes, values, 1.0)
    assert found == pytest.approx((200, 0), abs=0.1)
    noise = [v * (1.3 if i % 2 else 1 / 1.3) for i, v in enumerate(values)]
    at, error = bytes_at(sizes, noise, 1.0)
    assert abs(at / 200 - 1) < 2 * error < 0.1


def test_no_bytes_are_said_outside_of_what_was_measured() -> None:
    assert bytes_at([1, 2, 3], [9.0, 4.0, 1.0], 0.5) is None
    assert bytes_at([1, 2], [4.0, 1.0], 2.0) is None
    assert bytes_at([1, 2, 3], [0.0, 0.0, 0.0], 2.0) is None
    assert value_at([10, 20], [1.0, 2.0], 9) is None
    assert bytes_for([10, 20], [1.0, 2.0], 2.5) is None
    assert bytes_for([], [], 2.5) is None


def test_values_between_points_are_on_lines_over_the_logarithm() -> None:
    assert value_at([100, 400], [90.0, 92.0], 200) == pytest.approx(91)
    assert bytes_for([400, 100], [92.0, 90.0], 91) == pytest.approx(200)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12))
def test_a_sequence_that_never_falls_keeps_its_mean_and_is_nearest(
    values: list[float],
) -> None:
    found = never_falling(values)
    assert len(found) == len(values)
    assert all(a <= b + 1e-9 for a, b in pairwise(found))
    assert sum(found) == pytest.approx(sum(values), abs=1e-6)
    assert never_falling(found) == pytest.approx(found)
    if values == sorted(values):
        assert found == values


def test_integers_are_within_half_a_step_of_the_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (
        torch.randn(6, 4, 3, generator=generator) * torch.logspace(-3, 1, 6)[:, None, None]
    )
    weight[5] = 0
    state = {"w": weight, "bias": torch.ones(4) / 3, "steps": torch.tensor(7)}
    for bits in (8, 4, 3):
        data, found = by_integers(bits, state)
        step = weight.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
        error = (found["w"] - weight).flatten(1).abs().amax(1)
        assert bool((error <= step / 2 * (1 + 1e-5)).all())
        for row, size in zip(found["w"].flatten(1), step, strict=True):
            assert len(row.unique()) <= 2**bits - 1
            assert row.abs().max() == pytest.approx(float(size) * (2 ** (bits - 1) - 1))
        assert torch.equal(found["bias"], state["bias"].bfloat16().float())
        assert torch.equal(found["steps"], state["steps"])
        raw = lzma.decompress(data)  # what a reader needs: integers, scales, vectors
        assert len(raw) == weight.numel() + 4 * 6 + 2 * 4 + 8


def test_rows_are_kept_in_their_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "rows.jsonl"
    row = ROWS["Row"]("n", "d", "m", "λ 1", "v", 400, 10, 100, 0.5, None, 1.5, 0.01)
    ROWS["Rows"](path).add(row)
    again = ROWS["Rows"](path)
    assert again.get("n", "d", "m", "λ 1", "v") == row
    assert again.get("n", "d", "m", "λ 1", "w") is None
    assert row.factor == 4


def test_the_script_for_a_gpu_runs_dry(capsys) -> None:
    device = runpy.run_path(str(BENCH / "device.py"))
    device["main"](["--dry"])
    printed = capsys.readouterr().out
    assert "WRONG" not in printed
    for table in ("training step", "nearest", "work", "project_", "Projector.step"):
        assert f"| {table} |" in printed
