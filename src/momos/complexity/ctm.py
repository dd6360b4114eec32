"""Blocks of binary arrays: their CTM values (Soler-Toscano et al. 2014) and their counts.

They are read from the files of the installed package pybdm (MIT), which is not imported: it
needs pkg_resources. Nothing of them is copied here. A block is the integer whose first cell, in
row-major order, is the most significant bit.
"""

import gzip
import hashlib
import io
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64, Integer, UInt8
from torch import Tensor

LONGEST = 12  # cells of the longest sequence with a table
WIDEST = 4  # cells on a side of the widest square with a table
SEQUENCES = "ctm-b2-d12.pkl.gz"
SQUARES = "ctm-b2-d4x4.pkl.gz"
SHA256 = {
    SEQUENCES: "d97c1c3f59876353d3ef4d8b38087fd0ff447f4ac473dbe9b35b7ef7058a7eb1",
    SQUARES: "d6e8ad059099c313fe4e1867721b7bf125883d8b783ceff5abb36e870537241a",
}
PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
}
Cells = np.ndarray | Tensor
Counts = Int64[np.ndarray, " blocks"]
PIECE = 1 << 17  # blocks packed at once, so that temporaries are few pages of memory
LONG_PIECE = 1 << 20  # blocks counted at once: numpy makes integers of 8 bytes of them


@cache
def sequence_table(length: int) -> Float64[np.ndarray, " blocks"]:
    """The CTM value of each binary sequence of 1 to 12 cells.

    Raises:
        ImportError: if pybdm is not installed.
        ValueError: if its file is not that of pybdm 0.1.0.
    """
    if not 1 <= length <= LONGEST:
        raise ValueError(f"length must be 1 to {LONGEST}, got {length}")
    return _dense(_read(SEQUENCES)[length,], length)


@cache
def square_table(side: int) -> Float64[np.ndarray, " blocks"]:
    """The CTM value of each binary square of 1 to 4 cells on a side.

    Raises:
        ImportError: if pybdm is not installed.
        ValueError: if its file is not that of pybdm 0.1.0.
    """
    if not 1 <= side <= WIDEST:
        raise ValueError(f"side must be 1 to {WIDEST}, got {side}")
    return _dense(_read(SQUARES)[side, side], side * side)


def _dense(values: dict[str, float], cells: int) -> Float64[np.ndarray, " blocks"]:
    """One value for each block: a block and its complement share theirs."""
    table = np.empty(1 << cells)
    codes = np.array([int(key, 2) for key in values])
    table[codes] = table[codes ^ (len(table) - 1)] = list(values.values())
    table.flags.writeable = False  # it is shared by all callers
    return table


def _read(name: str) -> dict[tuple[int, ...], dict[str, float]]:
    path = _locate(name)
    packed = path.read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256[name]:
        raise ValueError(
            f"the CTM tables must be those of pybdm 0.1.0, with sha256 {SHA256[name]}, got "
            f"{found} for {path}"
        )
    return _Plain(io.BytesIO(gzip.decompress(packed))).load()


def _locate(name: str) -> Path:
    try:
        package = metadata.distribution("pybdm")
    except metadata.PackageNotFoundError:
        raise ImportError(
            'momos.bdm needs the CTM tables of pybdm: pip install "mosaic-of-motifs[bdm]"'
        ) from None
    return Path(str(package.locate_file(f"pybdm/ctmdata/{name}")))


