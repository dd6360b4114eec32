"""Products with a packed weight on CUDA, by Triton: motifs are decoded in registers, tile by tile.

For indices of 8 bits and whole blocks, of a power of two, in each row. Held to the definition by Triton's
interpreter in tests/test_compact_cuda.py; it has not yet been run on a GPU.
"""

from typing import no_type_check

from jaxtyping import Float, UInt8
from torch import Tensor

from momos.compact.kernels import by_tile

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(
        "momos.compact.cuda needs the package triton, which PyTorch's CUDA builds for Linux bring "
        "along: pip install triton"
    ) from error

ROWS, BLOCKS, INPUTS = 32, 64, 16  # of a tile: rows of the weight, blocks in a row, inputs


def product(
    inputs: Float[Tensor, "r n"],
    motifs: Float[Tensor, "k s"],
    packed: UInt8[Tensor, " b"],
    num_rows: int,
) -> Float[Tensor, "r o"]:
    """inputs · weightᵀ, with sums in float32, for indices of 8 bits.

    Raises:
        ValueError: if `by_tile` does not allow such a weight.
    """
    count, width = inputs.shape
    num_motifs, size = motifs.shape
    if not by_tile(width, size) or num_motifs > 256:
        raise ValueError(
            f"rows must be whole blocks of a power of two, of at most 256 motifs, got rows of {width}, "
            f"blocks of {size} and {num_motifs} motifs"
        )
    outputs = inputs.new_empty(count, num_rows)
    inputs, motifs = inputs.contiguous(), motifs.contiguous()
    tiles = triton.cdiv(num_rows, ROWS)
    if count == 1:
        _vector[(tiles,)](
            *(inputs, motifs, packed, outputs, num_rows, width // size, num_motifs),
            S=size,
            ROWS=ROWS,
            BLOCKS=BLOCKS,
        )
        return outputs
    _matrix[(tiles, triton.cdiv(count, INPUTS))](
        *(inputs, motifs, packed, outputs, count, num_rows, width // size, num_motifs),
        S=size,
        ROWS=ROWS,
        BLOCKS=max(1, BLOCKS // size),
        INPUTS=INPUTS,
    )
    return outputs


@no_type_check
@triton.jit
def _vector(
    inputs,
    motifs,
    packed,
    outputs,
    num_rows,
    num_blocks,
    num_motifs,
    S: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """One input: each program has some rows of the weight; motifs stay in the cache."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros((ROWS, BLOCKS), tl.float32)
    for start in range(0, num_blocks, BLOCKS):
        block = start + tl.arange(0, BLOCKS)
        inside = (row[:, None] < num_rows) & (block[None, :] < num_blocks)
        at = row[:, None].to(tl.int64) * num_blocks + block[None, :]
        index = tl.load(packed + at, mask=inside, other=0).to(tl.int32)
        inside = inside & (index < num_motifs)
        for t in tl.static_range(S):
            x = tl.load(inputs + block * S + t, mask=block < num_blocks, other=0.0)
            value = tl.load(motifs + index * S + t, mask=inside, other=0.0)
            sums += value.to(tl.float32) * x[None, :].to(tl.float32)
    total = tl.sum(sums, 1)
    tl.store(outputs + row, total.to(outputs.dtype.element_ty), mask=row < num_rows)


@no_type_check
@triton.jit
def _matrix(
    inputs,
    motifs,
    packed,
    outputs,
    count,
    num_rows,
    num_blocks,
    num_motifs,
    S: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """Several inputs: a tile of the weight is decoded and multiplied on tensor cores."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    own = tl.program_id(1) * INPUTS + tl.arange(0, INPUTS)
    width = num_blocks * S
    sums = tl.zeros((INPUTS, ROWS), tl.float32)
    for start in range(0, num_blocks, BLOCKS):
        column = start * S + tl.arange(0, BLOCKS * S)
        x = tl.load(
            inputs + own[:, None].to(tl.int64) * width + column[None, :],
            mask=(own[:, None] < count) & (column[None, :] < width),
            other=0.0,
        )
        inside = (row[None, :] < num_rows) & (column[:, None] < width)
        at = row[None, :].to(tl.int64) * num_blocks + column[:, None] // S
        index = tl.load(packed + at, mask=inside, other=0).to(tl.int32)
        inside = inside & (index < num_motifs)
        value = tl.load(motifs + index * S + column[:, None] % S, mask=inside, other=0.0)
        sums += tl.dot(x, value.to(x.dtype), input_precision="ieee")
    at = own[:, None].to(tl.int64) * num_rows + row[None, :]
    inside = (own[:, None] < count) & (row[None, :] < num_rows)
    tl.store(outputs + at, sums.to(outputs.dtype.element_ty), mask=inside)
