"""Re-assignment of the blocks of all tensors in one launch, and their weights in another (Triton).

`assign` compares every block, divided by its scale, with all motifs of its group: a float32 search
whose contested blocks float64 decides in the same kernel, so indices are those of the definition
(`penalized_searcher`). Sums and counts are reduced within a program, and programs are added in
order, so they are the same in every run. `write` makes the weights from indices and stored motifs.
Neither waits for the device: what is not finite sets a flag of its tensor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, Int64
from torch import Tensor

BLOCK_M = 128  # blocks of a tile
BLOCK_K = 16  # motifs compared at once: more make code that takes minutes to compile
PROGRAMS = 1024  # at most; each has sums of its own
FIELDS = 8  # of a tensor: latent, value, weights, first row, first scale, weights a scale, motifs
DTYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@dataclass(frozen=True)
class Part:
    """One tensor: its memory, its first row of the blocks, and which motifs it may use."""

    latent: Tensor
    value: Tensor
    start: int
    first: int
    num_motifs: int
    num_scales: int  # 0 without scales
    weight: float  # of its squared errors


@dataclass(frozen=True, eq=False)
class Table:
    """Where all tensors of one dtype are, on the device."""

    fields: Int64[Tensor, "t f"]
    tiles: Int32[Tensor, "p 2"]  # tensor and first block of each tile
    weights: Float64[Tensor, " t"]
    memory: tuple[int, ...]  # by which a table that is out of date is known
    dtype: torch.dtype
    block_size: int
    tile: int  # blocks of a tile

    @classmethod
    def of(cls, parts: Sequence[Part], block_size: int, tile: int = BLOCK_M) -> "Table":
        device, rows, counts, scale = parts[0].latent.device, [], [], 0
        for part in parts:
            total = part.latent.numel()
            inner = total // max(1, part.num_scales)
            memory = (part.latent.data_ptr(), part.value.data_ptr())
            rows.append(
                [*memory, total, part.start, scale, inner, part.first, part.num_motifs]
            )
            scale += part.num_scales
            counts.append(-(-total // (block_size * tile)))
        return cls(
            torch.tensor(rows, dtype=torch.int64, device="cpu").to(device),
            _tiles(counts, tile).to(device),
            torch.tensor([p.weight for p in parts], dtype=torch.float64, device="cpu").to(
                device
            ),
            memory_of(parts),
            parts[0].latent.dtype,
            block_size,
            tile,
        )


def _tiles(counts: Sequence[int], tile: int) -> Int32[Tensor, "p 2"]:
    """The number and the first block of each tile, tensor by tensor, on the CPU."""
    many = torch.tensor(counts, device="cpu")
    number = torch.arange(len(counts), device="cpu").repeat_interleave(many)
    before = many.cumsum(0) - many
    first = (torch.arange(len(number), device="cpu") - before[number]) * tile
    return torch.stack([number, first], 1).int()


def memory_of(parts: Sequence[Part]) -> tuple[int, ...]:
    return tuple(each.data_ptr() for part in parts for each in (part.latent, part.value))


@dataclass(frozen=True, eq=False)
class Assigned:
    """Weighted sums of each motif's blocks, its usage, and which tensors are not finite."""

    sums: Float64[Tensor, "k s"]
    total: Float64[Tensor, " k"]  # of the weights of its blocks
    usage: Int64[Tensor, " k"]
    flags: Int32[Tensor, " t"]


