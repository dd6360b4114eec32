"""A file is recognized by its first bytes, whatever its name says."""

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

import momos
from momos._util import formats
from momos._util.formats import recognized
from momos.checkpoints.records import Records

GOLDEN = Path(__file__).parent / "files" / "golden" / "v1" / "mlp.momos"


def torch_saved(**options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(nn.Linear(2, 2).state_dict(), file, **options)
    return file.getvalue()


def torchscript() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return file.getvalue()


def numpy_saved(*arrays: str) -> bytes:
    file = io.BytesIO()
    if arrays:
        np.savez(file, **dict.fromkeys(arrays, np.zeros(2)))
    else:
        np.save(file, np.zeros(2))
    return file.getvalue()


CONTENTS = {
    "MOMOS": GOLDEN.read_bytes(),
    "MOMOS damaged": GOLDEN.read_bytes().replace(b"}", b"]", 1),
    "SAFETENSORS": save({"w": torch.zeros(3)}),
    "SAFETENSORS without tensors": save({}),
    "SAFETENSORS cut short": save({"w": torch.zeros(3)})[:20],
    "TORCH": torch_saved(),
    "TORCH of old": torch_saved(_use_new_zipfile_serialization=False),
    "TORCHSCRIPT": torchscript(),
    "EXPORTED": zipped("e/models/model.json", "e/archive_format", "e/data/model.pt"),
    "KERAS": zipped("metadata.json", "config.json", "model.weights.h5"),
    "NUMPY": numpy_saved(),
    "NUMPY of several": numpy_saved("a", "b"),
    "ZIP": zipped("weights.txt"),
    "EMPTY": b"",
    "LFS_POINTER": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
    "HTML": b"\n<!DOCTYPE html><html><head><title>404</title>",
    "HTML without a type": b"<HTML>",
    "ONNX": bytes.fromhex("080a1207") + b"pytorch" + bytes.fromhex("1a05") + b"2.13.",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "GGUF": b"GGUF\3\0\0\0" + bytes(20),
    "TFLITE": b"\x1c\0\0\0TFL3" + bytes(20),
    "PICKLE": pickle.dumps({"w": [1.0]}),
    "COMPRESSED": b"\x1f\x8b\x08" + bytes(20),
    "TAR": bytes(257) + b"ustar\0" + bytes(300),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_is_recognized_by_its_bytes(kind, tmp_path):
    path = tmp_path / "network.momos"
    path.write_bytes(CONTENTS[kind])
    assert recognized(path) == getattr(formats, kind.partition(" ")[0])


def test_a_zip_archive_that_ends_early_is_told(tmp_path):
    path = tmp_path / "network.pt"
    path.write_bytes(torch_saved()[:200])
    assert "ZIP archive that is not whole" in str(recognized(path))


def test_a_zip_archive_of_a_later_version_is_refused_in_words(tmp_path):
    path = tmp_path / "network.pt"
    data = bytearray(zipped("data.pkl"))
    data[data.find(b"PK\1\2") + 6] = 99  # the version that is needed to read it
    path.write_bytes(data)
    assert str(recognized(path)).startswith("a ZIP archive that")
    with pytest.raises(momos.FormatError, match="must be a whole zip: zip file version"):
        Records(path)


@pytest.mark.parametrize(
    "data", [b"\0", b"\x80", b"\x08", b"w", b"{}", bytes(700), b"\x80\2" + bytes(9)]
)
def test_what_is_nothing_known_is_none(data, tmp_path):
    path = tmp_path / "network"
    path.write_bytes(data)
    assert recognized(path) is None


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert recognized(tmp_path / "pipe") is None  # opening it would wait for a writer
    assert recognized(tmp_path) is None
    assert recognized(tmp_path / "absent") is None
