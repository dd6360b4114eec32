"""The usage table: how often each motif is used, rounded, as a decoder must know it.

Rounding to a few significant bits makes the table several times shorter and the indices hardly
longer; how many are best depends on how many blocks a motif has.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from momos.codec.streams import (
    STREAM_SYMBOLS,
    CorruptError,
    Model,
    Stream,
    decode_parts,
    encode_all,
)

EXPONENTS = 48  # a usage is below 2^48
SIGNIFICANT = range(1, 7)


@dataclass(frozen=True)
class UsageTable:
    """Usage rounded to `significant` bits, and the streams that code it."""

    significant: int
    streams: list[Stream]
    usage: Int[Tensor, " k"]


def choose_usage_table(usage: Int[Tensor, " k"]) -> UsageTable | None:
    """The table that makes table and indices shortest together.

    None if no table pays: then all motifs start with the same weight.
    """
    used = usage > 0
    counts = usage[used].double()

    def indices_bits(weights: Tensor) -> float:
        """Bits of the indices where motifs have their shares of `weights`."""
        shares = weights[used].double() / float(weights.sum())
        return float(-(counts * shares.log2()).sum())

    shortest, best = indices_bits(torch.ones_like(usage)), None
    for significant in SIGNIFICANT if len(counts) else ():
        rounded = round_usage(usage, significant)
        tokens = _tokens(rounded, significant)
        streams = encode_all(Model.uniform(_num_tokens(significant)), tokens)
        bits = indices_bits(rounded) + sum(8 * len(stream.data) for stream in streams)
        if bits < shortest:
            shortest, best = bits, UsageTable(significant, streams, rounded)
    return best


def read_usage_table(
    streams: list[Stream], num_motifs: int, *, significant: int
) -> UsageTable:
    """The table that `streams` code.

    Raises:
        CorruptError: if they code no table of that many motifs.
    """
    usage = torch.empty(num_motifs, dtype=torch.int64, device="cpu")
    model = Model.uniform(_num_tokens(significant))
    found = decode_parts(model, streams, num_motifs, torch.int16)
    for part, tokens in zip(usage.split(STREAM_SYMBOLS), found, strict=True):
        part.copy_(_usage_of(tokens.long(), significant))
        if not torch.equal(_tokens(part, significant), tokens):
            raise CorruptError("every usage must have its one token")
    if not int(usage.max()):
        raise CorruptError("one motif at least must be used")
    return UsageTable(significant, streams, usage)


def round_usage(usage: Int[Tensor, " k"], significant: int) -> Int[Tensor, " k"]:
    """`usage` to the nearest number of `significant` bits, halves upwards."""
    _, length = torch.frexp(usage.double())
    shift = (length.long() - significant).clamp(min=0)
    half = (torch.ones_like(usage) << shift) >> 1
    return ((usage + half) >> shift) << shift


def _num_tokens(significant: int) -> int:
    return 1 + (EXPONENTS << (significant - 1))


def _usage_of(tokens: Tensor, significant: int) -> Tensor:
    shifted = tokens - 1
    exponent = shifted >> (significant - 1)
    leading = (1 << (significant - 1)) + (shifted & ((1 << (significant - 1)) - 1))
    usage = (leading << exponent.clamp(min=0)) >> (significant - 1)
    return torch.where(tokens > 0, usage, 0)


def _tokens(usage: Tensor, significant: int) -> Tensor:
    """0 for no use; else 1 + exponent and the bits behind the leading one, as one number."""
    _, length = torch.frexp(usage.double())
    exponent = (length.long() - 1).clamp(min=0)
    behind = ((usage << (significant - 1)) >> exponent) - (1 << (significant - 1))
    tokens = 1 + (exponent << (significant - 1)) + behind
    return torch.where(usage > 0, tokens, 0).short()
