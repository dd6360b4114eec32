"""A .momos file becomes a dense checkpoint again, with the very weights that it holds."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import momos

CONFIG = momos.MosaicConfig(block_size=4, num_motifs=16, selection="kmeans")


class Network(nn.Module):
    """Tied weights, a buffer of every kind, statistics, an empty and a one-value tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 8)
        self.two = nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.norm = nn.BatchNorm1d(8)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("empty", torch.empty(0, 3))
        self.register_buffer("temporary", torch.arange(5), persistent=False)


def saved(folder: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = Network()
    momos.project_(model, CONFIG)
    momos.save(model, folder / "x.momos")
    return model, folder / "x.momos"


def test_the_checkpoint_is_the_state_of_the_network(tmp_path):
    model, path = saved(tmp_path)
    momos.expand(path, tmp_path / "x.safetensors")
    found, state = load_file(tmp_path / "x.safetensors"), model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    Network().load_state_dict(found)


def test_metadata_comes_back(tmp_path):
    save_file({"w": torch.randn(64)}, tmp_path / "a.safetensors", metadata={"author": "me"})
    momos.compress(tmp_path / "a.safetensors", tmp_path / "a.momos", CONFIG)
    momos.expand(tmp_path / "a.momos", tmp_path / "b.safetensors")
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert file.metadata() == {"author": "me", "format": "pt"}


def test_whole_motifs_and_scales_of_channels_come_back(tmp_path):
    torch.manual_seed(0)
    state = {"a": torch.randn(6, 50), "b": torch.randn(7, 3, 3).half(), "c": torch.randn(9)}
    save_file(state, tmp_path / "a.safetensors")
    config = momos.MosaicConfig(num_motifs=16, scales="channel", bits=4, rate_weight=0.1)
    momos.compress(tmp_path / "a.safetensors", tmp_path / "a.momos", config)
    momos.expand(tmp_path / "a.momos", tmp_path / "b.safetensors")
    found, mosaic = load_file(tmp_path / "b.safetensors"), momos.load(tmp_path / "a.momos")
    assert mosaic.mosaic is not None
    assert mosaic.mosaic.scales is not None
    assert sorted(map(len, mosaic.mosaic.scales)) == [1, 6, 7]
    for name, tensor in mosaic.state_dict().items():
        assert found[name].dtype == state[name].dtype
        assert torch.equal(found[name], tensor)


def test_every_value_is_aligned(tmp_path):
    _, path = saved(tmp_path)
    momos.expand(path, tmp_path / "x.safetensors")
    source = momos.sources.open_source(tmp_path / "x.safetensors")
    for tensor in source.tensors.values():
        start = tensor.read.args[1]  # pyright: ignore[reportFunctionMemberAccess]
        assert start % tensor.dtype.itemsize == 0


def test_a_damaged_file_leaves_nothing_behind(tmp_path):
    _, path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    with momos.MosaicFile(path) as file:
        at = file.file.start + file.file.sections["dense"].start
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(momos.FormatError, match="dense: must have the checksum"):
        momos.expand(path, tmp_path / "x.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["x.momos"]


def test_a_dtype_that_safetensors_lacks_is_refused_by_name(tmp_path):
    model = nn.Linear(8, 8)
    model.register_buffer("wave", torch.zeros(3, dtype=torch.complex128))
    momos.project_(model, CONFIG)
    momos.save(model, tmp_path / "x.momos")
    with pytest.raises(ValueError, match=r"tensor 'wave' is torch\.complex128"):
        momos.expand(tmp_path / "x.momos", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_an_empty_network_is_an_empty_checkpoint(tmp_path):
    momos.save(nn.Sequential(), tmp_path / "x.momos")
    momos.expand(tmp_path / "x.momos", tmp_path / "x.safetensors")
    assert load_file(tmp_path / "x.safetensors") == {}


def test_a_file_is_not_expanded_onto_itself(tmp_path):
    _, path = saved(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="must be written beside"):
        momos.expand(path, path)
    assert path.read_bytes() == before
