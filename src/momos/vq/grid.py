"""The nearest motif of blocks of one or two values on CUDA: a grid of cells, searched ring by ring.

What the CPU's grid does (native/grid.hpp), for as many motifs as there are: cell edges are quantiles
of the motifs, a block looks at the 3 x 3 cells around it, and at more only while a motif outside
could still be as near. Distances are the definition's, in float64, so there is no filter and no
verdict. Motifs are sorted once; blocks are read where they are, and nothing waits for the device.
"""

import math
from dataclasses import dataclass
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float64, Int32
from torch import Tensor

from momos.vq.together import DTYPES, FIELDS, Table

BLOCK_M = 64  # blocks that one warp searches at once
TILE = 512  # blocks of a program, where tensors have a table
PER_CELL = 1.5  # motifs
# Beyond this many motifs looked at per block the grid has degenerated (motifs on a line or in
# clumps). That of the CPU, where it was measured; not yet measured on a GPU.
MOST_CANDIDATES = 150
KINDS = DTYPES | {torch.float64: tl.float64}


@dataclass(frozen=True, eq=False)
class Grid:
    """Motifs by cell, of equal ones the first; what is left over is infinitely far."""

    x: Float[Tensor, " k"]
    y: Float[Tensor, " k"]
    names: Int32[Tensor, " k"]
    starts: Int32[Tensor, " c"]  # first motif of each cell, row by row
    edges: Float64[Tensor, "2 e"]
    side: int  # cells along an axis, with an empty border

    @classmethod
    def of(cls, motifs: Float[Tensor, "k s"]) -> "Grid":
        """The grid of finite motifs, made without waiting for the device."""
        wide = motifs.to(torch.promote_types(motifs.dtype, torch.float32)) + 0.0  # no -0
        x = wide[:, 0].contiguous()
        y = wide[:, 1].contiguous() if wide.shape[1] == 2 else torch.zeros_like(x)
        k = len(x)
        count = max(1, round(math.sqrt(k / PER_CELL)))
        edges = torch.stack([_edges(x, count), _edges(y, count)])
        side = edges.shape[1] + 3
        column, row = (
            torch.searchsorted(own, values.double(), right=True) + 1
            for own, values in zip(edges, (x, y), strict=True)
        )
        cell = row * side + column
        order = y.argsort(stable=True)
        order = order[x[order].argsort(stable=True)]
        order = order[cell[order].argsort(stable=True)]
        x, y, cell = x[order], y[order], cell[order]
        new = torch.ones_like(x, dtype=torch.bool)
        new[1:] = (x[1:] != x[:-1]) | (y[1:] != y[:-1])
        kept = new.cumsum(0)
        bounds = torch.searchsorted(cell, torch.arange(side * side + 1, device=x.device))
        starts = torch.cat([kept.new_zeros(1), kept])[bounds].int()
        number = torch.arange(1, k + 1, device=x.device)
        source = torch.searchsorted(kept, number).clamp_(max=k - 1)
        inside = number <= kept[-1]
        return cls(
            torch.where(inside, x[source], torch.inf),
            torch.where(inside, y[source], torch.inf),
            order[source].int(),
            starts,
            edges,
            side,
        )

    def candidates(self) -> Float64[Tensor, ""]:
        """Motifs looked at for a block that lies on a motif, on average; still on the device."""
        first, last = self.side + 1, self.side * (self.side - 1) - 1  # none in the border
        starts = self.starts.double()

        def between(left: int, right: int) -> Tensor:
            """Motifs from so many cells after each cell to so many."""
            return starts[first + right : last + right] - starts[first + left : last + left]

        seen = sum(between(row - 1, row + 2) for row in (-self.side, 0, self.side))
        return (between(0, 1) * seen).sum() / starts[-1]


