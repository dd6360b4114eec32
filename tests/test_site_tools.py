"""The gallery and the zoo are made of checkpoints alone, and say what is in them."""

import re
from pathlib import Path

import gallery_page
import pytest
import torch
import zoo_page
from safetensors.torch import save_file

import momos


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    state = {
        "first.weight": torch.randn(64, 32, generator=generator) / 6,
        "lstm.weight_hh_l0": torch.randn(64, 16, generator=generator),
        "fourier_basis": torch.ones(200, 32),
        "bias": torch.zeros(64),
    }
    path = tmp_path / "digits-mlp.safetensors"
    save_file(state, path)
    return path


def test_a_start_has_the_shapes_and_the_scale_that_torch_gives_such_layers() -> None:
    trained = {
        "conv.weight": torch.zeros(8, 4, 3, 3),
        "lstm.weight_hh_l0": torch.zeros(64, 16),
        "embed.weight": torch.zeros(50, 20, dtype=torch.bfloat16),
    }
    start = zoo_page.initialized(trained, seed=0)
    assert {name: (t.shape, t.dtype) for name, t in start.items()} == {
        name: (t.shape, t.dtype) for name, t in trained.items()
    }
    assert 0.9 / 6 < float(start["conv.weight"].abs().max()) <= 1 / 6
    assert 0.9 / 4 < float(start["lstm.weight_hh_l0"].abs().max()) <= 1 / 4
    assert 0.9 < float(start["embed.weight"].float().std()) < 1.1
    again, other = (zoo_page.initialized(trained, seed=seed) for seed in (0, 1))
    assert torch.equal(again["conv.weight"], start["conv.weight"])
    assert not torch.equal(other["conv.weight"], start["conv.weight"])


def test_the_zoo_finds_no_arrangement_in_random_weights(checkpoint: Path) -> None:
    rows = list(zoo_page.measured(checkpoint, seeds=2, shuffles=3))
    assert {row.measure for row in rows} == set(zoo_page.MEASURES)
    assert all(row.num_weights == 64 * 48 for row in rows)  # nobody trained the basis
    (signs,) = (row for row in rows if row.measure == "signs, order 4")
    assert signs.arrangement.mean == pytest.approx(1, abs=0.01)
    text = "\n".join(zoo_page.page(rows, "the command", seeds=2, shuffles=3, seconds=60.0))
    assert "## digits-mlp\n\nMLP 64-256-256-10" in text
    assert "3,072 weights." in text


def test_the_gallery_shows_what_the_files_hold(checkpoint: Path, tmp_path: Path) -> None:
    network = gallery_page.shown(checkpoint, tmp_path)
    assert network.tensor == "first.weight"  # not the basis, which is larger
    assert (tmp_path / "digits-mlp.png").read_bytes().startswith(b"\x89PNG")
    text = "\n".join(gallery_page.page([network], "the command", 60.0))
    default = momos.compress(checkpoint, tmp_path / "net.momos")
    assert f"| default | {default.num_bytes:,} |" in text
    commands = re.findall(r"^momos compress .*", text, re.MULTILINE)
    assert commands[1].endswith(gallery_page.BANK)
