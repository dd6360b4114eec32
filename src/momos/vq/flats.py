"""The blocks of many flat tensors, one tensor after another: read, searched and replaced.

Each tensor is padded by zeros to whole blocks, as a `Layout` has them. On the CPU each function is
one parallel region of compiled code over all tensors (native/parts.hpp), however many there are.
Devices without an engine have it done on the CPU.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from momos.vq import cpu
from momos.vq.gather import gather
from momos.vq.nearest import check_motifs, not_finite, warn_of_host

WIDE = (torch.float32, torch.float64)
FEW = 32_767  # values that torch does not share among threads, which wait for one another
MANY = 1 << 20  # values that are worth threads


def take(
    flats: Sequence[Float[Tensor, " n"]], rows: Int[Tensor, " r"], block_size: int
) -> Float[Tensor, "r s"] | None:
    """The blocks at `rows`; None unless all tensors are on the CPU and of one dtype."""
    if not _on_cpu(flats) or len({flat.dtype for flat in flats}) > 1:
        return None
    return cpu.take(flats, rows, block_size)


def assign(
    flats: Sequence[Float[Tensor, " n"]], motifs: Float[Tensor, "k s"]
) -> Int32[Tensor, " m"]:
    """Index of the motif nearest to each block, as `nearest` finds it.

    Raises:
        ValueError: as `nearest` does.
    """
    check_motifs(motifs)
    device = motifs.device
    if device.type != "cpu":
        warn_of_host(device.type)
    try:
        found = cpu.assign([flat.detach().cpu() for flat in flats], motifs.detach().cpu())
    except FloatingPointError:
        raise not_finite(flats) from None
    return found.to(device)


@torch.no_grad()
def rewrite_(
    flats: Sequence[Float[Tensor, " n"]],
    motifs: Float[Tensor, "k s"],
    indices: Int32[Tensor, " m"],
) -> tuple[float, int]:
    """Replaces each block by its motif, in the dtype of its tensor.

    Returns the sum of the squared differences in float64, and how many values changed.
    """
    if not _on_cpu(flats):
        here = [flat.cpu() for flat in flats]
        result = rewrite_(here, motifs.cpu(), indices.cpu())
        for flat, values in zip(flats, here, strict=True):
            flat.copy_(values)
        return result
    dtype = motifs.dtype
    if dtype in WIDE and all(flat.dtype == dtype for flat in flats):
        return cpu.rewrite_(flats, motifs, indices)
    return _converted_(flats, motifs, indices)


def _converted_(
    flats: Sequence[Tensor], motifs: Tensor, indices: Tensor
) -> tuple[float, int]:
    """`rewrite_` for motifs of another dtype than the tensors."""
    size, start, distortion, moved = motifs.shape[1], 0, 0.0, 0
    for flat in flats:
        step = (MANY if len(flat) >= MANY else FEW) // size or 1
        own = indices[start : start - (-len(flat) // size)]
        start += len(own)
        parts = zip(flat.split(step * size), own.split(step), strict=True)
        for old, some in parts:
            new = gather(motifs, some).view(-1)[: len(old)].to(old.dtype)
            distortion += float((old.double() - new.double()).square_().sum())
            moved += int((old != new).sum())
            old.copy_(new)
    return distortion, moved


def _on_cpu(flats: Sequence[Tensor]) -> bool:
    return all(flat.device.type == "cpu" for flat in flats)
