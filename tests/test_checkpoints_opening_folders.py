"""A folder is read if one file of it is the checkpoint; else the message lists what is there."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import momos
from momos.checkpoints.opening import open_source

STATE = {"a": torch.ones(3), "b": torch.zeros(2, 2)}


def write(folder: Path, *names: str) -> Path:
    """Files of these names, each with one tensor that is named as its file."""
    for name in names:
        if name.endswith(".json"):
            file = f"part-of-{name}".partition(".")[0] + (
                ".bin" if ".bin." in name else ".safetensors"
            )
            write(folder, file)
            (folder / name).write_text(json.dumps({"weight_map": {file: file}}))
        elif name.endswith(".safetensors"):
            save_file({name: torch.ones(2)}, folder / name)
        else:
            torch.save({name: torch.ones(2)}, folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "model.fp16.safetensors"], "model.safetensors"),
        (["model.fp16.safetensors", "pytorch_model.bin"], "model.fp16.safetensors"),
        (["adapter_model.safetensors", "training_args.bin"], "adapter_model.safetensors"),
        (["diffusion_pytorch_model.safetensors"], "diffusion_pytorch_model.safetensors"),
        (["pytorch_model.bin", "optimizer.pt", "rng_state.pth"], "pytorch_model.bin"),
        (["adapter_model.bin", "scheduler.pt"], "adapter_model.bin"),
        (["model_best.pth.tar"], "model_best.pth.tar"),
        (["model.safetensors.index.json"], "part-of-model.safetensors"),
        (["model.safetensors.index.fp16.json"], "part-of-model.safetensors"),
        (["model.fp16.safetensors.index.json"], "part-of-model.safetensors"),
        (["pytorch_model.bin.index.json"], "part-of-pytorch_model.bin"),
    ],
)
def test_the_one_checkpoint_of_a_folder_is_read(tmp_path, names, chosen):
    assert list(open_source(write(tmp_path, *names)).tensors) == [chosen]


@pytest.mark.parametrize(
    "names",
    [
        ["a.safetensors", "b.safetensors"],
        ["model.fp16.safetensors", "model.fp32.safetensors"],
        ["a.pt", "b.pth"],
    ],
)
def test_of_several_checkpoints_none_is_guessed(tmp_path, names):
    message = f"must hold one checkpoint, got {', '.join(names)}: name the one you mean"
    with pytest.raises(momos.FormatError, match=message):
        open_source(write(tmp_path, *names))


def test_a_folder_without_a_checkpoint_lists_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"or another checkpoint, got nothing$"):
        open_source(tmp_path)
    write(tmp_path, "optimizer.pt")
    for number in range(10):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"got 0.txt, .*9.txt, 1 more$"):
        open_source(tmp_path)


def test_shards_of_torch_files_are_one_checkpoint(tmp_path):
    tied = torch.randn(3, 4)
    torch.save({"a": tied, "b": tied, "e": 3}, tmp_path / "one.bin")
    torch.save({"c": torch.ones(5), "odd": torch.eye(2).to_sparse()}, tmp_path / "two.bin")
    places = {"b": "one.bin", "a": "one.bin", "c": "two.bin", "odd": "two.bin"}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    source = open_source(tmp_path)
    assert list(source.tensors) == ["a", "c"]
    assert source.aliases == {"b": "a"}
    assert source.left_out == {"e": "int"}
    assert "sparse" in source.unreadable["odd"]
    index.write_text(json.dumps({"weight_map": {"b": "one.bin", "c": "two.bin"}}))
    source = open_source(tmp_path)
    assert torch.equal(source.tensors["b"].read(0, 12).view(3, 4), tied)
    assert source.left_out["a"] == "not in pytorch_model.bin.index.json"


@pytest.mark.parametrize("name", ["x.bin", "x.safetensors", "x", "x.th", "x.momos.old"])
def test_content_says_what_a_file_is_and_not_its_name(tmp_path, name):
    save_file(STATE, tmp_path / name)
    assert list(open_source(tmp_path / name).tensors) == ["a", "b"]
    torch.save(STATE, tmp_path / name)
    assert list(open_source(tmp_path / name).tensors) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"GGUF" + bytes(40), "a GGUF file"),
        (b"\0\0\0\0" + b"\x9c\x11" * 40, "got bytes of no format"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, what):
    for name in ("x.pt", "x.onnx", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(momos.FormatError, match=what) as error:
            open_source(tmp_path / name)
        assert "must be a checkpoint" in str(error.value)


def test_a_tensor_of_less_than_a_byte_a_value_is_named_and_can_be_excluded(tmp_path):
    packed = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    save_file({"w": torch.randn(8, 8), "f4": packed}, tmp_path / "x.safetensors")
    assert open_source(tmp_path / "x.safetensors").unreadable == {
        "f4": "of dtype F4: save it dequantized"
    }


def test_reading_stays_on_the_cpu_whatever_the_default_device_is(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    for zipped in (True, False):
        torch.save(
            {"a": torch.ones(3), "b": torch.arange(6.0).view(2, 3).T},
            tmp_path / f"{zipped}.pt",
            _use_new_zipfile_serialization=zipped,
        )
    with torch.device("meta"):
        for name in ("x.safetensors", "True.pt", "False.pt"):
            for tensor in open_source(tmp_path / name).tensors.values():
                read = tensor.read(0, tensor.num_weights)
                assert read.device.type == "cpu"
                assert len(read) == tensor.num_weights
