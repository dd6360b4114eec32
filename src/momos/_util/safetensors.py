"""The header of a safetensors file: its dtypes and limits, reading it with bounds, writing it.

A file is the length of its header (8 bytes, little-endian), the header (JSON, which may be padded
with spaces), and the values.
"""

import json
import os
import struct
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
