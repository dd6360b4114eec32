"""Reads blocks of all tensors, and replaces them by motifs, in one launch each (Triton).

`rewrite` counts in the same pass what it changes. Sums are reduced within a program and programs
are added in order, so they are the same in every run. Neither waits for the device.
"""

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float64, Int, Int32, Int64
from torch import Tensor

from momos.vq.grid import BLOCK_M, KINDS, TILE
from momos.vq.together import FIELDS, Part, Table

ROWS = 128  # of a program that takes


def tables(flats: Sequence[Float[Tensor, " n"]], block_size: int) -> list[Table]:
    """Where the tensors are: one table for each dtype among them."""
    found, starts, start = [], [], 0
    for flat in flats:
        starts.append(start)
        start += -(-len(flat) // block_size)
    for dtype in dict.fromkeys(flat.dtype for flat in flats):
        parts = [
            Part(flat, flat, first, 0, 0, 0, 1.0)
            for flat, first in zip(flats, starts, strict=True)
            if flat.dtype == dtype
        ]
        found.append(Table.of(parts, block_size, TILE))
    return found


def take(table: Table, rows: Int64[Tensor, " r"]) -> Float[Tensor, "r s"]:
    """The blocks at these rows of tensors of one dtype; rows are in range."""
    size, device = table.block_size, rows.device
    number = torch.searchsorted(table.fields[:, 3].contiguous(), rows, right=True) - 1
    taken = torch.empty(len(rows), size, dtype=table.dtype, device=device)
    if len(rows):
        with torch.cuda.device_of(rows):
            _take[(triton.cdiv(len(rows), ROWS),)](
                table.fields, number, rows, taken, len(rows),
                S=size, DTYPE=KINDS[table.dtype], FIELDS=FIELDS, ROWS=ROWS,
            )  # fmt: skip
    return taken


def rewrite(
    table: Table,
    motifs: Float[Tensor, "k s"],
    indices: Int32[Tensor, " m"],
    refused: Int[Tensor, ""],
) -> Float64[Tensor, "2"]:
    """Replaces each block by its motif, unless `refused` is above 0.

    Returns the sum of the squared differences, and how many values changed.
    """
    partial = torch.empty(len(table.tiles), 2, dtype=torch.float64, device=motifs.device)
    with torch.cuda.device_of(motifs):
        _rewrite[(len(table.tiles),)](
            table.fields, table.tiles, motifs.contiguous(), indices, refused, partial,
            S=table.block_size, DTYPE=KINDS[table.dtype], FIELDS=FIELDS,
            TILE=table.tile, BLOCK_M=2 * BLOCK_M,
            enable_fp_fusion=False,  # pyright: ignore[reportCallIssue]
        )  # fmt: skip
    return partial.sum(0)


@triton.jit
@no_type_check
def _take(
    fields, number, rows, taken, num_rows,
    S: tl.constexpr, DTYPE: tl.constexpr, FIELDS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = lane < num_rows
    own = fields + tl.load(number + lane, mask=inside, other=0) * FIELDS
    values = tl.load(own).to(tl.pointer_type(DTYPE))
    numel = tl.load(own + 2)
    block = tl.load(rows + lane, mask=inside, other=0) - tl.load(own + 3)
    for i in tl.static_range(S):
        at = block * S + i
        value = tl.load(values + at, mask=inside & (at < numel), other=0.0)
        tl.store(taken + lane * S + i, value, mask=inside)


@triton.jit
@no_type_check
def _rewrite(
    fields, tiles, motifs, indices, refused, partial,
    S: tl.constexpr, DTYPE: tl.constexpr, FIELDS: tl.constexpr,
    TILE: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    own = fields + tl.load(tiles + 2 * tile) * FIELDS
    first = tl.load(tiles + 2 * tile + 1).to(tl.int64)
    values = tl.load(own).to(tl.pointer_type(DTYPE))
    numel, start = tl.load(own + 2), tl.load(own + 3)
    writable = tl.where(tl.load(refused) > 0, 0, numel)
    errors, moved = tl.zeros([BLOCK_M], tl.float64), tl.zeros([BLOCK_M], tl.int32)
    for part in range(0, TILE, BLOCK_M):
        lane = first + part + tl.arange(0, BLOCK_M)
        # Tiles begin at blocks of their tensor, and may end in those of none.
        index = tl.load(indices + start + lane, mask=lane * S < numel, other=0)
        for i in tl.static_range(S):
            at = lane * S + i
            inside = at < numel
            motif = tl.load(motifs + index.to(tl.int64) * S + i, mask=inside, other=0.0)
            new = _as(motif, DTYPE)
            old = tl.load(values + at, mask=inside, other=0.0)
            difference = old.to(tl.float64) - new.to(tl.float64)
            errors += tl.where(inside, difference * difference, 0.0)
            moved += (inside & (old != new)).to(tl.int32)
            tl.store(values + at, new, mask=at < writable)
    tl.store(partial + 2 * tile, tl.sum(errors, 0))
    tl.store(partial + 2 * tile + 1, tl.sum(moved, 0).to(tl.float64))


@triton.jit
@no_type_check
def _as(value, DTYPE: tl.constexpr):
    """A value in another type, rounded as torch does."""
    if tl.bfloat16 == DTYPE:  # halves to even, which the interpreter's cast does not do
        bits = value.to(tl.float32).to(tl.int32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        return (bits >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    if tl.float16 == DTYPE:
        return value.to(tl.float32).to(tl.float16)
    return value.to(DTYPE)
