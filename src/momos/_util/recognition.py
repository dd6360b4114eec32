"""Recognizes the format of a file by its content, so that errors can say what to do."""

import json
import zipfile
from pathlib import Path

from momos._util.safetensors import LENGTH, METADATA

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
    except (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError):
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