class _Plain(pickle.Unpickler):
    """Reads dictionaries and what they hold, and can make nothing else."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(
                f"a CTM table must hold dictionaries alone, got {module}.{name}"
            )
        return PLAIN[module, name]


def block_counts(bits: Cells, ndim: int = 1) -> Counts:
    """How often each of the 4 096 sequences (65 536 squares) of 12 (4×4) cells occurs.

    What is left at the end of a row of 12, or of the sides of a matrix, is ignored. The counts
    of several pieces may be added, where each but the last is a multiple of 12 bits (4 rows).

    Raises:
        TypeError: if `bits` is not an array or tensor of booleans or integers.
        ValueError: if a value is neither 0 nor 1, or `ndim` is 2 and `bits` is not a matrix.

    Example:
        >>> counts = momos.complexity.block_counts(torch.zeros(25, dtype=torch.bool))
        >>> counts.shape, int(counts[0])
        ((4096,), 2)
    """
    return tiles(binary(bits, ndim))


def binary(bits: Cells, ndim: int) -> Cells:
    """`bits` as bytes with `ndim` dimensions: a tensor only where it is on a GPU.

    All but bytes are known to be 0 or 1 then. Bytes are not: `tiles` looks at them while they
    are at hand, and for all else there is `check`.
    """
    if ndim not in (1, 2):
        raise ValueError(f"ndim must be 1 or 2, got {ndim!r}")
    cells = _bytes_of_tensor(bits) if isinstance(bits, Tensor) else _bytes_of_array(bits)
    if ndim == 1:
        return cells.reshape(-1)
    if cells.ndim != 2:
        raise ValueError(f"bits must have 2 dimensions for ndim=2, got {cells.ndim}")
    return cells


def tiles(cells: Cells) -> Counts:
    """`block_counts` of what `binary` gives."""
    if isinstance(cells, Tensor):
        return count(cells, LONGEST if cells.ndim == 1 else WIDEST)
    return count_sequences(cells) if cells.ndim == 1 else count_squares(cells)


def count(cells: Cells, edge: int, *, sliding: bool = False) -> Counts:
    """The definition of `block_counts`: blocks of `edge` cells on each side, of 0 and 1.

    `cells` may have a dimension more than two: the squares of several matrices, together.
    `sliding` counts the block that starts at every cell, not only those that tile.
    """
    sides = cells.shape[-2:] if cells.ndim > 1 else cells.shape
    blocks = 1 << edge ** len(sides)
    if min(sides) < edge:
        return np.zeros(blocks, np.int64)
    codes = None
    for cell in _cells_of_blocks(cells, edge, sliding):
        wide = cell.int() if isinstance(cell, Tensor) else cell.astype(np.uint16)
        codes = wide if codes is None else codes << 1 | wide
    assert codes is not None
    if isinstance(codes, Tensor):
        return torch.bincount(codes.reshape(-1), minlength=blocks).cpu().numpy()
    return _histogram(codes, blocks)


def count_sequences(cells: UInt8[np.ndarray, " n"]) -> Counts:
    """Sequences of 12: three words of packed bits are sixteen of them, each read backwards."""
    total = np.zeros(1 << LONGEST, np.int64)
    room = np.empty((16, -(-min(len(cells) // LONGEST, PIECE) // 16)), np.uint64)
    for start in range(0, len(cells), PIECE * LONGEST):
        piece = cells[start : start + PIECE * LONGEST]
        check(piece)
        whole = len(piece) // LONGEST
        packed = np.packbits(piece[: whole * LONGEST], bitorder="little")
        if whole % 16:  # padded with zeros, which are not counted
            packed = np.append(packed, np.zeros(-len(packed) % 24, np.uint8))
        words = packed.view("<u8").reshape(-1, 3).T.copy()
        codes = room[:, : words.shape[1]]
        for place, code in enumerate(codes):
            word, shift = divmod(place * LONGEST, 64)
            np.right_shift(words[word], shift, out=code)
            if shift + LONGEST > 64:
                code |= words[word + 1] << 64 - shift
        codes &= (1 << LONGEST) - 1
        total += np.bincount(codes.view(np.int64).reshape(-1), minlength=len(total))
        total[0] -= -whole % 16
    backwards = np.arange(len(total)).reshape([2] * LONGEST).T.reshape(-1)
    return total[backwards]


def count_squares(cells: UInt8[np.ndarray, "h w"]) -> Counts:
    """Squares of 4 by 4: a row of one is half a byte of packed bits."""
    bands, columns = (side // WIDEST for side in cells.shape)
    codes = np.empty((bands, columns), np.uint16)
    step = max(1, PIECE // max(1, columns))
    for start in range(0, bands + 1, step):  # the rows that fill no band are checked too
        lines = cells[start * WIDEST : (start + step) * WIDEST]
        check(lines)
        out = codes[start : start + step]
        packed = np.packbits(lines[: len(out) * WIDEST, : columns * WIDEST], axis=1)
        left = right = np.zeros((len(out), packed.shape[1]), np.uint16)
        for row in (packed[i::WIDEST].astype(np.uint16) for i in range(WIDEST)):
            left = left << 4 | row >> 4
            right = right << 4 | row & 15
        out[:, ::2] = left
        out[:, 1::2] = right[:, : columns // 2]  # the last byte may be half empty
    return _histogram(codes, 1 << WIDEST * WIDEST)


def check(values: Cells) -> None:
    """Raises ValueError unless every value is 0 or 1."""
    if not prod(values.shape):
        return
    low = 0 if values.dtype in (np.uint8, torch.uint8) else int(values.min())
    high = int(values.max())
    if low < 0 or high > 1:
        raise ValueError(f"bits must be 0 or 1, got {low if low < 0 else high}")


def _cells_of_blocks(cells: Cells, edge: int, sliding: bool) -> Iterator[Cells]:
    """The first cell of every block, then the second of every block, and so on."""
    columns = [_positions(cells.shape[-1], edge, sliding, i) for i in range(edge)]
    if cells.ndim == 1:
        yield from (cells[column] for column in columns)
        return
    for i in range(edge):
        row = _positions(cells.shape[-2], edge, sliding, i)
        yield from (cells[..., row, column] for column in columns)


def _positions(side: int, edge: int, sliding: bool, offset: int) -> slice:
    if sliding:
        return slice(offset, side - edge + 1 + offset)
    return slice(offset, side // edge * edge, edge)


def _histogram(codes: Integer[np.ndarray, "..."], blocks: int) -> Counts:
    codes = codes.reshape(-1)
    total = np.zeros(blocks, np.int64)
    for start in range(0, len(codes), LONG_PIECE):
        total += np.bincount(codes[start : start + LONG_PIECE], minlength=blocks)
    return total


def _bytes_of_tensor(bits: Tensor) -> Cells:
    if bits.is_floating_point() or bits.is_complex():
        raise TypeError(f"bits must be booleans or integers, got {bits.dtype}")
    if bits.device.type == "cpu":
        return _bytes_of_array(bits.detach().numpy())
    if bits.is_meta:
        raise ValueError("bits must hold values, got a meta tensor")
    if bits.dtype in (torch.uint16, torch.uint32, torch.uint64):
        bits = bits.long()  # since torch knows no least and greatest of these
    if bits.dtype != torch.bool:
        check(bits)
    return bits.to(torch.uint8)


def _bytes_of_array(bits: np.ndarray) -> UInt8[np.ndarray, "..."]:
    if not isinstance(bits, np.ndarray):
        found = type(bits).__name__
        raise TypeError(f"bits must be a numpy array or a torch tensor, got {found}")
    if bits.dtype.kind not in "biu":
        raise TypeError(f"bits must be booleans or integers, got {bits.dtype}")
    if bits.dtype in (np.bool_, np.uint8):
        return bits.view(np.uint8)
    check(bits)
    return bits.astype(np.uint8)
