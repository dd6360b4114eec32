"""safetensors files, of which only what is asked for is read."""

import json
import math
import os
import struct
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from momos._util.reading import open_ordinary, read_piece
from momos.errors import FormatError
from momos.sources.source import Source, SourceTensor

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
UNREADABLE = (
    "F4",
    "F6_E2M3",
    "F6_E3M2",
)  # codes of the format with less than a byte a value
MOST_HEADER = 100_000_000  # the limit of the safetensors format


def open_safetensors(path: Path) -> Source:
    """The tensors of the safetensors file at `path`.

    Raises:
        FormatError: if it is not one.
        OSError: if it cannot be read.
    """
    header, start, end = _header(path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise FormatError(path, "header", "metadata must be strings by name")
    if "momos" in metadata:
        raise FormatError(
            path,
            "header",
            "must be dense, but this is a .momos file already (momos expand makes a checkpoint "
            "of it)",
        )
    tensors, unreadable = {}, {}
    for name, about in header.items():
        if isinstance(about, dict) and about.get("dtype") in UNREADABLE:
            unreadable[name] = f"of dtype {about['dtype']}: save it dequantized"
            continue
        try:
            tensors[name] = _tensor(path, name, about, start, end - start)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(path, f"tensor {name!r}", str(error)) from error
    return Source(path, tensors, metadata=metadata, unreadable=unreadable, files=(path,))


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header, where the values begin, and where the file ends."""
    with open_ordinary(path) as file:
        end = os.fstat(file.fileno()).st_size
        if end < 8:
            raise FormatError(path, "header", f"must have 8 bytes at least, got {end}")
        (size,) = struct.unpack("<Q", file.read(8))
        if size > min(MOST_HEADER, end - 8):
            raise FormatError(
                path,
                "header",
                f"must have at most {min(MOST_HEADER, end - 8)} bytes, but the file claims "
                f"{size} (is this a safetensors file?)",
            )
        text = file.read(size)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, "header", f"must be JSON: {error}") from None
    if not isinstance(header, dict):
        raise FormatError(path, "header", "must be an object of tensors")
    return header, 8 + size, end


def _tensor(path: Path, name: str, about: Any, start: int, size: int) -> SourceTensor:
    name.encode()
    code, shape = about["dtype"], about["shape"]
    if code not in CODES:
        raise ValueError(f"dtype must be one of {', '.join(CODES)}, got {code!r}")
    numbers = [*shape, *about["data_offsets"]]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"shape and offsets must be integers of at least 0, got {numbers}")
    begin, end = about["data_offsets"]
    dtype = CODES[code]
    if end - begin != math.prod(shape) * dtype.itemsize or end > size:
        raise ValueError(
            f"{math.prod(shape)} values must take {math.prod(shape) * dtype.itemsize} of the "
            f"file's {size} bytes, got {begin} to {end}"
        )
    return SourceTensor(
        name, tuple(shape), dtype, partial(_read, path, start + begin, dtype)
    )


def _read(path: Path, start: int, dtype: torch.dtype, first: int, last: int) -> Tensor:
    return read_piece(path, start + first * dtype.itemsize, dtype, last - first)