def _edges(values: Tensor, count: int) -> Float64[Tensor, " e"]:
    """Distinct quantiles above the least value, then infinities, 2^n - 1 in all."""
    ordered = values.sort().values.double()
    places = torch.arange(1, count, device=values.device) * len(values) // count
    edges = ordered[places]
    before = torch.cat([ordered[:1], edges])[:-1] if count > 1 else edges
    distinct = torch.where(edges > before, edges, torch.inf).sort().values
    steps = max(1, count.bit_length())
    return torch.nn.functional.pad(
        distinct, (0, 2**steps - 1 - len(distinct)), value=torch.inf
    )


def search(
    made: Grid, blocks: Float[Tensor, "m s"]
) -> tuple[Int32[Tensor, " m"], Int32[Tensor, ""]]:
    """Index of the motif nearest to each block, and 1 if a block is not finite."""
    found = torch.empty(len(blocks), dtype=torch.int32, device=blocks.device)
    flag = torch.zeros((), dtype=torch.int32, device=blocks.device)
    if len(blocks):
        with torch.cuda.device_of(blocks):
            _blocks[(triton.cdiv(len(blocks), BLOCK_M),)](
                blocks.contiguous(), made.x, made.y, made.names, made.starts, made.edges,
                found, flag, len(blocks),
                made.side, made.edges.shape[1],
                S=blocks.shape[1], BLOCK_M=BLOCK_M,
                num_warps=1,  # pyright: ignore[reportCallIssue]
                enable_fp_fusion=False,  # pyright: ignore[reportCallIssue]
            )  # fmt: skip
    return found, flag


def assign(made: Grid, table: Table, *, out: Int32[Tensor, " m"]) -> Int32[Tensor, " t"]:
    """Writes each block's motif to `out`, of all tensors in one launch; which are not finite."""
    flags = torch.zeros(len(table.fields), dtype=torch.int32, device=out.device)
    with torch.cuda.device_of(out):
        _tensors[(len(table.tiles),)](
            table.fields, table.tiles, made.x, made.y, made.names, made.starts,
            made.edges, out, flags,
            made.side, made.edges.shape[1],
            S=table.block_size, DTYPE=KINDS[table.dtype], FIELDS=FIELDS,
            TILE=table.tile, BLOCK_M=BLOCK_M,
            num_warps=1,  # pyright: ignore[reportCallIssue]
            enable_fp_fusion=False,  # pyright: ignore[reportCallIssue]
        )  # fmt: skip
    return flags


# Rounding is monotone, so a motif beyond an edge has a rounded distance of at least the rounded
# squared gap to that edge; a block is settled when its best distance is below that of all four.


