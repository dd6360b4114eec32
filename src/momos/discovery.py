"""Recovers the motifs and scales of weights that already are a mosaic, without loss.

Blocks are compared bit by bit, so that 0.0 and -0.0 differ. The last block of a parameter, which
may be shorter, matches any motif that begins with it, and a block of a narrower dtype than that of
the motifs matches any motif that rounds to it. Whole blocks of the widest dtype come first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int, Int32, Real
from torch import Tensor

from momos.blocks import PIECE, Layout, Placement
from momos.config import Scales
from momos.sharded import ShardedLayout
from momos.stored import num_scales

WIDTHS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class _Part:
    """Successive blocks of one length in one tensor: number of the first, and their position."""

    block: int
    tensor: Tensor
    start: int
    stop: int


class NoMosaic(ValueError):
    """Raised if weights are not such a mosaic."""


def distinct_blocks(
    values: Sequence[tuple[Placement, Tensor]],
    block_size: int,
    dtype: torch.dtype,
    *,
    most: int,
    zero_motif: bool,
) -> tuple[Real[Tensor, "k s"], Int32[Tensor, " m"]]:
    """The distinct blocks of the `values` of a layout, in `dtype`, and the index of each block.

    With `zero_motif`, the first is all zeros, whether or not a block is.

    Raises:
        NoMosaic: if there are more than `most`.
        ValueError: if a value is not finite; names the parameter.
    """
    parts: dict[tuple[torch.dtype, int], list[_Part]] = {}
    for place, tensor in values:
        if count := int((~torch.isfinite(tensor)).sum()):
            raise ValueError(
                f"weights must be finite, got {count} of {tensor.numel()} NaN or infinite in "
                f"parameter {place.name!r}"
            )
        whole, rest = divmod(place.num_weights, block_size)
        cut = whole * block_size
        if whole:
            part = _Part(place.start, tensor, 0, cut)
            parts.setdefault((tensor.dtype, block_size), []).append(part)
        if rest:
            part = _Part(place.stop - 1, tensor, cut, place.num_weights)
            parts.setdefault((tensor.dtype, rest), []).append(part)
    num_blocks = values[-1][0].stop
    motifs = torch.zeros(int(zero_motif), block_size, dtype=dtype, device="cpu")
    indices = torch.empty(num_blocks, dtype=torch.int32, device="cpu")
    for kind in sorted(parts, key=lambda kind: _order(kind, dtype)):
        own, written = _distinct(parts[kind], kind[1], most, indices)
        motifs, numbers = _with(motifs, own)
        if len(motifs) > most:
            raise _too_many(most)
        for first, count in written:
            some = indices[first : first + count]
            some.copy_(numbers[some.long()])
    return motifs, indices


def check_finite(layout: Layout, values: Sequence[tuple[Placement, Tensor]]) -> None:
    """Refuses the `values` of a layout if one is not finite, on any rank.

    Raises:
        ValueError: naming the first such parameter.
    """
    counts = torch.zeros(2, len(values), dtype=torch.int64, device="cpu")
    for number, (place, tensor) in enumerate(values):
        if layout.counts(place):
            counts[0, number] = (~torch.isfinite(tensor)).sum()
            counts[1, number] = tensor.numel()
    found = zip(values, *layout.ranks.sum(counts).tolist(), strict=True)
    for (place, _), count, total in found:
        if count:
            raise ValueError(
                f"weights must be finite, got {count} of {total} NaN or infinite in "
                f"parameter {place.name!r}"
            )


def distinct_blocks_of_ranks(
    layout: ShardedLayout,
    flats: Sequence[tuple[Placement, Tensor]],
    *,
    most: int,
    zero_motif: bool,
) -> tuple[Real[Tensor, "k s"], Int32[Tensor, " r"]]:
    """`distinct_blocks` of a sharded model: the same motifs, and the index of each row here.

    Each rank sends its distinct blocks, of which there are at most `most`.
    """
    size, dtype = layout.block_size, layout.dtype
    motifs = torch.zeros(int(zero_motif), size, dtype=dtype, device="cpu")
    indices = torch.empty(layout.num_rows, dtype=torch.int32, device="cpu")
    kinds = {(p.dtype, size) for p in layout.whole.placements if p.num_weights >= size}
    kinds |= {
        (p.dtype, p.num_weights % size)
        for p in layout.whole.placements
        if p.num_weights % size
    }
    for kind in sorted(kinds, key=lambda kind: _order(kind, dtype)):
        parts = list(_rows_of_kind(layout, flats, kind))
        found = torch.empty(0, kind[1], dtype=kind[0], device="cpu"), indices[:0].long()
        for _, numbers, rows in parts:
            if len(found[0]) <= most:
                found = _first_of_each(found, (rows, numbers))
        if layout.ranks.any(len(found[0]) > most):
            raise _too_many(most)
        known = found[0][:0], found[1][:0]
        for others in layout.ranks.each(*found):
            known = _first_of_each(known, others)
            if len(known[0]) > most:
                raise _too_many(most)
        pieces = known[1] // max(PIECE, most)  # in which `distinct_blocks` sees them first
        own = known[0][pieces.sort(stable=True).indices]
        motifs, numbers = _with(motifs, own)
        if len(motifs) > most:
            raise _too_many(most)
        for at, _, rows in parts:
            group, count = _groups(torch.cat([own, rows]))
            number = torch.empty(count, dtype=torch.int32, device="cpu")
            number[group[: len(own)]] = numbers
            indices[at : at + len(rows)] = number[group[len(own) :]]
    return motifs, indices


def _rows_of_kind(
    layout: ShardedLayout,
    flats: Sequence[tuple[Placement, Tensor]],
    kind: tuple[torch.dtype, int],
) -> Iterator[tuple[int, Int[Tensor, " b"], Tensor]]:
    """Pieces of the rows of one dtype and length: where, their numbers among all such blocks, values."""
    dtype, length = kind
    before, size = 0, layout.block_size
    for number, (place, flat) in enumerate(flats):
        whole = layout.whole.placements[number]
        count, rest = divmod(whole.num_weights, size)
        if whole.dtype != dtype or (length < size and rest != length):
            continue
        blocks, _ = layout.rows_of(number)
        full = blocks < count  # all but the last, shorter one
        if length < size:
            if bool((~full).any()):
                yield place.stop - 1, blocks.new_tensor([before]), flat[-rest:].cpu()[None]
            before += 1
            continue
        rows = flat[: int(full.sum()) * size].view(-1, size)
        for first in range(0, len(rows), PIECE):
            some = rows[first : first + PIECE].cpu()
            yield (
                place.start + first,
                before + blocks[first : first + PIECE][: len(some)],
                some,
            )
        before += count


def _first_of_each(
    one: tuple[Tensor, ...], other: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """The distinct rows of both, sorted by their bits, and the lowest number of each."""
    rows, numbers = (torch.cat(both) for both in zip(one, other, strict=True))
    group, count = _groups(rows)
    member = torch.empty(count, dtype=torch.int64, device="cpu")
    member[group] = torch.arange(len(rows), device="cpu")  # any one: all are equal
    first = numbers.new_full((count,), torch.iinfo(torch.int64).max)
    return rows[member], first.scatter_reduce_(0, group, numbers, "amin")


def _order(kind: tuple[torch.dtype, int], wide: torch.dtype) -> tuple[bool, int, str, int]:
    dtype, length = kind
    return dtype != wide, -dtype.itemsize, str(dtype), -length


def _distinct(
    parts: list[_Part], length: int, most: int, indices: Tensor
) -> tuple[Tensor, list[tuple[int, int]]]:
    """The distinct blocks of `parts`, whose numbers are written to `indices`, and where."""
    known = parts[0].tensor.new_empty(0, length, device="cpu")
    written = []
    for places, rows in _pieces(parts, length, max(PIECE, most)):
        both = torch.cat([known, rows])
        group, count = _groups(both)
        number = torch.full((count,), -1, dtype=torch.int64, device="cpu")
        number[group[: len(known)]] = torch.arange(len(known), device="cpu")
        fresh = (number < 0).nonzero()[:, 0]
        number[fresh] = torch.arange(len(known), len(known) + len(fresh), device="cpu")
        member = torch.empty(count, dtype=torch.int64, device="cpu")
        member[group] = torch.arange(len(both), device="cpu")  # any one: all are equal
        own = number[group[len(known) :]].int()
        known = torch.cat([known, both[member[fresh]]])
        if len(known) > most:
            raise _too_many(most)
        for (first, size), numbers in zip(
            places, own.split([size for _, size in places]), strict=True
        ):
            indices[first : first + size] = numbers
        written += places
    return known, written


def _pieces(
    parts: list[_Part], length: int, most: int
) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """Pieces of at most `most` blocks: their positions, and their values on the CPU."""
    places, held, room = [], [], most
    for part in parts:
        rows = part.tensor.reshape(-1)[part.start : part.stop].view(-1, length)
        first = 0
        while first < len(rows):
            some = rows[first : first + room]
            places.append((part.block + first, len(some)))
            held.append(some.cpu())
            first, room = first + len(some), room - len(some)
            if not room:
                yield places, torch.cat(held)
                places, held, room = [], [], most
    if held:
        yield places, torch.cat(held)


def _with(
    motifs: Real[Tensor, "k s"], rows: Real[Tensor, "r l"]
) -> tuple[Real[Tensor, "j s"], Int[Tensor, " r"]]:
    """`motifs` and the distinct `rows` that are the start of none of them; the index of each row."""
    held = motifs[:, : rows.shape[1]].to(rows.dtype)
    group, count = _groups(torch.cat([held, rows]))
    number = torch.full((count,), len(motifs), dtype=torch.int64, device="cpu")
    every = torch.arange(len(motifs), device="cpu")
    number.scatter_reduce_(0, group[: len(motifs)], every, "amin")
    own = number[group[len(motifs) :]]
    fresh = (own == len(motifs)).nonzero()[:, 0]
    own[fresh] += torch.arange(len(fresh), device="cpu")
    padded = motifs.new_zeros(len(fresh), motifs.shape[1])
    padded[:, : rows.shape[1]] = rows[fresh].to(motifs.dtype)
    return torch.cat([motifs, padded]), own.int()


def _groups(rows: Tensor) -> tuple[Tensor, int]:
    """A number for each row, the same for rows of equal bits; and the count of numbers."""
    if not len(rows):
        return torch.empty(0, dtype=torch.int64, device="cpu"), 0
    width = rows.itemsize * rows.shape[1]
    rows = rows.contiguous()
    if width in WIDTHS:  # one number a row sorts much faster
        values, group = torch.unique(rows.view(WIDTHS[width])[:, 0], return_inverse=True)
    else:
        bits = rows.view(WIDTHS[rows.itemsize])
        values, group = torch.unique(bits, dim=0, return_inverse=True)
    return group, len(values)


def _too_many(most: int) -> NoMosaic:
    return NoMosaic(f"weights must be at most {most} distinct blocks, got more")


Steps = tuple[list[tuple[Placement, Tensor]], tuple[Float32[Tensor, " c"], ...]]


def in_steps(
    values: Sequence[tuple[Placement, Tensor]], block_size: int, kind: Scales, bits: int
) -> Steps:
    """Weights as whole numbers (int8) of steps, and the steps: the scales of a learned mosaic.

    A step is the greatest common divisor of the weights it is for. Where those of several
    tensors differ by a factor from the scales that the tensors had, whole blocks would differ
    as well, so each tensor, beginning with the largest, is taken times the number by which it
    shares most blocks with those before.

    Raises:
        NoMosaic: if weights are not whole numbers of `bits` bits; names the parameter.
    """
    most = 2 ** (bits - 1) - 1
    if kind == "none":  # one step for all
        flat = torch.cat([tensor.reshape(-1).double().cpu() for _, tensor in values])
        step = _step(flat.numpy(), most, "all parameters together")
        whole = [(place, _whole(tensor, [step])) for place, tensor in values]
        return whole, tuple(torch.tensor([step], device="cpu") for _ in values)
    known: set[bytes] = set()
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for place, tensor in sorted(values, key=lambda one: -one[0].num_blocks):
        rows = tensor.reshape(num_scales(kind, place.shape), -1).double().cpu().numpy()
        steps = [_step(row, most, f"parameter {place.name!r}") for row in rows]
        whole = _whole(tensor, steps)
        if len(steps) == 1:
            flat = whole.reshape(-1)
            cut = len(flat) // block_size * block_size
            blocks, last = _some_of_each(flat[:cut].view(-1, block_size)), flat[cut:]
            factor = _factor(blocks, last, known, most)
            known |= _names(blocks * factor)
            whole, steps = whole * factor, [steps[0] / factor]
        found[place.name] = whole, torch.tensor(steps, dtype=torch.float32, device="cpu")
    return (
        [(place, found[place.name][0]) for place, _ in values],
        tuple(found[place.name][1] for place, _ in values),
    )


def _step(weights: Float64[np.ndarray, " n"], most: int, name: str) -> float:
    """The greatest number of which all weights are multiples by at most `most`."""
    sizes = np.unique(np.abs(weights[weights != 0]))
    if not len(sizes):
        return 1.0
    if len(sizes) <= most and sizes[-1] <= most * sizes[0]:
        _, exponents = np.frexp(sizes)
        low = int(exponents[0]) - 24  # float32 has as many bits
        numbers = np.ldexp(sizes, -low)
        divisor = int(np.gcd.reduce(numbers.astype(np.int64)))
        if (numbers == np.floor(numbers)).all() and numbers[-1] <= most * divisor:
            return float(np.ldexp(divisor, low))
    raise NoMosaic(f"weights must be -{most} to {most} times a step, got others in {name}")


def _whole(tensor: Tensor, steps: list[float]) -> Tensor:
    divisors = torch.tensor(steps, dtype=torch.float64, device="cpu")[:, None]
    rows = tensor.reshape(len(steps), -1).double().cpu()
    return (rows / divisors).to(torch.int8).view(tensor.shape)


def _factor(blocks: Tensor, last: Tensor, known: set[bytes], most: int) -> int:
    """The number by which the fewest of `blocks`, and of a shorter `last` one, are new."""
    largest = max(int(part.abs().amax()) for part in (blocks, last) if part.numel())

    def new(factor: int) -> int:
        names, begin = _names(blocks * factor), (last * factor).numpy().tobytes()
        begun = any(name.startswith(begin) for name in known | names)
        return len(names - known) + (not begun)

    return min(range(1, most // max(1, largest) + 1 if known else 2), key=new)


def _some_of_each(rows: Tensor) -> Tensor:
    """The distinct rows, in any order."""
    group, count = _groups(rows)
    member = torch.empty(count, dtype=torch.int64, device="cpu")
    member[group] = torch.arange(len(rows), device="cpu")
    return rows[member]


def _names(blocks: Tensor) -> set[bytes]:
    return {row.tobytes() for row in blocks.numpy()}
