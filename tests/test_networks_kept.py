"""The networks in docs/results/networks load, and still say what they said when they were kept."""

import json
from pathlib import Path

import pytest
import torch
from keep_networks import LISTED, outputs

import momos

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "networks"
KEPT = json.loads((FOLDER / LISTED).read_text("utf-8"))


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_network_says_what_it_said(name: str) -> None:
    found = outputs(FOLDER / name, KEPT[name]["task"])
    assert torch.allclose(found, torch.tensor(KEPT[name]["outputs"]), atol=1e-3)


def test_every_file_is_listed_is_as_small_as_its_name_says_and_all_are_small() -> None:
    files = sorted(FOLDER.glob("*.momos"))
    assert [file.name for file in files] == sorted(KEPT)
    for file in files:
        target = int(file.stem.rpartition("-")[2])
        assert momos.inspect(file).num_bytes == file.stat().st_size <= target
    assert sum(file.stat().st_size for file in files) < 1_000_000