@triton.jit
@no_type_check
def _blocks(
    blocks, x, y, names, starts, edges, found, flag, num_blocks, side, num_edges,
    S: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = lane < num_blocks
    across = tl.load(blocks + lane * S, mask=inside, other=0.0).to(tl.float64)
    down = tl.zeros([BLOCK_M], tl.float64)
    if S == 2:
        down = tl.load(blocks + lane * S + 1, mask=inside, other=0.0).to(tl.float64)
    index, finite = _nearest(
        across, down, inside, x, y, names, starts, edges, side, num_edges, BLOCK_M
    )
    if tl.max((inside & (finite == 0)).to(tl.int32)) > 0:
        tl.store(flag, 1)
    tl.store(found + lane, index, mask=inside)


@triton.jit
@no_type_check
def _tensors(
    fields, tiles, x, y, names, starts, edges, found, flags, side, num_edges,
    S: tl.constexpr, DTYPE: tl.constexpr, FIELDS: tl.constexpr,
    TILE: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    number = tl.load(tiles + 2 * tile)
    first = tl.load(tiles + 2 * tile + 1).to(tl.int64)
    own = fields + number * FIELDS
    values = tl.load(own).to(tl.pointer_type(DTYPE))
    numel, start = tl.load(own + 2), tl.load(own + 3)
    for part in range(0, TILE, BLOCK_M):
        lane = first + part + tl.arange(0, BLOCK_M)
        inside = lane * S < numel
        across = tl.load(values + lane * S, mask=inside, other=0.0).to(tl.float64)
        down = tl.zeros([BLOCK_M], tl.float64)
        if S == 2:
            within = lane * S + 1 < numel
            down = tl.load(values + lane * S + 1, mask=within, other=0.0).to(tl.float64)
        index, finite = _nearest(
            across, down, inside, x, y, names, starts, edges, side, num_edges, BLOCK_M
        )
        if tl.max((inside & (finite == 0)).to(tl.int32)) > 0:
            tl.store(flags + number, 1)
        tl.store(found + start + lane, index, mask=inside)


@triton.jit
@no_type_check
def _nearest(
    across, down, inside, x, y, names, starts, edges, side, num_edges, BLOCK_M: tl.constexpr
):
    """The motif of each block, and which blocks are finite."""
    finite = (tl.abs(across) < float("inf")) & (tl.abs(down) < float("inf"))
    column = _rank(edges, across, num_edges, BLOCK_M) + 1
    row = _rank(edges + num_edges, down, num_edges, BLOCK_M) + 1
    best = tl.full([BLOCK_M], float("inf"), tl.float64)
    index = tl.full([BLOCK_M], 2147483647, tl.int32)
    pending, radius = inside & finite, 1
    waiting = tl.max(pending.to(tl.int32))
    while waiting > 0:
        left, right = tl.maximum(column - radius, 0), tl.minimum(column + radius, side - 1)
        bottom, top = tl.maximum(row - radius, 0), tl.minimum(row + radius, side - 1)
        rows = tl.max(tl.where(pending, top - bottom + 1, 0))
        for step in range(rows):
            here = pending & (bottom + step <= top)
            cell = (bottom + step) * side
            begin = tl.load(starts + cell + left, mask=here, other=0)
            end = tl.load(starts + cell + right + 1, mask=here, other=0)
            longest = tl.max(end - begin)
            for i in range(longest):
                near = here & (begin + i < end)
                dx = tl.load(x + begin + i, mask=near, other=0.0).to(tl.float64) - across
                dy = tl.load(y + begin + i, mask=near, other=0.0).to(tl.float64) - down
                distance = dx * dx + dy * dy
                name = tl.load(
                    names + begin + i, mask=near & (distance <= best), other=2147483647
                )
                closer = near & ((distance < best) | ((distance == best) & (name < index)))
                index = tl.where(closer, name, index)
                best = tl.where(closer, distance, best)
        gap = tl.minimum(
            tl.minimum(
                across - _edge(edges, left - 2, num_edges),
                _edge(edges, right - 1, num_edges) - across,
            ),
            tl.minimum(
                down - _edge(edges + num_edges, bottom - 2, num_edges),
                _edge(edges + num_edges, top - 1, num_edges) - down,
            ),
        )
        whole = (left == 0) & (bottom == 0) & (right == side - 1) & (top == side - 1)
        pending = pending & (whole == 0) & (best >= gap * gap)
        waiting = tl.max(pending.to(tl.int32))
        radius = radius * 2
    return tl.where(finite, index, 0), finite


@triton.jit
@no_type_check
def _rank(edges, value, num_edges, BLOCK_M: tl.constexpr):
    """How many edges are at most each value; their number is 2^n - 1."""
    position = tl.zeros([BLOCK_M], tl.int32)
    half = (num_edges + 1) // 2
    while half > 0:
        edge = tl.load(edges + position + half - 1)
        position += tl.where(edge <= value, half, 0)
        half = half // 2
    return position


@triton.jit
@no_type_check
def _edge(edges, number, num_edges):
    """An edge, or the infinity on its side of them all."""
    known = (number >= 0) & (number < num_edges)
    beyond = tl.where(number < 0, float("-inf"), float("inf"))
    return tl.where(known, tl.load(edges + number, mask=known, other=0.0), beyond)
