"""Packs indices into the fewest of 4, 8, 12, 16 or 32 bits each, and unpacks them.

Packed indices are bytes, little-endian: two of 4 bits to a byte, the lower half first; two of 12 bits to
three bytes. An odd last index of 4 or 12 bits is followed by zero bits up to a whole pair.
"""

import torch
from jaxtyping import Int32, Integer, UInt8
from torch import Tensor

WIDTHS = (4, 8, 12, 16, 32)


def index_bits(num_motifs: int) -> int:
    """The fewest bits of `WIDTHS` that hold indices below `num_motifs`."""
    return next(bits for bits in WIDTHS if num_motifs <= 1 << bits)


def num_packed_bytes(num_blocks: int, bits: int) -> int:
    """Bytes of `num_blocks` packed indices."""
    return -(-num_blocks // 2) * bits // 4 if bits % 8 else num_blocks * bits // 8


def pack(indices: Integer[Tensor, " m"], bits: int) -> UInt8[Tensor, " b"]:
    """Indices below 2**bits as bytes, on their device."""
    if bits == 8:
        return indices.to(torch.uint8, copy=True)
    if bits in (16, 32):
        if indices.dtype == torch.uint16:
            indices = indices.int()
        wide = indices.to(torch.int16 if bits == 16 else torch.int32)
        return wide.view(torch.uint8).clone()
    wide = indices.int()
    if len(wide) % 2:
        wide = torch.cat([wide, wide.new_zeros(1)])
    low, high = wide[::2], wide[1::2]
    if bits == 4:
        return (low | high << 4).to(torch.uint8)
    parts = [low & 255, low >> 8 | (high & 15) << 4, high >> 4]
    return torch.stack(parts, 1).to(torch.uint8).view(-1)


def unpack(
    packed: UInt8[Tensor, " b"], bits: int, start: int, stop: int
) -> Int32[Tensor, " n"]:
    """The indices `start` to `stop`; the definition that native/packed.hpp is held to."""
    if bits >= 8 and bits != 12:
        size = bits // 8
        own = packed[start * size : stop * size].view(-1, size).int()
        shifts = torch.arange(size, device=packed.device, dtype=torch.int32) * 8
        return (own << shifts).sum(1, dtype=torch.int32)
    size = bits // 4  # bytes of a pair
    pairs = packed[start // 2 * size : -(-stop // 2) * size].view(-1, size).int()
    if bits == 4:
        both = torch.stack([pairs[:, 0] & 15, pairs[:, 0] >> 4], 1)
    else:
        low = pairs[:, 0] | (pairs[:, 1] & 15) << 8
        both = torch.stack([low, pairs[:, 1] >> 4 | pairs[:, 2] << 4], 1)
    return both.view(-1)[start % 2 :][: stop - start]
