"""Reads the files of dense, quantized and pruned networks: they hold what was written."""

import bz2
import json
import lzma
import zlib
from pathlib import Path
from typing import Any

import constriction
import numpy as np
import torch
import zstandard
from torch import Tensor

from momos.study.treatments.packing import (
    BZ2,
    LEVELS,
    LZMA2,
    PLAIN,
    TABLE,
    ZEROS,
    ZSTD,
    Bytes,
    Levels,
    _filters,
    _model,
)


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
        body = zstandard.ZstdDecompressor().decompress(body)
    return np.frombuffer(body, np.uint8)


def unpack_floats(packed: bytes) -> Tensor:
    """The inverse of `pack_floats`."""
    size = packed[0]
    planes = np.stack([unpack(plane) for plane in split(packed[1:], size)], axis=1)
    bits = np.ascontiguousarray(planes).view(f"<u{size}").reshape(-1)
    bits = (bits >> 1) | (bits << (8 * size - 1)).astype(bits.dtype)
    whole = bits.astype(np.uint32) << (32 - 8 * size)
    return torch.from_numpy(whole.view(np.float32))


def split(joined: bytes, count: int) -> list[bytes]:
    """The inverse of `join`, of so many parts."""
    parts = []
    for _ in range(count):
        (size,), start = _read_varints(joined, 1)
        parts.append(joined[start : start + size])
        joined = joined[start + size :]
    return parts


def _from_table(body: bytes, count: int) -> Bytes:
    numbers, start = _read_varints(body[1:], body[0] + 1)
    counts = np.array(numbers)
    used = np.flatnonzero(counts).astype(np.uint8)
    if len(used) < 2:
        return np.repeat(used, count)
    words = np.frombuffer(body[1 + start :], "<u4").astype(np.uint32)
    decoder = constriction.stream.queue.RangeDecoder(words)
    return used[decoder.decode(_model(counts[used]), count)]


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


def read(path: Path) -> dict[str, Tensor]:
    """The state of the network that `write` wrote there."""
    sections = split(path.read_bytes(), 8)
    header: list[list[Any]] = json.loads(zlib.decompress(sections[0]))
    sizes = {name: int(np.prod(shape)) for name, _, *shape in header}

    def counts(kind: str) -> list[int]:
        return [sizes[name] for name, of, *_ in header if of == kind]

    codes = iter(_apart(sections[1], counts(LEVELS)))
    per_row = iter(sections[2])
    scales, values, plain = (_Taken(unpack_floats(sections[i])) for i in (3, 5, 6))
    masks = iter(_apart(sections[4], counts(ZEROS)))
    whole = iter(np.frombuffer(zlib.decompress(sections[7]), "<i8"))
    state = {}
    for name, kind, *shape in header:
        if kind == LEVELS:
            code = torch.from_numpy(next(codes).astype(np.int32) - 128).view(shape)
            state[name] = Levels(
                code, scales.take(shape[0] if next(per_row) else 1)
            ).dense()
        elif kind == ZEROS:
            mask = torch.from_numpy(next(masks).astype(bool))
            tensor = torch.zeros(len(mask))
            tensor[mask] = values.take(int(mask.sum()))
            state[name] = tensor.view(shape)
        elif kind == PLAIN:
            state[name] = plain.take(sizes[name]).view(shape)
        else:
            numbers = [int(next(whole)) for _ in range(sizes[name])]
            state[name] = torch.tensor(numbers).view(shape)
    return state


class _Taken:
    """Values that are taken from the front."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def take(self, count: int) -> Tensor:
        taken, self.values = self.values[:count], self.values[count:]
        return taken


def _apart(section: bytes, counts: list[int]) -> list[np.ndarray[Any, Any]]:
    """The inverse of `_smallest`."""
    if not counts:
        return []
    if section[0]:
        return [unpack(part) for part in split(section[1:], len(counts))]
    return np.split(unpack(section[1:]), np.cumsum(counts)[:-1])
