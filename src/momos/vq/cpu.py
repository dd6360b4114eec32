"""The compiled CPU engines, and the choice between them.

`grid` searches cells ring by ring (s ≤ 2). `flat` computes float32 distances tile by tile, without
an m × k matrix, and lets float64 decide (any s). `cells` precomputes which motifs can be nearest in
each cell (s ≤ 2, and one more value of each motif). All are described and proved exact in `native/`.
"""

from collections.abc import Callable, Sequence
from ctypes import c_char
from functools import cache
from importlib import import_module
from time import perf_counter
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from momos.vq.exact import Grid

# Beyond this many motifs looked at per block the grid has degenerated (motifs on a line or in
# clumps), and the k-d tree of the flat engine is faster (bench/engines.py measures both). With
# AVX-512 it has not been measured since the grid computes in vectors without it.
MOST_CANDIDATES = {"portable": 100, "avx2": 150, "avx512": 150}
FEWEST_FOR_CELLS = (
    1 << 12
)  # blocks: preparing cells costs as much as searching for this many
MOST_KEPT = 32  # motifs to compare in a cell, beyond which another engine is faster
# An engine cannot be interrupted, so each call gets blocks for about this long. The first call
# gets a number that is safe by a wide margin.
SECONDS = 0.1
FIRST_WORK = 1 << 27  # values compared
FEWEST_BLOCKS, MOST_FIRST = 16, 1 << 12  # for each thread


def searcher(motifs: Tensor, *, padded: bool = False) -> Callable[[Tensor], Tensor]:
    """Finds the nearest motifs of blocks, for finite `motifs` on the CPU; indices are int32.

    With `padded`, blocks have one value less, and a 0 is appended to each.
    """
    engines: dict[bool, tuple[object, int]] = {}

    def search(blocks: Tensor) -> Tensor:
        wide = torch.float64 in (blocks.dtype, motifs.dtype)
        if wide not in engines:
            engines[wide] = _engine(motifs, len(blocks), wide=wide, padded=padded)
        engine, zeros = engines[wide]
        padded_blocks = pad(blocks, (0, zeros)) if zeros else blocks
        return query(engine, padded_blocks, wide=wide, num_values=motifs.numel())

    return search


def _engine(
    motifs: Tensor, num_blocks: int, *, wide: bool, padded: bool
) -> tuple[object, int]:
    """An engine for at least `num_blocks` blocks, and how many zeros to append to each block."""
    if padded and motifs.shape[1] in (2, 3) and num_blocks >= FEWEST_FOR_CELLS:
        engine = build(motifs, wide=wide, kind="cells", num_blocks=num_blocks)
        if native().candidates(engine) <= MOST_KEPT:
            return engine, 0
    return build(motifs, wide=wide), int(padded)


def build(
    motifs: Tensor, *, wide: bool, kind: str | None = None, num_blocks: int = 0
) -> object:
    """An engine over `motifs`, in float64 if `wide`, else in float32."""
    values = motifs.to(_dtype(wide)).contiguous()
    num_motifs, block_size = values.shape
    arguments = (values.numpy(), num_motifs, block_size, wide)
    if kind is None and block_size <= 2:
        engine = native().build("grid", *arguments)
        instructions = native().__name__.rpartition("_")[2]
        if native().candidates(engine) <= MOST_CANDIDATES[instructions]:
            return engine
    return native().build(kind or "flat", *arguments, num_blocks)


def query(engine: object, blocks: Tensor, *, wide: bool, num_values: int = 1) -> Tensor:
    """Indices (int32) of the nearest motifs by an engine from `build`.

    `num_values` is the number of values in all motifs. Ctrl-C takes effect between pieces.

    Raises:
        FloatingPointError: if a block is not finite.
    """
    return _query(engine, [blocks], len(blocks), wide=wide, num_values=num_values)


