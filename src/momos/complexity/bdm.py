"""BDM, the block decomposition method: scores of binary arrays (Zenil et al. 2018).

The sum over distinct blocks of `CTM(block) + log2(occurrences)`, with the values of pybdm 0.1.0.
It is a score and not a number of bits: it stops growing once every block has occurred, falls far
below the entropy of long inputs, and does not see the order of the blocks. Never compare it
across lengths. `ordered_bdm` is the code made of the same counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil, isfinite, lgamma, log, log2, prod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from momos.complexity.codes import kt_from_counts
from momos.complexity.ctm import (
    LONGEST,
    WIDEST,
    Cells,
    Counts,
    binary,
    check,
    count,
    sequence_table,
    square_table,
    tiles,
)

Boundary = Literal["ignore", "recursive", "correlated"]
BOUNDARIES = ("ignore", "recursive", "correlated")
SHORTEST = 2  # cells on a side of the smallest block that the recursion looks up
Table = Float64[np.ndarray, " _"]  # of as many blocks as there are of one size
Part = tuple[Table, Counts]
MOST_BITS = 24  # of an integer that float32 holds
NARROW = 1e-8  # a range below this is quantized to zeros


def bdm(
    bits: Cells,
    *,
    ndim: int = 1,
    boundary: Boundary = "ignore",
    normalized: bool = False,
) -> float:
    """The BDM score of `bits`, as sequences of 12 or (`ndim=2`) squares of 4 by 4 cells.

    `boundary` says what happens to the cells that fill no block: they are left out
    (`"ignore"`), looked up as smaller blocks (`"recursive"`: a sequence of its own length, the
    largest squares that fit), or the blocks that start at every cell are counted
    (`"correlated"`). A tensor on a GPU is counted there.

    `normalized` gives the place of the score between the least and the greatest that as many
    blocks can have. With `"recursive"` a single cell left over counts as a block of that range,
    though not of the score, as it does in pybdm.

    Raises:
        ImportError: if pybdm, which has the tables, is not installed.
        TypeError: if `bits` is not an array or tensor of booleans or integers.
        ValueError: if a value is neither 0 nor 1, there are too few cells for a block, or
            normalization is not defined.

    Example:
        >>> bits = torch.randint(2, (1200,), dtype=torch.bool)
        >>> momos.bdm(bits) > momos.bdm(torch.zeros(1200, dtype=torch.bool))
        True
    """
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {BOUNDARIES}, got {boundary!r}")
    if normalized and boundary == "correlated":
        raise ValueError("normalized must be False for boundary='correlated', got True")
    cells = binary(bits, ndim)
    _check_size(tuple(cells.shape), boundary)
    if boundary != "ignore":
        check(cells)
    if boundary == "ignore":
        parts = [(_table(ndim), tiles(cells))]
    elif boundary == "correlated":
        edge = LONGEST if ndim == 1 else WIDEST
        parts = [(_table(ndim), count(cells, edge, sliding=True))]
    else:
        parts = _sequences(cells) if ndim == 1 else _squares(cells)
    value = sum(_score(table, counts) for table, counts in parts)
    if not normalized:
        return value
    blocks = [(table, int(counts.sum())) for table, counts in parts]
    if boundary == "recursive" and ndim == 1 and len(cells) % LONGEST == 1:
        blocks.append((sequence_table(1), 1))
    return _normalized(value, blocks)


def score(counts: Counts) -> float:
    """The BDM score of what `block_counts` counted, in one piece or in several added up.

    Raises:
        ImportError: if pybdm, which has the tables, is not installed.
        ValueError: if nothing was counted, or `counts` are of other blocks.

    Example:
        >>> bits = torch.arange(1200) % 3 == 0
        >>> momos.complexity.score(momos.complexity.block_counts(bits)) == momos.bdm(bits)
        True
    """
    sizes = {1 << LONGEST: 1, 1 << WIDEST * WIDEST: 2}
    if counts.shape not in {(size,) for size in sizes}:
        raise ValueError(f"counts must have shape (4096,) or (65536,), got {counts.shape}")
    if not counts.any():
        raise ValueError("counts must hold at least one block, got none")
    return _score(_table(sizes[len(counts)]), counts)


def _table(ndim: int) -> Table:
    return sequence_table(LONGEST) if ndim == 1 else square_table(WIDEST)


def _check_size(shape: tuple[int, ...], boundary: Boundary) -> None:
    edge = LONGEST if len(shape) == 1 else WIDEST
    least = SHORTEST if boundary == "recursive" else edge
    if min(shape) < least:
        required, found = (
            "×".join(map(str, sides)) for sides in ([least] * len(shape), shape)
        )
        raise ValueError(
            f"bdm needs at least {required} bits with boundary={boundary!r}, got {found}"
        )


def _sequences(cells: Cells) -> list[Part]:
    """The blocks of 12, and the rest as one block."""
    parts = []
    if len(cells) >= LONGEST:
        parts.append((_table(1), tiles(cells)))
    rest = len(cells) % LONGEST
    if rest >= SHORTEST:
        parts.append((sequence_table(rest), count(cells[-rest:], rest)))
    return parts


def _squares(cells: Cells) -> list[Part]:
    """The squares of 4, and each part cut off by an edge in squares of its own smaller side.

    What those leave is one cell wide at most, and is left out: here the recursion ends.
    """
    totals: dict[int, Counts] = {}
    for edge, counts in _square_counts(cells):
        totals[edge] = totals.get(edge, 0) + counts
    return [(square_table(edge), counts) for edge, counts in totals.items()]


def _square_counts(cells: Cells) -> Iterator[tuple[int, Counts]]:
    (bands, lower), (columns, right) = (divmod(side, WIDEST) for side in cells.shape)
    height, width = bands * WIDEST, columns * WIDEST
    if bands and columns:
        yield WIDEST, tiles(cells)
    strips = (
        cells[:height, width:].reshape(bands, WIDEST, right),
        cells[height:, :width].reshape(lower, columns, WIDEST).swapaxes(0, 1),
        cells[height:, width:][None],
    )
    for strip in strips:
        edge = min(strip.shape[1:])
        if len(strip) and edge >= SHORTEST:
            yield edge, count(strip, edge)


def _score(table: Table, counts: Counts) -> float:
    found = counts > 0
    return float(table[found].sum() + np.log2(counts[found]).sum())


def _normalized(value: float, blocks: list[tuple[Table, int]]) -> float:
    least = sum(float(table.min()) + log2(number) for table, number in blocks)
    greatest = sum(_greatest(table, number) for table, number in blocks)
    if greatest == least:
        raise ValueError("normalized needs blocks of more than one CTM value, got one")
    return (value - least) / (greatest - least)


def _greatest(table: Table, number: int) -> float:
    """The score of `number` blocks that are as diverse and as complex as possible."""
    falling = np.sort(table)[::-1]
    rounds, more = divmod(number, len(table))
    value = float(falling[:more].sum()) + more * log2(rounds + 1)
    if rounds:
        value += float(falling[more:].sum()) + (len(table) - more) * log2(rounds)
    return value


def ordered_bdm(bits: Cells, *, ndim: int = 1) -> float:
    """The length, in bits, of a code of `bits` by sequences of 12 or squares of 4 by 4 cells.

    It keeps BDM's belief that simple blocks are likely, comes down to the entropy of the blocks
    as the input grows, and unlike BDM does not fall below the entropy of its source. Each line
    is coded given those above; N is the number of blocks, U of distinct ones:

    1. for each side, the number b of whole blocks along it: 2·log2(b + 1), or 2 where b is 0,
       and the cells beyond them: log2 of a block's side (12 or 4);
    2. the cells in no block: 1 each;
    3. (where N > 0) U: log2 of the number of different blocks there are (12 or 16);
    4. which blocks they are, as a set: the sum of c − log2(U!), with c = CTM + log2(sum of
       2^−CTM over all blocks), so that the 2^−c are probabilities;
    5. their order, by the estimator of Krichevsky and Trofimov (1981) over U symbols.

    Every line is minus log2 of probabilities that sum to at most 1 (in 1., 1/4 and the sum of
    1/(b + 1)² make 0.89), so there is a prefix code less than 1 bit longer than the whole.

    Raises:
        ImportError: if pybdm, which has the tables, is not installed.
        TypeError: if `bits` is not an array or tensor of booleans or integers.
        ValueError: if a value is neither 0 nor 1, or `ndim` is 2 and `bits` is not a matrix.

    Example:
        >>> bits = torch.arange(12_000) % 2 == 0
        >>> momos.ordered_bdm(bits) < 12_000 / 100
        True
    """
    cells = binary(bits, ndim)
    return ordered_length(tiles(cells), tuple(cells.shape))


def ordered_length(counts: Counts, shape: tuple[int, ...]) -> float:
    """`ordered_bdm` of bits of this shape whose blocks `block_counts` counted, in any pieces.

    Raises:
        ImportError: if pybdm, which has the tables, is not installed.
        ValueError: if `counts` are not those of all whole blocks of this shape.

    Example:
        >>> bits = torch.arange(1200) % 3 == 0
        >>> counts = momos.complexity.block_counts(bits)
        >>> momos.complexity.ordered_length(counts, (1200,)) == momos.ordered_bdm(bits)
        True
    """
    if len(shape) not in (1, 2):
        raise ValueError(f"shape must have 1 or 2 sides, got {shape}")
    edge = LONGEST if len(shape) == 1 else WIDEST
    lengths = block_lengths(len(shape))
    number, required = int(counts.sum()), prod(side // edge for side in shape)
    if counts.shape != lengths.shape or number != required:
        raise ValueError(
            f"counts must be {len(lengths)} that sum to {required} for shape {shape}, got "
            f"shape {counts.shape} and sum {number}"
        )
    header = sum(_side_length(side // edge) + log2(edge) for side in shape)
    rest = prod(shape) - edge ** len(shape) * number
    if not number:
        return header + rest
    lengths, counts = lengths[counts > 0], counts[counts > 0]
    distinct = edge ** len(shape) + float(lengths.sum()) - lgamma(len(counts) + 1) / log(2)
    return header + rest + distinct + kt_from_counts(counts)


@cache
def block_lengths(ndim: int) -> Float64[np.ndarray, " blocks"]:
    """CTM values less a constant, so that 2^−length sums to 1 over the blocks of this size."""
    table = sequence_table(LONGEST) if ndim == 1 else square_table(WIDEST)
    lengths = table + np.log2(np.exp2(-table).sum())
    lengths.flags.writeable = False  # it is shared by all who ask
    return lengths


def _side_length(blocks: int) -> float:
    return 2 * log2(blocks + 1) if blocks else 2.0


@dataclass(frozen=True)
class Qubd:
    """The QuBD score of a matrix: `total` is the sum of `planes`, least significant first.

    `lo` and `hi` are the float32 ends of the range that was quantized.

    Example:
        >>> quantized = momos.qubd(torch.randn(64, 64))
        >>> quantized.total == sum(quantized.planes)
        True
    """

    total: float
    planes: tuple[float, ...]
    shape: tuple[int, int]
    lo: float
    hi: float


def qubd(
    weight: Float[Tensor, "rows *columns"],
    *,
    bits: int = 8,
    percentile: float | None = 99.9,
    rounding: Literal["nearest", "floor"] = "nearest",
) -> Qubd:
    """The sum of the 2-D BDM scores of the `bits` planes of the quantized weights.

    All but the first dimension are flattened. The range is the central `percentile` of the
    weights, or for None all of it, cut into 2^bits − 1 equal steps in float32; a range below
    1e-8 gives zeros. `"floor"` is the quantization of the first public version. A weight on a
    GPU is measured there. Weights of 16 bits count as the same numbers in float32.

    Raises:
        ImportError: if pybdm, which has the tables, is not installed.
        TypeError: if `weight` is not a floating-point tensor.
        ValueError: if it has fewer than 4 rows or columns or a value that is not finite, or an
            argument is out of its range.

    Example:
        >>> quantized = momos.qubd(torch.randn(64, 64))
        >>> len(quantized.planes), quantized.shape
        (8, (64, 64))
    """
    _check_arguments(bits, percentile, rounding)
    matrix = _matrix(weight)
    lo, hi = _range(matrix, percentile)
    if rounding == "nearest":
        codes = _nearest(matrix, lo, hi, bits)
    else:
        codes = _floor(matrix, lo, hi, bits)
    scores = tuple(score(tiles(plane)) for plane in _planes(codes, bits))
    rows, columns = matrix.shape
    return Qubd(sum(scores), scores, (rows, columns), lo.item(), hi.item())


def _nearest(matrix: Tensor, lo: Tensor, hi: Tensor, bits: int) -> Tensor:
    if hi - lo < NARROW:
        return torch.zeros_like(matrix, dtype=torch.uint8)
    levels = (1 << bits) - 1
    step = (hi - lo) / levels
    return _integers((matrix - lo).div_(step).round_().clamp_(0, levels), bits)


def _floor(matrix: Tensor, lo: Tensor, hi: Tensor, bits: int) -> Tensor:
    levels = (1 << bits) - 1
    scaled = torch.clamp(matrix, lo, hi).sub_(lo).div_(hi - lo + NARROW).mul_(levels)
    return _integers(scaled, bits)


def _integers(codes: Tensor, bits: int) -> Tensor:
    return codes.to(torch.uint8 if bits <= 8 else torch.int32)


def _planes(codes: Tensor, bits: int) -> Iterator[Cells]:
    """The bit planes, least significant first, on the device of `codes`."""
    for plane in range(bits):
        cells = (codes >> plane & 1).to(torch.uint8)
        yield cells.numpy() if cells.device.type == "cpu" else cells


def _range(
    matrix: Float32[Tensor, "h w"], percentile: float | None
) -> tuple[Tensor, Tensor]:
    """The ends of the range, after checking every weight."""
    lo, hi = torch.aminmax(matrix)
    for end in (lo.item(), hi.item()):
        if not isfinite(end):
            raise ValueError(f"weight must be finite, got {end}")
    if percentile is not None:
        cut = (1 - percentile / 100) / 2
        lo, hi = _quantiles(matrix, cut, 1 - cut)
    if not isfinite((hi - lo).item()):
        raise ValueError(
            f"the range of weight must fit float32, got {lo.item()} to {hi.item()}"
        )
    return lo, hi


def _quantiles(matrix: Float32[Tensor, "..."], *fractions: float) -> list[Tensor]:
    """As torch.quantile since 2.15; before, it rounded the rank, and all sort and stop at 2^24.

    The fraction is in float32, its rank in float64, and the value between two in float32.
    """
    ranks = [float(np.float32(fraction)) * (matrix.numel() - 1) for fraction in fractions]
    wanted = sorted({end for rank in ranks for end in (int(rank), ceil(rank))})
    found = dict(zip(wanted, _order_statistics(matrix, wanted), strict=True))
    return [
        torch.lerp(found[int(rank)], found[ceil(rank)], float(rank - int(rank)))
        for rank in ranks
    ]


def _order_statistics(matrix: Float32[Tensor, "..."], ranks: list[int]) -> list[Tensor]:
    flat = matrix.flatten()
    if flat.device.type != "cpu":
        return [torch.kthvalue(flat, rank + 1).values for rank in ranks]
    parted = np.partition(flat.numpy(), ranks)
    return [torch.tensor(parted[rank], device="cpu") for rank in ranks]


def _matrix(weight: Tensor) -> Float32[Tensor, "h w"]:
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        found = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"weight must be a floating-point tensor, got {found}")
    if weight.is_meta:
        raise ValueError("weight must hold values, got a meta tensor")
    matrix = weight.detach().resolve_neg()
    if matrix.ndim > 2:
        matrix = matrix.flatten(1)
    if matrix.ndim < 2 or min(matrix.shape) < WIDEST:
        raise ValueError(
            f"weight must have at least {WIDEST} rows and {WIDEST} columns after flatten(1), "
            f"got shape {tuple(weight.shape)}"
        )
    return matrix.float()


def _check_arguments(bits: int, percentile: float | None, rounding: str) -> None:
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"bits must be 1 to {MOST_BITS}, got {bits}")
    if percentile is not None and not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, got {percentile}")
    if rounding not in ("nearest", "floor"):
        raise ValueError(f'rounding must be "nearest" or "floor", got {rounding!r}')
