"""Finds the motif nearest to each block.

The definition is `nearest_reference`: squared Euclidean distance in float64, summed in order of
position, ties to the lowest index. `nearest` returns the same indices, faster. Every engine is
held to equality with the reference, not to closeness (tests/test_vq_nearest.py). The device decides
the engine: `cpu` (compiled) or, on CUDA, `triton`. Blocks on other devices are searched on the CPU.

A motif may also cost its code length: a block takes the motif of least squared distance + λ·(bits
of its index) (entropy-constrained vector quantization; Chou, Lookabaugh and Gray 1989). The second
term is the square of one more coordinate, 0 for every block and √(λ·bits) for a motif. So the answer
is the nearest of these longer motifs, which the same engines find exactly.
"""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import pad

from momos.vq import cpu

UNUSED = 0.5  # usage assumed of a motif that no block uses


def nearest(
    blocks: Float[Tensor, "m s"], motifs: Float[Tensor, "k s"]
) -> Int[Tensor, " m"]:
    """Index of the motif nearest to each block, on the device of `blocks`.

    float64 distances that overflow or underflow compare as they come out, as in the reference.

    Raises:
        ValueError: if there are no motifs, the block sizes or devices differ, or a value is not
            finite.

    Example:
        >>> blocks = torch.tensor([[0.1, 0.0], [0.9, 1.2]])
        >>> momos.nearest(blocks, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        tensor([0, 1])
    """
    return searcher(motifs)(blocks).long()


def nearest_reference(
    blocks: Float[Tensor, "m s"], motifs: Float[Tensor, "k s"]
) -> Int[Tensor, " m"]:
    """The definition of `nearest`; m·k float64 values in memory.

    Example:
        >>> blocks, motifs = torch.randn(100, 4), torch.randn(8, 4)
        >>> torch.equal(momos.nearest_reference(blocks, motifs), momos.nearest(blocks, motifs))
        True
    """
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
    if motifs.is_meta:
        raise ValueError("motifs must hold values, got a meta tensor")
    if count := int((~torch.isfinite(motifs)).sum()):
        raise ValueError(
            f"motifs must be finite, got {count} values that are NaN or infinite"
        )
    motifs = motifs.detach()
    size = motifs.shape[1] - padded
    make = _MAKERS.get(motifs.device.type, _hosted_searcher)
    search = make(motifs, padded=padded)

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


def code_lengths(usage: Int[Tensor, " k"]) -> Float64[Tensor, " k"]:
    """Bits that an ideal code spends on each motif: −log2 of its share of the usage.

    A motif that no block uses counts as used half a time: expensive, but still selectable.
    """
    counts = usage.double().clamp(min=UNUSED)
    return counts.sum().log2() - counts.log2()


def longer_motifs(
    motifs: Float[Tensor, "k s"], penalties: Float64[Tensor, " k"]
) -> Float[Tensor, "k s+1"]:
    """`motifs` with the root of their penalty as one more coordinate.

    The least penalty is subtracted from all of them, which changes no comparison.
    """
    roots = (penalties - penalties.min()).sqrt()
    return torch.cat([motifs, roots.to(motifs.dtype)[:, None]], 1)


def penalized_searcher(
    motifs: Float[Tensor, "k s"], penalties: Float64[Tensor, " k"]
) -> Callable[[Tensor], Tensor]:
    """Like `searcher`, but minimizes squared distance + penalty of the motif.

    By definition the nearest of `longer_motifs` to the blocks with a 0 appended; ties go to the
    lowest index.
    """
    return searcher(longer_motifs(motifs, penalties), padded=True)


def rated_searcher(
    motifs: Float[Tensor, "k s"], usage: Int[Tensor, " k"], rate_weight: float
) -> Callable[[Tensor], Tensor]:
    """Like `searcher`, but minimizes squared distance + `rate_weight` · code length.

    With a weight of 0 it is `searcher`.

    Raises:
        ValueError: if the shapes do not fit each other, or the weight is negative.
    """
    if tuple(usage.shape) != (len(motifs),):
        raise ValueError(
            f"usage must have one count for each of {len(motifs)} motifs, got shape "
            f"{tuple(usage.shape)}"
        )
    if rate_weight < 0:
        raise ValueError(f"rate_weight must be at least 0, got {rate_weight}")
    if rate_weight == 0:
        return searcher(motifs)
    return penalized_searcher(motifs, rate_weight * code_lengths(usage))


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


def _cuda_searcher(motifs: Tensor, *, padded: bool) -> Callable[[Tensor], Tensor]:
    from momos.vq import triton  # compiled on first use, so imported on first use

    search = triton.searcher(motifs)

    def finite(blocks: Tensor) -> Tensor:
        if not bool(torch.isfinite(blocks).all()):
            raise FloatingPointError("blocks must be finite")
        return search(pad(blocks, (0, 1)) if padded else blocks)

    return finite


def _hosted_searcher(motifs: Tensor, *, padded: bool) -> Callable[[Tensor], Tensor]:
    """On devices without an engine: the CPU's, since not all of them have float64."""
    _warn_of_host(motifs.device.type)
    search = cpu.searcher(motifs.cpu(), padded=padded)
    return lambda blocks: search(blocks.cpu()).to(motifs.device)


@cache
def _warn_of_host(kind: str) -> None:
    warnings.warn(
        f"momos has no engine for {kind}: blocks are copied to the CPU and searched there, "
        "which is slow",
        UserWarning,
        stacklevel=5,
    )


_MAKERS = {"cpu": cpu.searcher, "cuda": _cuda_searcher}
