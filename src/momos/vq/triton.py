"""The nearest motif on CUDA: a float32 search, then float64 where float32 cannot tell.

A tile of blocks walks outward over the motifs, sorted by one coordinate, and stops where
that coordinate alone puts all further motifs too far away. Held to equality with the
definition by Triton's interpreter, and compiled for NVIDIA targets, in
tests/test_vq_triton.py; it has not yet been run on a GPU.
"""

import logging
import math
from collections.abc import Callable
from functools import cache
from typing import no_type_check

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(
        "nearest on CUDA needs the package triton, which PyTorch's CUDA builds for Linux "
        "bring along: pip install triton"
    ) from error

# One warp owns a tile of blocks, two to a thread. As motifs are fewer than threads, the
# compiler gives each thread all of a tile: no shared memory, no barrier, wide loads.
BLOCK_M = 64
BLOCK_K = 16
STRIP = 8  # motif tiles whose blocks are sorted by norm


def nearest(
    blocks: Float[Tensor, "m s"], motifs: Float[Tensor, "k s"]
) -> Int[Tensor, " m"]:
    """Index of the motif nearest to each block; for inputs that have been validated."""
    return searcher(motifs)(blocks)


def searcher(motifs: Float[Tensor, "k s"]) -> Callable[[Tensor], Tensor]:
    """`nearest` with the motifs prepared once, for blocks that come piece by piece."""
    # Copies of one motif would contest every block near them. The first stands for all.
    distinct, inverse, counts = motifs.double().unique(
        dim=0, return_inverse=True, return_counts=True
    )
    names = inverse.argsort(stable=True)[counts.cumsum(0) - counts].int()

    def search(blocks: Float[Tensor, "m s"]) -> Int[Tensor, " m"]:
        if len(blocks) == 0:
            return torch.empty(0, dtype=torch.int64, device=blocks.device)
        if torch.float64 in (blocks.dtype, motifs.dtype):
            return _search(blocks.double(), distinct, names)[0]

        # Times a power of two, magnitudes are at most 4 and as a rule reach 1/2. That is
        # exact for results that are normal numbers; the power is kept one itself.
        peak = max(blocks.abs().max().item(), distinct.abs().max().item())
        scale = math.ldexp(1.0, max(-126, min(126, -math.frexp(peak)[1])))
        indices, contested = _search(
            blocks.float() * scale, (distinct * scale).float(), names
        )
        rest = contested.nonzero()[:, 0]
        if len(rest) > 0:
            indices[rest] = _search(blocks[rest].double(), distinct, names)[0]
        return indices

    return search


