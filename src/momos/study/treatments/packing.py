"""A trained network as the smallest file that holds it exactly: the files of the baselines.

Tensors of few levels are whole numbers and scales; tensors with zeros are which weights are zero,
and the others; the rest are floats, in 16 bits where nothing is lost. Each stream takes the
smallest of bz2, lzma, zstandard, and entropy coding with a table of counts (constriction), one
tensor at a time or all at once. tests/packed.py reads them.
"""

import bz2
import json
import lzma
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from momos.study.packages import needed

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
RAW, BZ2, LZMA2, ZSTD, TABLE = range(5)


def pack(symbols: Bytes) -> bytes:
    """Symbols as bytes: how many, which coder, and what it made of them."""
    raw = symbols.tobytes()
    ways = {
        RAW: raw,
        BZ2: bz2.compress(raw, 9),
        LZMA2: lzma.compress(raw, lzma.FORMAT_RAW, filters=_filters(len(raw))),
        ZSTD: needed("zstandard").ZstdCompressor(level=19).compress(raw),
        TABLE: _table(symbols),
    }
    best = min(ways, key=lambda way: len(ways[way]))
    return _varints([len(symbols)]) + bytes([best]) + ways[best]


def pack_floats(values: Tensor) -> bytes:
    """float32 values without loss; in 16 bits each where that holds every one of them.

    The sign moves to the end of a value, so that the bytes of exponents compress.
    """
    flat = values.detach().float().contiguous().reshape(-1)
    size = 2 if torch.equal(flat.bfloat16().float(), flat) else 4
    bits = flat.numpy().view(np.uint32) >> (32 - 8 * size)
    rolled = ((bits << 1) | (bits >> (8 * size - 1))).astype(f"<u{size}")
    planes = rolled.view(np.uint8).reshape(-1, size).T
    return bytes([size]) + join([pack(np.ascontiguousarray(plane)) for plane in planes])


def join(parts: Sequence[bytes]) -> bytes:
    """Parts behind each other, each with its length."""
    return b"".join(_varints([len(part)]) + part for part in parts)


def _filters(size: int) -> list[dict[str, int]]:
    """LZMA2 at its strongest, with no more memory than so many bytes can use."""
    about = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}
    return [about | {"dict_size": min(max(size, 1 << 12), 1 << 26)}]


def _table(symbols: Bytes) -> bytes:
    """Counts of all symbols, then the symbols by a range coder that knows the counts."""
    counts = np.bincount(symbols, minlength=1)
    table = bytes([len(counts) - 1]) + _varints(counts.tolist())
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return table
    encoder = needed("constriction").stream.queue.RangeEncoder()
    places = np.searchsorted(used, symbols).astype(np.int32)
    encoder.encode(places, _model(counts[used]))
    return table + encoder.get_compressed().astype("<u4").tobytes()


def _model(counts: np.ndarray[Any, Any]) -> Any:
    shares = counts / counts.sum()
    return needed("constriction").stream.model.Categorical(shares, perfect=False)


def _varints(numbers: Sequence[int]) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    out = bytearray()
    for number in numbers:
        while number >= 128:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    return bytes(out)


SPARSE = 0.2  # share of zeros from which they are coded apart
PLAIN, ZEROS, LEVELS, WHOLE = "f", "z", "q", "i"


@dataclass(frozen=True, eq=False)
class Levels:
    """A tensor as whole numbers times one scale, or one per row (first dimension)."""

    codes: Int[Tensor, "..."]
    scales: Float[Tensor, " channels"]

    def dense(self) -> Float[Tensor, "..."]:
        rows = len(self.scales)
        return (self.codes.reshape(rows, -1) * self.scales[:, None]).view(self.codes.shape)


def write(
    path: Path, network: nn.Module, levels: Mapping[str, Levels] | None = None
) -> int:
    """Writes the network; the size of the file in bytes.

    `levels` says of what levels parameters are, by name.
    """
    levels = levels or {}
    state = network.state_dict()
    for name, level in levels.items():
        if not torch.equal(level.dense(), state[name]):
            raise ValueError(f"levels of {name!r} must give its weights, but they differ")
    kinds = {name: _kind(name, tensor, levels) for name, tensor in state.items()}
    header = [[name, kinds[name], *state[name].shape] for name in state]
    text = json.dumps(header, separators=(",", ":")).encode()

    def tensors(kind: str) -> list[tuple[str, Tensor]]:
        return [(name, state[name]) for name in state if kinds[name] == kind]

    zeros = tensors(ZEROS)
    codes = [levels[name].codes.flatten() + 128 for name, _ in tensors(LEVELS)]
    sections = [
        zlib.compress(text, 9),
        _smallest([code.to(torch.uint8).numpy() for code in codes]),
        bytes(len(levels[name].scales) > 1 for name, _ in tensors(LEVELS)),
        _floats([levels[name].scales for name, _ in tensors(LEVELS)]),
        _smallest([(tensor != 0).flatten().byte().numpy() for _, tensor in zeros]),
        _floats([tensor[tensor != 0] for _, tensor in zeros]),
        _floats([tensor.flatten() for _, tensor in tensors(PLAIN)]),
        _whole([tensor for _, tensor in tensors(WHOLE)]),
    ]
    path.write_bytes(join(sections))
    return path.stat().st_size


def _kind(name: str, tensor: Tensor, levels: Mapping[str, Levels]) -> str:
    if name in levels:
        return LEVELS
    if not tensor.is_floating_point():
        return WHOLE
    zeros = int((tensor == 0).sum())
    return ZEROS if tensor.ndim >= 2 and zeros > SPARSE * tensor.numel() else PLAIN


def _smallest(streams: list[np.ndarray[Any, Any]]) -> bytes:
    if not streams:
        return b""
    together = b"\0" + pack(np.concatenate(streams))
    apart = b"\1" + join([pack(stream) for stream in streams])
    return min(together, apart, key=len)


def _floats(tensors: list[Tensor]) -> bytes:
    return pack_floats(torch.cat(tensors) if tensors else torch.zeros(0))


def _whole(tensors: list[Tensor]) -> bytes:
    numbers = [number for tensor in tensors for number in tensor.flatten().tolist()]
    return zlib.compress(np.array(numbers, "<i8").tobytes(), 9)
