"""Ordered BDM: a code, in bits, made of the CTM values and counts that BDM adds up.

Where BDM pays `log2(occurrences)` for a block that occurs again, this pays for the place of each
occurrence, so that the input could be decoded: tests/ordered_bdm_coder.py does.
"""

from functools import cache
from math import lgamma, log, log2, prod

import numpy as np
from jaxtyping import Float64

from momos.complexity.codes import kt_from_counts
from momos.complexity.counts import Cells, Counts, binary, tiles
from momos.complexity.tables import LONGEST, WIDEST, sequence_table, square_table


def ordered_bdm(bits: Cells, *, ndim: int = 1) -> float:
    """The length, in bits, of a code of `bits` by sequences of 12 or squares of 4 by 4 cells.

    It keeps BDM's belief that simple blocks are likely, comes down to the entropy of the blocks
    as the input grows, and unlike BDM does not fall below the entropy of its source. Each line
    is sent with what those above have told; N is the number of blocks, U of distinct ones:

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
        TypeError: if `bits` are no array or tensor of booleans or integers.
        ValueError: if a value is neither 0 nor 1, or `ndim` is 2 and `bits` are no matrix.
    """
    cells = binary(bits, ndim)
    return ordered_length(tiles(cells), tuple(cells.shape))


def ordered_length(counts: Counts, shape: tuple[int, ...]) -> float:
    """`ordered_bdm` of bits of this shape whose blocks `block_counts` counted, in any pieces.

    Raises:
        ImportError: if pybdm, which has the tables, is not installed.
        ValueError: if `counts` are not those of all whole blocks of this shape.
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
