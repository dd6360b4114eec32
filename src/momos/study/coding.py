"""Whole numbers and floats to the fewest bytes that public coders reach, and back.

The baselines' files are made of these, so that no method is large for want of a good coder:
each stream takes the smallest of bz2, lzma, zstandard at its best level, and entropy coding with
a table of counts (constriction).
"""

import bz2
import lzma
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
RAW, BZ2, LZMA2, ZSTD, TABLE = range(5)


def pack(symbols: Bytes) -> bytes:
    """Symbols as bytes: how many, which coder, and what it made of them."""
    raw = symbols.tobytes()
    ways = {
        RAW: raw,
        BZ2: bz2.compress(raw, 9),
        LZMA2: lzma.compress(raw, lzma.FORMAT_RAW, filters=_filters(len(raw))),
        ZSTD: _package("zstandard").ZstdCompressor(level=19).compress(raw),
        TABLE: _table(symbols),
    }
    best = min(ways, key=lambda way: len(ways[way]))
    return _varints([len(symbols)]) + bytes([best]) + ways[best]


def unpack(packed: bytes) -> Bytes:
    """The inverse of `pack`."""
    (count,), start = _read_varints(packed, 1)
    way, body = packed[start], packed[start + 1 :]
    if way == TABLE:
        return _from_table(body, count)
    if way == BZ2:
        body = bz2.decompress(body)
    elif way == LZMA2:
        body = lzma.decompress(body, lzma.FORMAT_RAW, filters=_filters(count))
    elif way == ZSTD:
        body = _package("zstandard").ZstdDecompressor().decompress(body)
    return np.frombuffer(body, np.uint8)


def pack_floats(values: Tensor) -> bytes:
    """float32 values without loss; in 16 bits each where that holds every one of them.

    The sign is moved from the front of a value to its end, and bytes of one place are packed
    together: exponents compress, mantissas do not.
    """
    flat = values.detach().float().contiguous().reshape(-1)
    size = 2 if torch.equal(flat.bfloat16().float(), flat) else 4
    bits = flat.numpy().view(np.uint32) >> (32 - 8 * size)
    rolled = ((bits << 1) | (bits >> (8 * size - 1))).astype(f"<u{size}")
    planes = rolled.view(np.uint8).reshape(-1, size).T
    return bytes([size]) + join([pack(np.ascontiguousarray(plane)) for plane in planes])


def unpack_floats(packed: bytes) -> Tensor:
    """The inverse of `pack_floats`."""
    size = packed[0]
    planes = np.stack([unpack(plane) for plane in split(packed[1:], size)], axis=1)
    bits = np.ascontiguousarray(planes).view(f"<u{size}").reshape(-1)
    bits = (bits >> 1) | (bits << (8 * size - 1)).astype(bits.dtype)
    whole = bits.astype(np.uint32) << (32 - 8 * size)
    return torch.from_numpy(whole.view(np.float32))


def join(parts: Sequence[bytes]) -> bytes:
    """Parts behind each other, each with its length."""
    return b"".join(_varints([len(part)]) + part for part in parts)


def split(joined: bytes, count: int) -> list[bytes]:
    """The inverse of `join`, of so many parts."""
    parts = []
    for _ in range(count):
        (size,), start = _read_varints(joined, 1)
        parts.append(joined[start : start + size])
        joined = joined[start + size :]
    return parts


def _filters(size: int) -> list[dict[str, int]]:
    """LZMA2 at its strongest, with no more memory than so many bytes can use."""
    window = min(max(size, 1 << 12), 1 << 26)
    preset = 9 | lzma.PRESET_EXTREME
    return [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": window}]


def _table(symbols: Bytes) -> bytes:
    """Counts of all symbols, then the symbols by a range coder that knows the counts."""
    counts = np.bincount(symbols, minlength=1)
    table = bytes([len(counts) - 1]) + _varints(counts.tolist())
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return table
    encoder = _package("constriction").stream.queue.RangeEncoder()
    places = np.searchsorted(used, symbols).astype(np.int32)
    encoder.encode(places, _model(counts[used]))
    return table + encoder.get_compressed().astype("<u4").tobytes()


def _from_table(body: bytes, count: int) -> Bytes:
    numbers, start = _read_varints(body[1:], body[0] + 1)
    counts = np.array(numbers)
    used = np.flatnonzero(counts).astype(np.uint8)
    if len(used) < 2:
        return np.repeat(used, count)
    words = np.frombuffer(body[1 + start :], "<u4").astype(np.uint32)
    decoder = _package("constriction").stream.queue.RangeDecoder(words)
    return used[decoder.decode(_model(counts[used]), count)]


def _model(counts: np.ndarray[Any, Any]) -> Any:
    shares = counts / counts.sum()
    return _package("constriction").stream.model.Categorical(shares, perfect=False)


def _varints(numbers: Sequence[int]) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    out = bytearray()
    for number in numbers:
        while number >= 128:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    return bytes(out)


def _read_varints(data: bytes, count: int) -> tuple[list[int], int]:
    """So many numbers, and where they end."""
    numbers, place = [], 0
    for _ in range(count):
        number, shift = 0, 0
        while data[place] >= 128:
            number |= (data[place] & 127) << shift
            place, shift = place + 1, shift + 7
        numbers.append(number | data[place] << shift)
        place += 1
    return numbers, place


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(
            f'{name} is not installed: pip install "mosaic-of-motifs[study]"'
        ) from None
