"""BDM, the block decomposition method: a score of binary arrays (Zenil et al. 2018).

The sum over distinct blocks of `CTM(block) + log2(occurrences)`, with the values of pybdm 0.1.0.
It is a score and not a number of bits: it stops growing once every block has occurred, falls far
below the entropy of long inputs, and does not see the order of the blocks. Never compare it
across lengths. `ordered_bdm` is the code made of the same counts.
"""

from collections.abc import Iterator
from math import log2
from typing import Literal

import numpy as np
from jaxtyping import Float64

from momos.complexity.counts import Cells, Counts, binary, check, count, tiles
from momos.complexity.tables import LONGEST, WIDEST, sequence_table, square_table

Boundary = Literal["ignore", "recursive", "correlated"]
BOUNDARIES = ("ignore", "recursive", "correlated")
SHORTEST = 2  # cells on a side of the smallest block that the recursion looks up
Table = Float64[np.ndarray, " _"]  # of as many blocks as there are of one size
Part = tuple[Table, Counts]


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
        TypeError: if `bits` are no array or tensor of booleans or integers.
        ValueError: if a value is neither 0 nor 1, there are too few cells for a block, or
            normalization is not defined.
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
    """The score of `number` blocks that are as different and as complex as can be."""
    falling = np.sort(table)[::-1]
    rounds, more = divmod(number, len(table))
    value = float(falling[:more].sum()) + more * log2(rounds + 1)
    if rounds:
        value += float(falling[more:].sum()) + (len(table) - more) * log2(rounds)
    return value
