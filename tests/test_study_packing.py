from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed import read, split, unpack, unpack_floats
from torch import nn

from momos.study.treatments.packing import Levels, join, pack, pack_floats, write


@given(st.binary(max_size=300))
def test_packing_symbols_is_undone(raw: bytes) -> None:
    symbols = np.frombuffer(raw, np.uint8)
    assert np.array_equal(unpack(pack(symbols)), symbols)


def bits(values: torch.Tensor) -> list[int]:
    return values.view(torch.int32).tolist()


@given(st.lists(st.floats(width=32, allow_nan=False)), st.booleans())
def test_packing_floats_is_undone_bit_for_bit(numbers: list[float], narrow: bool) -> None:
    values = torch.tensor(numbers, dtype=torch.float32)
    values = values.bfloat16().float() if narrow else values
    assert bits(unpack_floats(pack_floats(values))) == bits(values)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_joining_is_undone(parts: list[bytes]) -> None:
    assert split(join(parts), len(parts)) == parts


@pytest.mark.parametrize("levels", [3, 15, 255])
def test_symbols_take_their_entropy(levels: int) -> None:
    weights = np.random.default_rng(0).normal(0, levels / 6, 100_000).round()
    symbols = (weights.clip(-levels // 2, levels // 2) + 128).astype(np.uint8)
    shares = np.bincount(symbols) / len(symbols)
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum() * len(symbols) / 8
    table = 3 * levels + 150
    assert entropy <= len(pack(symbols)) <= 1.002 * entropy + table


def test_zeros_take_next_to_nothing() -> None:
    assert len(pack(np.zeros(1_000_000, np.uint8))) < 10


def test_values_that_fit_bfloat16_take_two_bytes_at_most() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert len(pack_floats(values.float())) < 0.7 * 20_000  # exponents compress


def test_levels_that_are_not_the_weights_are_refused(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    levels = Levels(torch.ones(2, 3, dtype=torch.int32), torch.ones(2))
    with pytest.raises(ValueError, match="levels of 'weight' must give its weights"):
        write(tmp_path / "file", network, {"weight": levels})


def test_scalars_and_empty_networks_are_kept(tmp_path: Path) -> None:
    for network in (nn.Identity(), nn.BatchNorm1d(3), nn.PReLU()):
        size = write(tmp_path / "file", network)
        assert size == (tmp_path / "file").stat().st_size
        state = network.state_dict()
        found = read(tmp_path / "file")
        assert list(found) == list(state)
        assert all(torch.equal(found[name], state[name]) for name in state)