def _search(
    blocks: Float[Tensor, "m s"], motifs: Float[Tensor, "k s"], names: Int[Tensor, " k"]
) -> tuple[Int[Tensor, " m"], Bool[Tensor, " m"]]:
    """The name of the nearest motif, ties to the lowest, and whether another comes as near.

    In the precision of the inputs: float64 is the definition's own arithmetic, in float32
    "as near" means within `_slack`.
    """
    axis = int(motifs.var(0, correction=0).argmax())
    by_axis = motifs[:, axis].argsort()
    edges = motifs[by_axis[BLOCK_K::BLOCK_K], axis]
    home = torch.bucketize(blocks[:, axis].contiguous(), edges, right=True)
    # By norm within a strip, so that outlying blocks, which walk far, share tiles.
    order = torch.linalg.vector_norm(blocks, dim=1).argsort()
    order = order[(home[order] // STRIP).argsort(stable=True)]

    _announce(blocks.shape[1], blocks.dtype)
    block_tiles = _tiles(blocks, order, BLOCK_M)
    motif_tiles = _tiles(motifs, by_axis, BLOCK_K)
    found = torch.empty(len(block_tiles), BLOCK_M, dtype=torch.int64, device=blocks.device)
    doubt = torch.empty_like(found, dtype=torch.bool)
    with torch.cuda.device_of(blocks):
        _walk[(len(block_tiles),)](
            block_tiles,
            motif_tiles,
            _tiles(names[:, None], by_axis, BLOCK_K),
            home[order[::BLOCK_M]],
            found,
            doubt,
            len(motif_tiles),
            axis,
            *_slack(blocks),
            S=blocks.shape[1],
            BLOCK_M=BLOCK_M,
            BLOCK_K=BLOCK_K,
            num_warps=1,  # pyright: ignore[reportCallIssue]
            # float64 rounds every operation
            enable_fp_fusion=blocks.dtype == torch.float32,  # pyright: ignore[reportCallIssue]
        )
    indices, contested = torch.empty_like(order), torch.empty_like(order, dtype=torch.bool)
    indices[order] = found.flatten()[: len(order)]
    contested[order] = doubt.flatten()[: len(order)]
    return indices, contested


@cache
def _announce(block_size: int, dtype: torch.dtype) -> None:
    """Says once why the first call for a block size takes seconds."""
    logging.getLogger("momos").warning(
        "preparing the CUDA engine for block size %d in %s: compiled the first time, then cached",
        block_size,
        str(dtype).removeprefix("torch."),
    )


def _tiles(
    rows: Shaped[Tensor, "n s"], order: Int[Tensor, " n"], size: int
) -> Shaped[Tensor, "t s {size}"]:
    """Ordered rows in tiles, each coordinate by coordinate; the last row fills the end."""
    positions = torch.arange(math.ceil(len(rows) / size) * size, device=rows.device)
    padded = rows[order[positions.clamp(max=len(rows) - 1)]]
    return padded.view(-1, size, rows.shape[1]).transpose(1, 2).contiguous()


def _slack(blocks: Float[Tensor, "m s"]) -> tuple[float, float]:
    """`grow` and `tiny`: a distance above d·grow + tiny is certainly farther than d.

    Let D be the squared distance of the scaled values without rounding and u = 2⁻²⁴. The
    float32 distance is D(1 + a) + b.
    |a| ≤ (s+2)u / (1 - (s+2)u): one subtraction counted twice by the square, the product,
    and s - 1 additions of terms that are not negative (Higham 2002, §3.1, §4.2); fused
    operations round less.
    |b| ≤ s·2⁻¹¹⁹ is what gets lost below the normal numbers, even if they are flushed to
    zero: up to 2⁻¹²⁶ in either coordinate, in their difference t, |t| ≤ 8, and in a product
    or a sum, hence at most 2·8·3·2⁻¹²⁶ + 2·2⁻¹²⁶ + O(2⁻²⁵⁰) < 2⁻¹¹⁹ for each term.
    The definition's own error, about (s+2)·2⁻⁵³, is negligible compared with a. So d' is farther than
    d if d' > d(1 + 3(s+2)u) + 3s·2⁻¹¹⁹, as long as s is far below 1/u. What is returned
    exceeds this by more than the rounding of d·grow + tiny.
    """
    if blocks.dtype == torch.float64:
        return 1.0, 0.0
    s = blocks.shape[1]
    return 1.0 + (s + 4) * 2.0**-22, s * 2.0**-116


# Rounding is monotone and no term is negative. So in either precision, fused or not, a
# motif beyond a gap on one coordinate has a computed distance of at least the computed
# square of the gap: no tie is missed, and overflow and underflow need no care.
@triton.jit(do_not_specialize=["num_tiles", "axis"])
@no_type_check
def _walk(
    blocks,
    motifs,
    names,
    home,
    found,
    doubt,
    num_tiles,
    axis,
    grow,
    tiny,
    S: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK_M)[None, :]
    blocks += program * (S * BLOCK_M)
    low = tl.min(tl.load(blocks + axis * BLOCK_M + lane))
    high = tl.max(tl.load(blocks + axis * BLOCK_M + lane))
    best = tl.full([1, BLOCK_M], float("inf"), blocks.dtype.element_ty)
    second = best
    index = tl.full([1, BLOCK_M], 2147483647, tl.int32)
    right = tl.load(home + program)  # the tiles between left and right have been visited
    left = right - 1
    walking = right < num_tiles
    while walking:
        rightwards, gap = _step(motifs, left, right, num_tiles, low, high, axis, S, BLOCK_K)
        reach = best * grow + tiny
        walking = ((left >= 0) | (right < num_tiles)) & (gap * gap <= tl.max(reach))
        if walking:
            tile = tl.where(rightwards, right, left)
            distance = _distances(
                blocks, motifs + tile * (S * BLOCK_K), S, BLOCK_M, BLOCK_K
            )
            near = tl.min(distance, 0, keep_dims=True)
            if tl.max((near <= reach).to(tl.int32)) > 0:
                name = tl.load(names + tile * BLOCK_K + tl.arange(0, BLOCK_K))[:, None]
                best, second, index = _merge(distance, name, best, second, index)
            right = tl.where(rightwards, right + 1, right)
            left = tl.where(rightwards, left, left - 1)
    tl.store(found + program * BLOCK_M + lane, index)
    tl.store(doubt + program * BLOCK_M + lane, second <= best * grow + tiny)


@triton.jit
@no_type_check
def _step(
    motifs, left, right, num_tiles, low, high, axis, S: tl.constexpr, BLOCK_K: tl.constexpr
):
    """Whether the nearer of the two tiles ahead is the right one, and its gap."""
    before = motifs + (left * S + axis) * BLOCK_K + BLOCK_K - 1
    behind = motifs + (right * S + axis) * BLOCK_K
    left_gap = tl.maximum(low - tl.load(before, mask=left >= 0, other=0.0), 0.0)
    right_gap = tl.maximum(tl.load(behind, mask=right < num_tiles, other=0.0) - high, 0.0)
    rightwards = (right < num_tiles) & ((left < 0) | (right_gap <= left_gap))
    return rightwards, tl.where(rightwards, right_gap, left_gap)


@triton.jit
@no_type_check
def _distances(
    blocks, motifs, S: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr
):
    """Squared distances, (BLOCK_K, BLOCK_M), summed in order of position."""
    lane = tl.arange(0, BLOCK_M)[None, :]
    column = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_K, BLOCK_M], blocks.dtype.element_ty)
    for i in range(S):
        z = tl.load(motifs + i * BLOCK_K + column)
        difference = tl.load(blocks + i * BLOCK_M + lane) - z[:, None]
        total += difference * difference
    return total


@triton.jit
@no_type_check
def _merge(distance, names, best, second, index):
    """The least distance so far, the least of any other name, and the name of the first."""
    near = tl.min(distance, 0, keep_dims=True)
    name = tl.min(tl.where(distance == near, names, 2147483647), 0, keep_dims=True)
    # By name, so that the copies that fill the last tile do not count as rivals.
    rival = tl.min(tl.where(names == name, float("inf"), distance), 0, keep_dims=True)
    second = tl.minimum(tl.minimum(second, rival), tl.maximum(best, near))
    index = tl.where((near < best) | ((near == best) & (name < index)), name, index)
    return tl.minimum(best, near), second, index