def assign(
    table: Table,
    motifs: Float32[Tensor, "k s"],
    roots: Float32[Tensor, "t k"],
    scales: Float32[Tensor, " c"],
    *,
    out: Int32[Tensor, " m"],
    kept: Int32[Tensor, " m"] | None = None,
    fixed: Bool[Tensor, ""] | None = None,
) -> Assigned:
    """Writes each block's motif of least squared distance + squared root to `out`, or those `kept`.

    Where `fixed` is given, it says on the device whether they are kept.

    `roots` are of penalties, 0 without. `scales` are empty where blocks are not divided.
    """
    size, device = table.block_size, motifs.device
    programs = min(PROGRAMS, len(table.tiles))
    flags = torch.zeros(len(table.fields), dtype=torch.int32, device=device)
    partial = torch.zeros(
        programs, len(motifs), size + 2, dtype=torch.float64, device=device
    )
    with torch.cuda.device_of(motifs):
        _assign[(programs,)](
            table.fields, table.tiles, table.weights, motifs, roots, scales,
            out if kept is None else kept, flags if fixed is None else fixed, out, flags,
            partial,
            len(table.tiles), len(motifs), 1.0 + (size + 5) * 2.0**-22,
            (size + 1) * 2.0**-116,
            S=size, DTYPE=DTYPES[table.dtype], SCALED=len(scales) > 0,
            KEPT=0 if kept is None else 1 if fixed is None else 2, FIELDS=FIELDS, BLOCK_M=BLOCK_M, BLOCK_K=BLOCK_K,
            enable_fp_fusion=False,  # pyright: ignore[reportCallIssue]
        )  # fmt: skip
    added = partial.sum(0)
    return Assigned(added[:, :size], added[:, size], added[:, size + 1].long(), flags)


def write(
    table: Table,
    stored: Float32[Tensor, "k s"],
    scales: Float32[Tensor, " c"],
    step: Float32[Tensor, ""],
    indices: Int32[Tensor, " m"],
) -> None:
    """Writes the weights of every tensor: the stored values of its motifs · scale · step."""
    with torch.cuda.device_of(stored):
        _write[(len(table.tiles),)](
            table.fields, table.tiles, stored, scales, step, indices,
            S=table.block_size, DTYPE=DTYPES[table.dtype], SCALED=len(scales) > 0,
            FIELDS=FIELDS, BLOCK_M=BLOCK_M,
            enable_fp_fusion=False,  # pyright: ignore[reportCallIssue]
        )  # fmt: skip


