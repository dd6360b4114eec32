"""Finds the motif nearest to each block.

The definition is `nearest_reference`: squared Euclidean distance in float64, summed in order of
position, ties to the lowest index. `nearest` returns the same indices, faster. Every engine is
held to equality with the reference, not to closeness (tests/test_vq_nearest.py). The device decides
the engine: `cpu` (compiled) or `triton`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from momos.vq import cpu


def nearest(
    blocks: Float[Tensor, "m s"], motifs: Float[Tensor, "k s"]
) -> Int[Tensor, " m"]:
    """Index of the motif nearest to each block, on the device of `blocks`.

    float64 distances that overflow or underflow compare as they come out, as in the reference.

    Raises:
        ValueError: if there are no motifs, the block sizes or devices differ, or a value is not
            finite.
    """
    return searcher(motifs)(blocks).long()


def nearest_reference(
    blocks: Float[Tensor, "m s"], motifs: Float[Tensor, "k s"]
) -> Int[Tensor, " m"]:
    """The definition of `nearest`; m·k float64 values in memory."""
    distance = blocks.new_zeros(len(blocks), len(motifs), dtype=torch.float64)
    for block, motif in zip(blocks.double().T, motifs.double().T, strict=True):
        distance += (block[:, None] - motif).square()
    return distance.argmin(1)


def searcher(
    motifs: Float[Tensor, "k s"], *, padded: bool = False
) -> Callable[[Tensor], Tensor]:
    """`nearest` with the motifs prepared once, for blocks that arrive piece by piece.

    Indices are returned in the integer type that the engine works in. With `padded`, blocks
    have one value less than motifs, and a 0 is appended to each.
    """
    _check("motifs", motifs)
    if len(motifs) == 0 or motifs.shape[1] == 0:
        raise ValueError(
            f"motifs must have at least one row and one value, got shape {tuple(motifs.shape)}"
        )
    if motifs.device.type not in ("cpu", "cuda"):
        raise ValueError(f"motifs must be on cpu or cuda, got {motifs.device}")
    if count := int((~torch.isfinite(motifs)).sum()):
        raise ValueError(
            f"motifs must be finite, got {count} values that are NaN or infinite"
        )
    motifs = motifs.detach()
    size = motifs.shape[1] - padded
    on_cpu = motifs.device.type == "cpu"
    search = (
        cpu.searcher(motifs, padded=padded) if on_cpu else _cuda_searcher(motifs, padded)
    )

    def checked(blocks: Tensor) -> Tensor:
        _check("blocks", blocks)
        if blocks.shape[1] != size:
            raise ValueError(
                f"blocks and motifs must share one block size, got {blocks.shape[1]} and {size}"
            )
        if blocks.device != motifs.device:
            raise ValueError(
                f"blocks and motifs must be on one device, got {blocks.device} and "
                f"{motifs.device}"
            )
        try:
            return search(blocks.detach())
        except FloatingPointError:
            count = int((~torch.isfinite(blocks)).sum())
            raise ValueError(
                f"blocks must be finite, got {count} values that are NaN or infinite"
            ) from None

    return checked


def add_differences(
    blocks: Float[Tensor, "m s"],
    indices: Int[Tensor, " m"],
    motifs: Float[Tensor, "k s"],
    *,
    sums: Float[Tensor, "k s"],
    counts: Float[Tensor, " k"],
) -> None:
    """Adds block − motif to `sums`, and 1 to `counts`, of each block's motif, in float64.

    As differences, so that the mean of equal blocks is that block exactly.
    """
    if blocks.device.type == "cpu":
        cpu.add_differences(blocks, indices, motifs, sums, counts)
        return
    rows = indices.long()
    sums.index_add_(0, rows, blocks.double() - motifs[rows].double())
    counts.index_add_(0, rows, torch.ones_like(rows, dtype=torch.float64))


def _check(name: str, rows: Tensor) -> None:
    if not rows.is_floating_point() or rows.itemsize < 2:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {rows.dtype}"
        )
    if rows.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, got shape {tuple(rows.shape)}")


def _cuda_searcher(motifs: Tensor, padded: bool) -> Callable[[Tensor], Tensor]:
    from momos.vq import triton  # compiled on first use, so imported on first use

    search = triton.searcher(motifs)

    def finite(blocks: Tensor) -> Tensor:
        if not bool(torch.isfinite(blocks).all()):
            raise FloatingPointError("blocks must be finite")
        return search(pad(blocks, (0, 1)) if padded else blocks)

    return finite
