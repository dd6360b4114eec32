"""Every tensor as it was, bit for bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import momos
from momos.files.manifest import DTYPES
from networks import assert_equal


def odd() -> dict[str, torch.Tensor]:
    """Every dtype that a file can hold, with values that no arithmetic would keep."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, dtype in DTYPES.items():
        flat = torch.randint(256, (24 * dtype.itemsize,), generator=generator).byte()
        flat = (
            flat & 1 if dtype == torch.bool else flat
        )  # others may be any bits, NaN as well
        state[name] = flat.view(dtype).view(2, 3, 4)
    state["scalar"] = torch.tensor(-0.0)
    state["empty"] = torch.empty(0, 3)
    state["infinite"] = torch.tensor([float("inf"), float("nan"), 1e-45])
    return state


def test_a_torch_file_comes_back_bit_for_bit(tmp_path):
    state = odd() | {"tied": (w := torch.randn(30, 20)), "to": w}
    torch.save({"model": state, "epoch": 3}, tmp_path / "x.pt")
    report = momos.compress(tmp_path / "x.pt", tmp_path / "x.momos", lossless=True)
    assert_equal(momos.load(tmp_path / "x.momos").state_dict(), state)
    assert {tensor.stored for tensor in report.tensors} == {"dense", "same"}
    assert {t.why for t in report.tensors if t.stored == "dense"} == {"lossless"}
    assert report.config is None
    assert report.relative_error is None
    assert report.left_out == {"epoch": "int"}
    assert report.source_bytes == (tmp_path / "x.pt").stat().st_size


def test_metadata_of_a_safetensors_file_is_kept(tmp_path):
    save_file({"a": torch.randn(9, 9)}, tmp_path / "x.safetensors", {"format": "pt"})
    momos.compress(tmp_path / "x.safetensors", tmp_path / "x.momos", lossless=True)
    assert momos.load(tmp_path / "x.momos").metadata == {"format": "pt"}


def test_a_module_comes_back_bit_for_bit(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(9, 9).bfloat16())
    momos.compress(model, tmp_path / "x.momos", lossless=True)
    assert_equal(momos.load(tmp_path / "x.momos").state_dict(), dict(model.state_dict()))


def test_nothing_needs_to_be_a_weight(tmp_path):
    save_file({"a": torch.arange(100)}, tmp_path / "x.safetensors")
    momos.compress(tmp_path / "x.safetensors", tmp_path / "x.momos", lossless=True)
    found = momos.load(tmp_path / "x.momos").state_dict()
    assert torch.equal(found["a"], torch.arange(100))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config", momos.LatticeConfig()),
        ("config", momos.MosaicConfig(num_motifs=3)),
        ("target_bytes", 100),
        ("target_factor", 2.0),
        ("evaluate", len),
        ("calibration", []),
    ],
)
def test_what_would_change_tensors_is_refused(tmp_path, name, value):
    save_file({"a": torch.randn(9, 9)}, tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match=f"lossless must be given without {name}, got both"
    ):
        momos.compress(
            tmp_path / "x.safetensors", tmp_path / "x", lossless=True, **{name: value}
        )
    with pytest.raises(ValueError, match="max_drop must be given with evaluate"):
        momos.compress(
            tmp_path / "x.safetensors", tmp_path / "x", lossless=True, max_drop=1
        )
    assert not (tmp_path / "x").exists()


def test_it_is_a_bool(tmp_path):
    with pytest.raises(TypeError, match="lossless must be a bool, got 'no'"):
        momos.compress(tmp_path / "x", tmp_path / "y", lossless="no")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"a": torch.eye(3).to_sparse()},
            "tensor 'a' of .*x.pt must hold plain values, but is",
        ),
        (
            {"a": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)},
            "but is of dtype float4_e2m1fn_x2: save it in",
        ),
    ],
)
def test_tensors_that_no_file_holds_are_refused(tmp_path: Path, state, message):
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message) as caught:
        momos.compress(tmp_path / "x.pt", tmp_path / "x.momos", lossless=True)
    assert "exclude" not in str(caught.value)
    assert not (tmp_path / "x.momos").exists()