def sum_by_motif(
    rows: Float[Tensor, "m s"], indices: Int[Tensor, " m"], num_motifs: int
) -> Float64[Tensor, "k s"]:
    """The float64 sum of the rows of each motif, the same in every run, however skewed the usage."""
    tiles = -(-len(rows) // BLOCK_M)
    programs = max(1, min(PROGRAMS, tiles))
    partial = torch.zeros(
        programs, num_motifs, rows.shape[1], dtype=torch.float64, device=rows.device
    )
    with torch.cuda.device_of(rows):
        _sum[(programs,)](
            rows.contiguous(), indices.int().contiguous(), partial, len(rows), num_motifs,
            S=rows.shape[1], BLOCK_M=BLOCK_M, BLOCK_K=BLOCK_K,
        )  # fmt: skip
    return partial.sum(0)


# `grow` and `tiny` are those of `triton._slack` for one more coordinate, the root. Nothing is
# scaled to a magnitude of at most 4 here, so `tiny` is multiplied by the largest difference where
# that exceeds 1: what is lost below the normal numbers grows with it. What overflows is infinite,
# hence contested, and decided in float64, where squares of float32 numbers cannot overflow.


@triton.jit
@no_type_check
def _value(
    latent, numel, scales, inner, lane, i, S: tl.constexpr, SCALED: tl.constexpr
):  # fmt: skip
    """Value number i of each block, divided by its scale; 0 beyond the end of the tensor."""
    at = lane * S + i
    value = tl.load(latent + at, mask=at < numel, other=0.0).to(tl.float32)
    if SCALED:
        scale = tl.load(scales + at // inner, mask=at < numel, other=1.0)
        value = tl.div_rn(value, scale)
    return value


@triton.jit
@no_type_check
def _assign(
    fields, tiles, weights, motifs, roots, scales, kept, fixed, found, flags, partial,
    num_tiles, num_motifs, grow, tiny,
    S: tl.constexpr, DTYPE: tl.constexpr, SCALED: tl.constexpr, KEPT: tl.constexpr,
    FIELDS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    partial += program.to(tl.int64) * num_motifs * (S + 2)
    for tile in range(program, num_tiles, tl.num_programs(0)):
        number = tl.load(tiles + 2 * tile)
        lane = tl.load(tiles + 2 * tile + 1).to(tl.int64) + tl.arange(0, BLOCK_M)
        own = fields + number * FIELDS
        latent = tl.load(own).to(tl.pointer_type(DTYPE))
        numel, start = tl.load(own + 2), tl.load(own + 3)
        scale, inner = scales + tl.load(own + 4), tl.load(own + 5)
        first, count = tl.load(own + 6), tl.load(own + 7)
        inside = lane * S < numel
        finite = inside
        for i in tl.static_range(S):
            value = _value(latent, numel, scale, inner, lane, i, S, SCALED)
            finite = finite & (tl.abs(value) < float("inf"))
        if tl.max((inside & (finite == 0)).to(tl.int32)) > 0:
            tl.store(flags + number, 1)
        root = roots + number * num_motifs + first
        own_motifs = motifs + first * S
        index = tl.zeros([BLOCK_M], tl.int32)
        among = count
        if KEPT == 2:  # where indices are fixed, there is nothing to search
            among = tl.where(tl.load(fixed).to(tl.int32) > 0, 0, count)
        if KEPT > 0:
            index = tl.load(kept + start + lane, mask=inside, other=0) - first.to(tl.int32)
        if KEPT != 1:
            index = _search(
                latent, numel, scale, inner, lane, own_motifs, root,
                among, index, grow, tiny,
                S, SCALED, BLOCK_M, BLOCK_K,
            )  # fmt: skip
        tl.store(found + start + lane, index + first.to(tl.int32), mask=inside)
        weight = tl.load(weights + number)
        for begin in range(0, count, BLOCK_K):
            column = begin + tl.arange(0, BLOCK_K)
            known = column < count
            hit = (index[None, :] == column[:, None]) & finite[None, :]
            sums = partial + (first + column) * (S + 2)
            for i in tl.static_range(S):
                value = _value(latent, numel, scale, inner, lane, i, S, SCALED)
                wide = value.to(tl.float64)[None, :]
                more = weight * tl.sum(tl.where(hit, wide, 0.0), 1)
                tl.store(sums + i, tl.load(sums + i, mask=known) + more, mask=known)
            usage = tl.sum(hit.to(tl.float64), 1)
            more = weight * usage
            tl.store(sums + S, tl.load(sums + S, mask=known) + more, mask=known)
            tl.store(sums + S + 1, tl.load(sums + S + 1, mask=known) + usage, mask=known)
        tl.debug_barrier()


@triton.jit
@no_type_check
def _search(
    latent, numel, scale, inner, lane, motifs, roots, count, index, grow, tiny,
    S: tl.constexpr, SCALED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The motif of each block, among those of its tensor; `index` if `count` is 0."""
    best = tl.full([BLOCK_M], float("inf"), tl.float32)
    second, reach = best, tl.full([BLOCK_M], 1.0, tl.float32)
    for begin in range(0, count, BLOCK_K):
        column = begin + tl.arange(0, BLOCK_K)
        known = column < count
        total = tl.zeros([BLOCK_K, BLOCK_M], tl.float32)
        for i in tl.static_range(S):
            value = _value(latent, numel, scale, inner, lane, i, S, SCALED)
            motif = tl.load(motifs + column * S + i, mask=known, other=0.0)
            difference = value[None, :] - motif[:, None]
            reach = tl.maximum(reach, tl.max(tl.abs(difference), 0))
            total += difference * difference
        root = tl.load(roots + column, mask=known, other=0.0)
        reach = tl.maximum(reach, tl.max(root, 0))
        total += (root * root)[:, None]
        total = tl.where(known[:, None], total, float("inf"))
        near = tl.min(total, 0)
        places = tl.where(
            (total == near[None, :]) & known[:, None], column[:, None], 2147483647
        )
        name = tl.min(places, 0).to(tl.int32)
        rival = tl.min(tl.where(column[:, None] == name[None, :], float("inf"), total), 0)
        second = tl.minimum(tl.minimum(second, rival), tl.maximum(best, near))
        index = tl.where(near < best, name, index)
        best = tl.minimum(best, near)
    contested = (second <= best * grow + tiny * reach) & (lane * S < numel) & (count > 0)
    if tl.max(contested.to(tl.int32)) > 0:
        exact = _verdict(
            latent, numel, scale, inner, lane, motifs, roots, count,
            S, SCALED, BLOCK_M, BLOCK_K,
        )  # fmt: skip
        index = tl.where(contested, exact, index)
    return index


@triton.jit
@no_type_check
def _verdict(
    latent, numel, scale, inner, lane, motifs, roots, count,
    S: tl.constexpr, SCALED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The definition: squared distances in float64, in order of position, the first of equals."""
    best = tl.full([BLOCK_M], float("inf"), tl.float64)
    index = tl.zeros([BLOCK_M], tl.int32)
    for begin in range(0, count, BLOCK_K):
        column = begin + tl.arange(0, BLOCK_K)
        known = column < count
        total = tl.zeros([BLOCK_K, BLOCK_M], tl.float64)
        for i in tl.static_range(S):
            value = _value(latent, numel, scale, inner, lane, i, S, SCALED)
            motif = tl.load(motifs + column * S + i, mask=known, other=0.0)
            difference = value.to(tl.float64)[None, :] - motif.to(tl.float64)[:, None]
            total += difference * difference
        root = tl.load(roots + column, mask=known, other=0.0).to(tl.float64)
        total += (root * root)[:, None]
        total = tl.where(known[:, None], total, float("inf"))
        near = tl.min(total, 0)
        places = tl.where(
            (total == near[None, :]) & known[:, None], column[:, None], 2147483647
        )
        index = tl.where(near < best, tl.min(places, 0).to(tl.int32), index)
        best = tl.minimum(best, near)
    return index


@triton.jit
@no_type_check
def _write(
    fields, tiles, stored, scales, step, indices,
    S: tl.constexpr, DTYPE: tl.constexpr, SCALED: tl.constexpr,
    FIELDS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    own = fields + tl.load(tiles + 2 * tile) * FIELDS
    lane = tl.load(tiles + 2 * tile + 1).to(tl.int64) + tl.arange(0, BLOCK_M)
    value = tl.load(own + 1).to(tl.pointer_type(DTYPE))
    numel, start = tl.load(own + 2), tl.load(own + 3)
    scale, inner = scales + tl.load(own + 4), tl.load(own + 5)
    index = tl.load(indices + start + lane, mask=lane * S < numel, other=0)
    pace = tl.load(step)
    for i in tl.static_range(S):
        at = lane * S + i
        factor = tl.zeros([BLOCK_M], tl.float32) + pace
        if SCALED:
            factor = tl.load(scale + at // inner, mask=at < numel, other=1.0) * pace
        motif = tl.load(stored + index * S + i, mask=at < numel, other=0.0)
        product = motif * factor
        if tl.bfloat16 == DTYPE:  # halves to even, which the interpreter's cast does not do
            bits = product.to(tl.int32, bitcast=True)
            bits += 0x7FFF + ((bits >> 16) & 1)
            product = (bits >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
        else:
            product = product.to(DTYPE)
        tl.store(value + at, product, mask=at < numel)


@triton.jit
@no_type_check
def _sum(
    rows, indices, partial, num_rows, num_motifs,
    S: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    partial += program.to(tl.int64) * num_motifs * S
    for tile in range(program, tl.cdiv(num_rows, BLOCK_M), tl.num_programs(0)):
        lane = tile * BLOCK_M + tl.arange(0, BLOCK_M).to(tl.int64)
        inside = lane < num_rows
        index = tl.load(indices + lane, mask=inside, other=-1)
        for begin in range(0, num_motifs, BLOCK_K):
            column = begin + tl.arange(0, BLOCK_K)
            known = column < num_motifs
            hit = index[None, :] == column[:, None]
            for i in tl.static_range(S):
                value = tl.load(rows + lane * S + i, mask=inside, other=0.0).to(tl.float64)
                more = tl.sum(tl.where(hit, value[None, :], 0.0), 1)
                sums = partial + column * S + i
                tl.store(sums, tl.load(sums, mask=known) + more, mask=known)
        tl.debug_barrier()
