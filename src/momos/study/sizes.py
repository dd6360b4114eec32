"""A trained network as the smallest file that holds it exactly, and back.

What is stored is the state of the network: parameters and buffers. Tensors made of few levels
are whole numbers and scales; tensors with zeros are which weights are zero, and the others; the
rest are floats, in 16 bits where nothing is lost. All streams are coded as in `coding`, one
tensor at a time or all at once, whichever is smaller.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from momos.study.coding import join, pack, pack_floats, split, unpack, unpack_floats

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

    Raises:
        ValueError: if levels differ from the network's weights.
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


def _kind(name: str, tensor: Tensor, levels: Mapping[str, Levels]) -> str:
    if name in levels:
        return LEVELS
    if not tensor.is_floating_point():
        return WHOLE
    zeros = int((tensor == 0).sum())
    return ZEROS if tensor.ndim >= 2 and zeros > SPARSE * tensor.numel() else PLAIN


def _smallest(streams: list[np.ndarray[Any, Any]]) -> bytes:
    """All streams as one, or each by itself."""
    if not streams:
        return b""
    together = b"\0" + pack(np.concatenate(streams))
    apart = b"\1" + join([pack(stream) for stream in streams])
    return min(together, apart, key=len)


def _apart(section: bytes, counts: list[int]) -> list[np.ndarray[Any, Any]]:
    """The inverse of `_smallest`."""
    if not counts:
        return []
    if section[0]:
        return [unpack(part) for part in split(section[1:], len(counts))]
    return np.split(unpack(section[1:]), np.cumsum(counts)[:-1])


def _floats(tensors: list[Tensor]) -> bytes:
    return pack_floats(torch.cat(tensors) if tensors else torch.zeros(0))


def _whole(tensors: list[Tensor]) -> bytes:
    numbers = [number for tensor in tensors for number in tensor.flatten().tolist()]
    return zlib.compress(np.array(numbers, "<i8").tobytes(), 9)
