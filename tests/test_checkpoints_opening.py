"""Checkpoints are read as they lie, piece by piece, and nothing in them is run or believed."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import momos
from momos._util.formats import CODES
from momos.checkpoints.opening import open_source


def read_all(path: Path) -> dict[str, torch.Tensor]:
    source = open_source(path)
    tensors = {
        name: tensor.read(0, tensor.num_weights).view(tensor.shape)
        for name, tensor in source.tensors.items()
    }
    return tensors | {name: tensors[first] for name, first in source.aliases.items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and bytes(left[name].view(-1).view(torch.uint8))
        == bytes(right[name].contiguous().view(-1).view(torch.uint8))
        for name in left
    )


def every_dtype() -> dict[str, torch.Tensor]:
    values = torch.arange(24, dtype=torch.uint8)
    tensors = {
        code: values.view(dtype).clone() if dtype != torch.bool else values % 2 == 0
        for code, dtype in CODES.items()
    }
    return tensors | {"empty": torch.empty(0, 3), "one": torch.tensor(1.5)}


def shards(folder: Path, **changes: object) -> Path:
    save_file({"a": torch.ones(3), "b": torch.zeros(2, 2)}, folder / "one.safetensors")
    save_file({"c": torch.full((5,), 2.0)}, folder / "two.safetensors")
    places: dict[str, object] = {"a": "one.safetensors", "b": "one.safetensors"}
    places |= {"c": "two.safetensors"} | changes
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def raw(path: Path, header: bytes, values: bytes = b"", size: int | None = None) -> Path:
    count = len(header) if size is None else size
    path.write_bytes(struct.pack("<Q", count) + header + values)
    return path


def test_a_safetensors_file_is_read_with_every_dtype(tmp_path):
    tensors = every_dtype()
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt", "note": "ü"})
    found = read_all(tmp_path / "x.safetensors")
    assert same(dict(sorted(found.items())), dict(sorted(tensors.items())))
    assert open_source(tmp_path / "x.safetensors").metadata == {"format": "pt", "note": "ü"}


def test_any_piece_of_a_tensor_can_be_read(tmp_path):
    values = torch.randn(7, 11)
    save_file({"x": values}, tmp_path / "x.safetensors")
    tensor = open_source(tmp_path / "x.safetensors").tensors["x"]
    assert torch.equal(tensor.read(13, 60), values.view(-1)[13:60])
    assert len(tensor.read(5, 5)) == 0


def test_a_folder_of_shards_is_one_checkpoint(tmp_path):
    expected = {"a": torch.ones(3), "b": torch.zeros(2, 2), "c": torch.full((5,), 2.0)}
    assert same(read_all(shards(tmp_path)), expected)
    assert same(read_all(tmp_path / "model.safetensors.index.json"), expected)


def test_a_folder_with_one_file_needs_no_index(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    assert same(read_all(tmp_path), {"a": torch.ones(3)})


def test_tensors_that_the_index_leaves_out_are_told(tmp_path):
    save_file({"a": torch.ones(3), "z": torch.ones(1)}, tmp_path / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert open_source(tmp_path).left_out == {"z": "not in model.safetensors.index.json"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": "../one.safetensors"}, "files must lie beside it"),
        ({"a": "/etc/passwd"}, "files must lie beside it"),
        ({"a": 3}, "must name a file for each tensor"),
        ({"d": "two.safetensors"}, "two.safetensors must hold 'd', but does not"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, changes, message):
    with pytest.raises(momos.FormatError, match=message):
        open_source(shards(tmp_path, **changes))


def test_a_missing_shard_is_an_os_error(tmp_path):
    (shards(tmp_path) / "two.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"two\.safetensors"):
        open_source(tmp_path)


def entry(**changes: object) -> bytes:
    about = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    return json.dumps({"x": about}).encode()


@pytest.mark.parametrize(
    ("header", "values", "size", "message"),
    [
        (b"", b"", None, "must be JSON"),
        (b"[]", b"", None, "must be an object of tensors"),
        (b"{", b"", None, "must be JSON"),
        (b"[" * 100_000, b"", None, "must be JSON"),
        (b"{}", b"", 1 << 60, "is this a safetensors file"),
        (entry(), bytes(7), None, "2 values must take 8 of the file's 7 bytes"),
        (entry(shape=[3]), bytes(8), None, "3 values must take 12"),
        (entry(shape=[-2]), bytes(8), None, "must be integers of at least 0"),
        (entry(shape=[True, 2]), bytes(8), None, "must be integers of at least 0"),
        (entry(shape=2), bytes(8), None, "must be an iterable"),
        (entry(shape=[10**15]), bytes(8), None, "of the file's 8 bytes"),
        (entry(data_offsets=[8, 0]), bytes(8), None, "got 8 to 0"),
        (entry(data_offsets=[0]), bytes(8), None, "expected 2"),
        (entry(dtype="F7"), bytes(8), None, "dtype must be one of .* got 'F7'"),
        (b'{"x": 3}', b"", None, "tensor 'x'"),
        (b'{"__metadata__": {"a": 3}}', b"", None, "metadata must be strings"),
    ],
)
def test_a_damaged_safetensors_file_is_refused(tmp_path, header, values, size, message):
    path = raw(tmp_path / "x.safetensors", header, values, size)
    with pytest.raises(momos.FormatError, match=message) as error:
        open_source(path)
    assert str(path) in str(error.value)


def test_a_file_cut_short_after_opening_is_told(tmp_path):
    save_file({"x": torch.ones(100)}, tmp_path / "x.safetensors")
    tensor = open_source(tmp_path / "x.safetensors").tensors["x"]
    with open(tmp_path / "x.safetensors", "r+b") as file:
        file.truncate(200)
    with pytest.raises(momos.FormatError, match="ends early"):
        tensor.read(0, 100)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_of_torch_save_is_read(tmp_path, zipped):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    path = tmp_path / "x.pt"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert same(read_all(path), dict(model.state_dict()))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_under_a_usual_key_is_found_and_the_rest_is_told(tmp_path, key):
    state = torch.nn.Linear(2, 3).state_dict()
    torch.save({key: state, "epoch": 3, "optimizer": {}}, tmp_path / "x.pth")
    assert same(read_all(tmp_path / "x.pth"), dict(state))
    left = open_source(tmp_path / "x.pth").left_out
    assert left == {"epoch": "int", "optimizer": "dict"}


def test_tied_tensors_are_read_once(tmp_path):
    weight = torch.randn(3, 4)
    torch.save({"a": weight, "b": weight, "c": weight.T}, tmp_path / "x.pt")
    source = open_source(tmp_path / "x.pt")
    assert source.aliases == {"b": "a"}
    assert torch.equal(source.tensors["c"].read(0, 12).view(4, 3), weight.T)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("harm"),)


def test_code_in_a_pickle_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": torch.ones(2), "y": Harmful()}, "x.pt")
    with pytest.raises(momos.FormatError, match="tensors and plain values only") as error:
        open_source("x.pt")
    assert "x.pt: pickle" in str(error.value)
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"hello" * 9, "got bytes of no format"),
        (b"PK\x03\x04" + bytes(50), "a ZIP archive that is not whole"),
        (bytes(99), "got bytes of no format"),
    ],
)
def test_what_torch_did_not_write_is_refused(tmp_path, content, message):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(momos.FormatError, match=message):
        open_source(tmp_path / "x.pt")


@pytest.mark.parametrize("value", [3, [torch.ones(2)], {}, {"epoch": 3}, torch.ones(3)])
def test_a_torch_file_without_a_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(momos.FormatError, match="must hold a state dict"):
        open_source(tmp_path / "x.pt")


def test_missing_files_are_os_errors(tmp_path):
    for name in ("x.safetensors", "x.pt", "x", "x.safetensors.index.json"):
        with pytest.raises(FileNotFoundError):
            open_source(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"must hold model\.safetensors"):
        open_source(tmp_path)


def test_every_file_that_is_read_is_named(tmp_path):
    folder = shards(tmp_path)
    index = folder / "model.safetensors.index.json"
    expected = (index, folder / "one.safetensors", folder / "two.safetensors")
    assert open_source(folder).files == expected
    assert open_source(folder / "one.safetensors").files == expected[1:2]
    torch.save({"a": torch.ones(2)}, folder / "x.pt")
    assert open_source(folder / "x.pt").files == (folder / "x.pt",)


@pytest.mark.parametrize(
    "name", ["one.safetensors", "two.safetensors", "model.safetensors.index.json", "x.pt"]
)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    folder = shards(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(OSError, match=f"must be an ordinary one, but .*{name} is a pipe"):
        open_source(folder / name if name == "x.pt" else folder)
