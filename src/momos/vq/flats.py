"""The blocks of many flat tensors, one tensor after another: read, searched and replaced.

Each tensor is padded by zeros to whole blocks, as a `Layout` has them. On the CPU each function is
one parallel region of compiled code over all tensors (native/parts.hpp), however many there are; on
CUDA it is one launch. Devices without an engine have it done on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor
from torch.nn.functional import pad

from momos.vq import cpu
from momos.vq.gather import gather
from momos.vq.nearest import check_motifs, has_kernels, not_finite, searcher, warn_of_host

WIDE = (torch.float32, torch.float64)
FEW = 32_767  # values that torch does not share among threads, which wait for one another
MANY = 1 << 20  # values that are worth threads
AT_ONCE = 1 << 24  # blocks that a device searches at once


@dataclass(frozen=True, eq=False)
class Found:
    """The motif of each block; on a device, how many tensors were not finite, not yet waited for."""

    indices: Int32[Tensor, " m"]
    refused: Int[Tensor, ""] | None = None
    tables: list[Any] | None = None  # where the tensors are


def take(
    flats: Sequence[Float[Tensor, " n"]], rows: Int[Tensor, " r"], block_size: int
) -> Float[Tensor, "r s"] | None:
    """The blocks at `rows`; None for tensors of several dtypes, or without an engine."""
    if len({flat.dtype for flat in flats}) > 1:
        return None
    if _on_cpu(flats):
        return cpu.take(flats, rows, block_size)
    if not has_kernels(flats[0].device):
        return None
    from momos.vq import rewriting  # compiled on first use, so imported on first use

    (table,) = rewriting.tables(flats, block_size)
    return rewriting.take(table, rows.to(flats[0].device))


@torch.no_grad()
def assign(flats: Sequence[Float[Tensor, " n"]], motifs: Float[Tensor, "k s"]) -> Found:
    """Index of the motif nearest to each block, as `nearest` finds it.

    Raises:
        ValueError: as `nearest` does.
    """
    device = motifs.device
    if has_kernels(device):
        return _assign_there(flats, motifs)
    check_motifs(motifs)
    if device.type != "cpu":
        warn_of_host(device.type)
    try:
        found = cpu.assign([flat.detach().cpu() for flat in flats], motifs.detach().cpu())
    except FloatingPointError:
        raise not_finite(flats) from None
    return Found(found.to(device))


def _assign_there(flats: Sequence[Tensor], motifs: Tensor) -> Found:
    """The same on a device: it waits once, for what is said of the motifs."""
    from momos.vq import grid, rewriting

    size = motifs.shape[1]
    if size <= 2 and len(motifs) and motifs.is_floating_point():
        made = grid.Grid.of(motifs)
        finite = torch.isfinite(motifs).all().double()
        good, candidates = torch.stack([finite, made.candidates()]).tolist()
        if good and candidates <= grid.MOST_CANDIDATES:
            indices, tables = _room(flats, size), rewriting.tables(flats, size)
            flags = [grid.assign(made, table, out=indices) for table in tables]
            return Found(indices, torch.cat(flags).sum(), tables)
    search = searcher(motifs)
    whole = torch.cat([_padded(flat, size) for flat in flats])  # promotes dtypes
    return Found(torch.cat([search(part).int() for part in whole.split(AT_ONCE)]))


@torch.no_grad()
def rewrite_(
    flats: Sequence[Float[Tensor, " n"]], motifs: Float[Tensor, "k s"], found: Found
) -> tuple[float, int]:
    """Replaces each block by its motif, in the dtype of its tensor.

    Returns the sum of the squared differences in float64, and how many values changed.

    Raises:
        ValueError: if a value was not finite. Nothing is replaced then.
    """
    if has_kernels(motifs.device):
        return _rewrite_there_(flats, motifs, found)
    indices = found.indices
    if not _on_cpu(flats):
        here = [flat.cpu() for flat in flats]
        result = rewrite_(here, motifs.cpu(), Found(indices.cpu()))
        for flat, values in zip(flats, here, strict=True):
            flat.copy_(values)
        return result
    dtype = motifs.dtype
    if dtype in WIDE and all(flat.dtype == dtype for flat in flats):
        return cpu.rewrite_(flats, motifs, indices)
    return _converted_(flats, motifs, indices)


def _rewrite_there_(
    flats: Sequence[Tensor], motifs: Tensor, found: Found
) -> tuple[float, int]:
    """The same on a device: it waits once, for the sums."""
    from momos.vq import rewriting

    refused = found.refused
    if refused is None:
        refused = found.indices.new_zeros(())
    tables = found.tables or rewriting.tables(flats, motifs.shape[1])
    sums = [rewriting.rewrite(table, motifs, found.indices, refused) for table in tables]
    total = torch.stack(sums).sum(0)
    for flat in flats:
        torch.autograd.graph.increment_version(flat)
    distortion, moved, wrong = torch.cat([total, refused.double()[None]]).tolist()
    if wrong:
        raise not_finite(flats)
    return distortion, int(moved)


def _room(flats: Sequence[Tensor], block_size: int) -> Int32[Tensor, " m"]:
    count = sum(-(-len(flat) // block_size) for flat in flats)
    return torch.empty(count, dtype=torch.int32, device=flats[0].device)


def _padded(flat: Tensor, block_size: int) -> Tensor:
    short = -len(flat) % block_size
    return (pad(flat, (0, short)) if short else flat).view(-1, block_size)


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
