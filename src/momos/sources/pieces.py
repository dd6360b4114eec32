"""Values at a position of a file, read and not mapped.

A mapped file keeps all that was touched resident, and kills the process if the file shrinks.
"""

from pathlib import Path

import torch
from torch import Tensor

from momos.errors import FormatError
from momos.ordinary import open_ordinary


def read_piece(path: Path, start: int, dtype: torch.dtype, count: int) -> Tensor:
    """`count` values of `dtype` that begin at byte `start` of the file at `path`.

    Raises:
        FormatError: if the file ends before them.
        OSError: if it cannot be read.
    """
    values = torch.empty(count, dtype=dtype, device="cpu")
    raw = memoryview(values.view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
    with open_ordinary(path) as file:
        file.seek(start)
        while len(raw):
            read = file.readinto(raw)
            if not read:
                raise FormatError(path, "values", "must be whole, but the file ends early")
            raw = raw[read:]
    return values
