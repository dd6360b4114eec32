"""A .momos file becomes a dense checkpoint again, with the very weights that it holds."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import momos
from momos._util import atomic
from momos.checkpoints import expansion
from momos.checkpoints.opening import open_source
from momos.files.manifest import Record

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
    source = open_source(tmp_path / "x.safetensors")
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


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_file_is_not_expanded_onto_itself(tmp_path, link):
    _, path = saved(tmp_path)
    before = path.read_bytes()
    output = tmp_path / "x.safetensors"
    getattr(output, link)(path)
    with pytest.raises(ValueError, match="must be written beside"):
        momos.expand(path, output)
    assert path.read_bytes() == output.read_bytes() == before


@pytest.mark.parametrize("name", ["x.momos", "y.ckpt", "y", "y.safetensors.tmp", "y.PT"])
def test_a_name_that_is_no_checkpoints_is_refused(tmp_path, name):
    _, path = saved(tmp_path)
    before = path.read_bytes()
    message = rf"must be named \.safetensors, \.pt, \.pth or \.bin, got .*{name}$"
    with pytest.raises(ValueError, match=message):
        momos.expand(path, tmp_path / name)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.momos"]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_a_torch_file_is_the_state_of_the_network(tmp_path, suffix):
    model, path = saved(tmp_path)
    momos.expand(path, tmp_path / f"x{suffix}")
    found, state = (
        torch.load(tmp_path / f"x{suffix}", weights_only=True),
        model.state_dict(),
    )
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert found["one.weight"].data_ptr() == found["two.weight"].data_ptr()
    momos.compress(tmp_path / f"x{suffix}", tmp_path / "y.momos", CONFIG)
    assert momos.load(tmp_path / "y.momos").state_dict().keys() == state.keys()


def test_a_damaged_file_leaves_the_old_torch_file(tmp_path):
    _, path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (tmp_path / "x.pt").write_bytes(b"old")
    with pytest.raises(momos.FormatError):
        momos.expand(path, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").read_bytes() == b"old"


def test_a_full_disk_leaves_the_old_torch_file(tmp_path, monkeypatch):
    _, path = saved(tmp_path)
    (tmp_path / "x.pt").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        momos.expand(path, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.momos", "x.pt"]


def with_buffer(folder: Path, name: str) -> Path:
    model = nn.Linear(8, 8)
    model.register_buffer(name, torch.arange(3))
    momos.project_(model, CONFIG)
    momos.save(model, folder / "x.momos")
    return folder / "x.momos"


def test_the_name_that_safetensors_keeps_for_itself_is_refused(tmp_path):
    path = with_buffer(tmp_path, "__metadata__")
    with pytest.raises(ValueError, match="must not be named '__metadata__'"):
        momos.expand(path, tmp_path / "x.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["x.momos"]
    momos.expand(path, tmp_path / "x.pt")
    assert torch.load(tmp_path / "x.pt")["__metadata__"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["", "重み", "quote\"'\\", "\x00\n\x1b[1m", "😀", "momos"])
def test_any_other_name_is_kept(tmp_path, name):
    if not name:
        save_file({"": torch.randn(40)}, tmp_path / "a.safetensors")
        momos.compress(tmp_path / "a.safetensors", tmp_path / "x.momos", CONFIG)
    path = tmp_path / "x.momos" if not name else with_buffer(tmp_path, name)
    momos.expand(path, tmp_path / "x.safetensors")
    assert name in load_file(tmp_path / "x.safetensors")


def test_a_header_that_safetensors_would_refuse_is_refused(tmp_path, monkeypatch):
    _, path = saved(tmp_path)
    monkeypatch.setattr(expansion, "MOST_HEADER", 500)
    with pytest.raises(ValueError, match="must have at most 500 bytes, but 12 tensors"):
        momos.expand(path, tmp_path / "x.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["x.momos"]


def aliased(folder: Path, count: int) -> Path:
    """A tensor of 4 MB under `count` more names, in a file of a few kB."""
    first = Record("w", "dense", (1 << 20,), torch.float32)
    others = (Record(f"w{number}", "same", same_as="w") for number in range(count))
    checkpoint = momos.Checkpoint(None, {"w": torch.zeros(1 << 20)}, (first, *others))
    momos.save(checkpoint, folder / "x.momos")
    return folder / "x.momos"


def test_what_names_repeat_is_bounded_by_the_size_of_the_file(tmp_path):
    path = aliased(tmp_path, 300)
    size = path.stat().st_size
    message = (
        rf"x\.safetensors must have at most {65536 * size:,} bytes of weights, but the "
        rf"{size:,} bytes of .*x\.momos expand to {301 << 22:,}, of which {300 << 22:,} repeat "
        rf"tensors with several names \(most_bytes={301 << 22} allows that"
    )
    with pytest.raises(ValueError, match=message):
        momos.expand(path, tmp_path / "x.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["x.momos"]


def test_more_or_fewer_bytes_can_be_allowed(tmp_path):
    path = aliased(tmp_path, 2)
    with pytest.raises(
        ValueError, match=r"at most 9,000,000 bytes .* expand to 12,582,912"
    ):
        momos.expand(path, tmp_path / "x.safetensors", most_bytes=9_000_000)
    momos.expand(path, tmp_path / "x.safetensors", most_bytes=3 << 22)
    found = load_file(tmp_path / "x.safetensors")
    assert [len(found[name]) for name in ("w", "w0", "w1")] == [1 << 20] * 3


def test_a_torch_file_holds_a_tensor_of_many_names_once(tmp_path):
    path = aliased(tmp_path, 300)
    momos.expand(path, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 5 << 20
    assert len(torch.load(tmp_path / "x.pt")) == 301


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_system_without_locks_gives_one_warning(tmp_path, monkeypatch, suffix):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    _, path = saved(tmp_path)
    monkeypatch.setattr(atomic.fcntl, "flock", fail)
    with pytest.warns(UserWarning, match=f"x{suffix} is written without a lock") as warned:
        momos.expand(path, tmp_path / f"x{suffix}")
    assert [warning.filename for warning in warned] == [__file__]


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "x.momos")
    with pytest.raises(OSError, match=r"must be an ordinary one, but .*x\.momos is a pipe"):
        momos.expand(tmp_path / "x.momos", tmp_path / "x.safetensors")