def assign(flats: Sequence[Tensor], motifs: Tensor) -> Tensor:
    """Nearest motif (int32) of the blocks of flat tensors, each padded by zeros to whole blocks.

    Raises:
        FloatingPointError: if a value is not finite.
    """
    wide = torch.float64 in (motifs.dtype, *(flat.dtype for flat in flats))
    num_blocks = sum(-(-len(flat) // motifs.shape[1]) for flat in flats)
    engine = build(motifs, wide=wide)
    return _query(engine, flats, num_blocks, wide=wide, num_values=motifs.numel())


def _query(
    engine: object, given: Sequence[Tensor], num_blocks: int, *, wide: bool, num_values: int
) -> Tensor:
    held = [part.detach().to(_dtype(wide)).contiguous() for part in given]
    parts = tuple(map(memory_of, held))
    indices = torch.empty(num_blocks, dtype=torch.int32, device="cpu")
    threads = torch.get_num_threads()
    least = FEWEST_BLOCKS * threads
    count = threads * min(max(FIRST_WORK // num_values, FEWEST_BLOCKS), MOST_FIRST)
    start = 0
    while start < num_blocks:
        begun, stop = perf_counter(), min(start + count, num_blocks)
        own = indices[start:stop].numpy()
        if native().query(engine, parts, start, stop, own, threads):
            raise FloatingPointError("blocks must be finite")
        start, took = stop, perf_counter() - begun
        if took < SECONDS / 16:
            count *= 16
        elif took < SECONDS / 2:
            count *= 2
        elif took > SECONDS:
            count = max(least, count // 2)
    return indices


def take(flats: Sequence[Tensor], rows: Tensor, block_size: int) -> Tensor:
    """The blocks at `rows` of flat tensors of one dtype, as `assign` counts them."""
    blocks = flats[0].new_empty(len(rows), block_size)
    parts = tuple(map(memory_of, flats))
    width = block_size * blocks.itemsize
    if not native().take(parts, rows.long().numpy(), bytes_of(blocks), width):
        raise IndexError("rows must be those of blocks")
    return blocks


def rewrite_(flats: Sequence[Tensor], motifs: Tensor, indices: Tensor) -> tuple[float, int]:
    """Replaces every block of flat tensors by its motif, all float32 or all float64.

    Returns the sum of the squared differences, and how many values are not what they were. Sums
    depend neither on the number of threads nor on the processor.
    """
    good, distortion, moved = native().rewrite(
        tuple(map(memory_of, flats)),
        motifs.contiguous().numpy(),
        indices.numpy(),
        motifs.shape[1],
        motifs.dtype == torch.float64,
        torch.get_num_threads(),
    )
    if not good:
        raise IndexError("indices must name motifs")
    for flat in flats:
        torch.autograd.graph.increment_version(flat)
    return distortion, moved


def memory_of(tensor: Tensor) -> Any:
    """The memory of a contiguous tensor as a buffer, which does not keep it alive.

    With numpy, torch would never again let anyone resize it, as FSDP does with weights.
    """
    assert tensor.is_contiguous()
    assert not tensor.is_neg()
    return (c_char * tensor.nbytes).from_address(tensor.data_ptr())


def finite(values: Tensor) -> bool:
    """Whether all values are finite, in one parallel region."""
    wide = values.dtype == torch.float64
    few = values.detach().to(_dtype(wide)).contiguous()
    return native().finite(memory_of(few), wide, torch.get_num_threads())


def narrow(indices: Tensor, num_motifs: int, dtype: torch.dtype) -> Tensor | None:
    """A copy of int32 indices in an unsigned or equal integer type; None if one names no motif."""
    few = torch.empty(len(indices), dtype=dtype, device="cpu")
    own = indices.contiguous().numpy()
    threads = torch.get_num_threads()
    return few if native().narrow(own, few.numpy(), num_motifs, threads) else None


def bytes_of(tensor: Tensor) -> Any:
    """The memory of a tensor, as a NumPy array of some dtype of its size."""
    flat = tensor.detach().contiguous()
    return (flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat).numpy()


def add_differences(
    blocks: Tensor,
    indices: Tensor,
    motifs: Tensor,
    grid: Grid,
    sums: Tensor,
    counts: Tensor,
) -> None:
    """Adds the terms of block − motif to the float64 `sums`, and 1 to `counts`, of each motif."""
    wide = torch.float64 in (blocks.dtype, motifs.dtype)
    native().add(
        blocks.to(_dtype(wide)).contiguous().numpy(),
        indices.int().numpy(),
        motifs.to(_dtype(wide)).contiguous().numpy(),
        sums.numpy(),
        counts.numpy(),
        motifs.shape[1],
        wide,
        grid.coarse,
        grid.fine,
    )


def usage(indices: Tensor, num_motifs: int) -> Tensor:
    """How many of the int32 `indices` refer to each motif.

    Raises:
        IndexError: if one refers to no motif.
    """
    counts = torch.zeros(num_motifs, dtype=torch.int64, device="cpu")
    if not native().usage(indices.contiguous().numpy(), counts.numpy()):
        raise IndexError("indices must name motifs")
    return counts


@cache
def native() -> ModuleType:
    """The compiled module for the best instruction set of this processor."""
    return import_module(f"momos.vq._{instruction_set()}")


def instruction_set() -> str:
    """The best of the instruction sets that modules are compiled for, on this processor."""
    portable = import_module("momos.vq._portable")
    return [*portable.instruction_sets(), "portable"][0]


def _dtype(wide: bool) -> torch.dtype:
    return torch.float64 if wide else torch.float32
