"""Formats of files: the safetensors header, and recognizing others by their content.

A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON, which may
be padded with spaces), and the values. Other formats are recognized so that errors can say what to
do.
"""

import json
import os
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from momos._util.reading import open_ordinary
from momos.errors import FormatError

CODES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
CODE_OF = {dtype: code for code, dtype in CODES.items()}
UNREADABLE = ("F4", "F6_E2M3", "F6_E3M2")  # codes with less than a byte per value
METADATA = "__metadata__"  # key of the texts in a header
MOST_HEADER = 100_000_000  # bytes; the limit of the format
LENGTH = struct.Struct("<Q")


def read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header of the file at `path`, where the values begin, and where the file ends.

    Raises:
        FormatError: if it has no such header.
        OSError: if it cannot be read.
    """
    with open_ordinary(path) as file:
        end = os.fstat(file.fileno()).st_size
        if end < LENGTH.size:
            raise FormatError(path, "header", f"must have 8 bytes at least, got {end}")
        (size,) = LENGTH.unpack(file.read(LENGTH.size))
        most = min(MOST_HEADER, end - LENGTH.size)
        if size > most:
            raise FormatError(
                path,
                "header",
                f"must have at most {most} bytes, but the file claims {size} (is this a "
                "safetensors file?)",
            )
        text = file.read(size)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, "header", f"must be JSON: {error}") from None
    if not isinstance(header, dict):
        raise FormatError(path, "header", "must be an object of tensors")
    return header, LENGTH.size + size, end


def entry(code: str, shape: Sequence[int], start: int, stop: int) -> dict[str, object]:
    """What a header says of one tensor; `start` and `stop` count from the end of the header."""
    return {"dtype": code, "shape": shape, "data_offsets": [start, stop]}


def compact(value: object) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def framed(text: bytes, size: int) -> bytes:
    """The length field, and the header `text` padded to `size` bytes.

    Raises:
        OverflowError: if the text is longer than that.
    """
    if len(text) > size:
        raise OverflowError(f"a header must fit {size} bytes, got {len(text)}")
    return LENGTH.pack(size) + text.ljust(size)


MOMOS = "a .momos file"
SAFETENSORS = "a safetensors file"
TORCH = "a file of torch.save"
EMPTY = "an empty file (a download or a copy that did not finish?)"
LFS_POINTER = "a Git LFS pointer (run git lfs pull to get the file itself)"
HTML = "an HTML page (a download that needed another link or a login?)"
ONNX = (
    "an ONNX model (use the checkpoint that it was exported from, or save what "
    "onnx.numpy_helper.to_array makes of its graph.initializer with safetensors.numpy.save_file)"
)
OF_KERAS = (
    "load it with keras.models.load_model and save {w.path: w.numpy() for w in model.weights} "
    "with safetensors.numpy.save_file"
)
HDF5 = f"an HDF5 file, as Keras writes ({OF_KERAS})"
GGUF = "a GGUF file, quantized for llama.cpp (use the checkpoint that it was made from)"
TFLITE = "a TensorFlow Lite model (use the model that it was converted from)"
TORCHSCRIPT = "a TorchScript archive"
EXPORTED = "a torch.export archive (load it with torch.export.load and save its state_dict)"
KERAS = f"a Keras model ({OF_KERAS})"
NUMPY = (
    "a file of NumPy arrays (save them by name with safetensors.numpy.save_file, as "
    "dict(numpy.load('arrays.npz')))"
)
PICKLE = (
    "a Python pickle (load it where you trust it and save its state_dict with torch.save)"
)
ZIP = "a ZIP archive (unpack it first)"
COMPRESSED = "a compressed archive (unpack it first)"
TAR = "a tar archive (unpack it first)"

CHECKPOINTS = (SAFETENSORS, TORCH, TORCHSCRIPT)  # the kinds that `momos compress` reads

HEAD = 512  # bytes that are looked at, at least
SEARCHED = 1 << 20  # bytes of a safetensors header in which "momos" is looked for
MAGIC = {
    b"version https://git-lfs.github.com/spec/": LFS_POINTER,
    b"\x89HDF\r\n\x1a\n": HDF5,
    b"GGUF": GGUF,
    b"GGML": GGUF,
    b"\x93NUMPY": NUMPY,
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": TORCH,  # torch.save before version 1.6
    b"\x1f\x8b": COMPRESSED,
    b"\x28\xb5\x2f\xfd": COMPRESSED,
    b"BZh": COMPRESSED,
    b"\xfd7zXZ\0": COMPRESSED,
}
MEMBERS = {  # suffixes of names in a ZIP archive, the most specific first
    "/constants.pkl": TORCHSCRIPT,
    "archive_format": EXPORTED,
    "data.pkl": TORCH,
    "model.weights.h5": KERAS,
    ".npy": NUMPY,
}
SECTIONS = (b"motifs", b"usage", b"mosaic", b"dense", b"manifest")  # of version 1
# Fields of an ONNX ModelProto that may follow its first one, the version: (number << 3) | type.
AFTER_VERSION = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72, 0xA2)


def recognized(path: Path) -> str | None:
    """What the file at `path` is, such as "a safetensors file"; None if its format is unknown.

    Formats that cannot be used as they are come with advice in parentheses. A pipe or a device is
    not opened.

    Raises:
        OSError: if the file cannot be read.
    """
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        head = file.read(HEAD)
        if not head:
            return EMPTY
        if head[8:10] in (b'{"', b"{}", b"{ ", b"{\n"):
            (size,) = LENGTH.unpack(head[: LENGTH.size])
            file.seek(LENGTH.size)
            return _safetensors(file.read(min(size, SEARCHED)))
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _zipped(path)
    return _by_form(head)


def _safetensors(header: bytes) -> str:
    """A .momos file or another safetensors file; a damaged one still has most of its header."""
    try:
        metadata = json.loads(header)[METADATA]
    except (ValueError, RecursionError):
        return MOMOS if b'"momos":' in header else SAFETENSORS
    except (LookupError, TypeError):
        metadata = None
    sections = sum(b'"%s":{"dtype":"U8"' % name in header for name in SECTIONS)
    named = isinstance(metadata, dict) and "momos" in metadata
    whole = b'"momos":{"dtype":"U8"' in header
    return MOMOS if named or whole or sections >= 3 else SAFETENSORS


def _zipped(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, RuntimeError, ValueError, LookupError):
        return "a ZIP archive that is not whole (a download that did not finish?)"
    for end, kind in MEMBERS.items():
        if any(name.endswith(end) for name in names):
            return kind
    return ZIP


def _by_form(head: bytes) -> str | None:
    """Recognizes formats that do not begin with fixed bytes."""
    if (
        head.lstrip(b"\xef\xbb\xbf \t\r\n")
        .lower()
        .startswith((b"<!doctype html", b"<html"))
    ):
        return HTML
    if head[4:8] == b"TFL3":
        return TFLITE
    if head[257:262] == b"ustar":
        return TAR
    first, second, third = (head + b"\0\0")[:3]
    if first == 0x80 and 2 <= second <= 5 and third > 0x20:  # then comes an opcode
        return PICKLE
    if first == 0x08 and 1 <= second < 0x40 and third in AFTER_VERSION:
        return ONNX
    return None
