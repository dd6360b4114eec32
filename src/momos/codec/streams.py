"""Codes symbols as a stream of bytes, by asymmetric numeral systems (Duda 2013).

A `Model` gives each symbol a share of the slots by its weight. At rate 0 the shares stay; at
rate e every occurrence in the stream adds 2^(e-1) to its symbol's weight when the next table is
made, so that the model adapts to the stream. The compiled coder is native/rans.hpp.

The usage table tells a decoder how often each motif is used. Rounding to a few significant bits
makes it several times shorter and the indices hardly longer; how many are best depends on how many
blocks a motif has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from momos.codec import _rans

STREAM_SYMBOLS = 1 << 20  # the most symbols of one stream
RATES = range(32)
MOST_WEIGHT = 1 << 56  # all weights of a model together stay below this
MOST_SYMBOLS = 1 << 28
WORTHWHILE = 0.998  # learning takes time, so it must save this much to be chosen
EXPONENTS = 48  # a usage is below 2^48
SIGNIFICANT = range(1, 7)


class CorruptError(ValueError):
    """Raised for bytes that no encoder wrote."""


@dataclass(frozen=True)
class Stream:
    """The bytes of a stream, and the rate at which its model learns."""

    rate: int
    data: bytes


class Model:
    """The initial state of streams: a weight of at least 0 for each symbol.

    Raises:
        ValueError: if there are no symbols or too many, or the weights are negative, all 0, or
            too large.
    """

    def __init__(self, weights: Int[Tensor, " k"]) -> None:
        if not 1 <= len(weights) <= MOST_SYMBOLS:
            raise ValueError(f"a model must have 1 to 2**28 symbols, got {len(weights)}")
        if int(weights.min()) < 0 or int(weights.max()) >= MOST_WEIGHT:
            raise ValueError(
                f"weights must be at least 0 and below 2**56, got {int(weights.min())} to "
                f"{int(weights.max())}"
            )
        self.num_symbols = len(weights)
        self._native = _rans.model(weights.to(torch.int64).cpu().contiguous().numpy())
        self.total = int(weights.sum())  # below 2^56, or there would be no model

    @classmethod
    def uniform(cls, num_symbols: int) -> "Model":
        return cls(torch.ones(num_symbols, dtype=torch.int64, device="cpu"))

    def encode(self, symbols: Integer[Tensor, " n"], *, rate: int) -> Stream:
        """The stream of at most `STREAM_SYMBOLS` symbols.

        Raises:
            ValueError: if there are more symbols than that, or one has no weight.
        """
        data = _rans.encode(self._native, _bytes(symbols), symbols.itemsize, rate)
        return Stream(rate, data)

    def encode_best(self, symbols: Integer[Tensor, " n"]) -> Stream:
        """The stream at the rate that makes it shortest, or at rate 0 where that is as good."""
        return self.encode(symbols, rate=self.choose_rate(symbols)[0])

    def choose_rate(self, symbols: Integer[Tensor, " n"]) -> tuple[int, float]:
        """The rate that makes the stream shortest, and about how many bits it then takes."""
        still = self.cost(symbols, rate=0)
        first_stop = max(64, self.num_symbols // 4)
        if len(symbols) <= first_stop:
            return 0, still
        # A step of total / 1024 lets 1024 occurrences weigh as much as what was known before;
        # the best step is near that, seldom far.
        middle = max(1, (self.total >> 10).bit_length())
        rates = sorted({min(31, max(1, middle + step)) for step in (-4, -2, 0, 2, 4)})
        bits, rate = min((self.cost(symbols, rate=rate), rate) for rate in rates)
        return (rate, bits) if bits < WORTHWHILE * still else (0, still)

    def cost(self, symbols: Integer[Tensor, " n"], *, rate: int) -> float:
        """About how many bits the stream takes."""
        return _rans.cost(self._native, _bytes(symbols), symbols.itemsize, rate)

    def decode(self, stream: Stream, symbols: Integer[Tensor, " n"]) -> None:
        """Fills `symbols` (contiguous, on the CPU) from `stream`.

        Raises:
            CorruptError: if the bytes are not a stream of that many symbols.
        """
        target = _bytes(symbols)
        try:
            _rans.decode(self._native, stream.data, target, symbols.itemsize, stream.rate)
        except ValueError as error:
            raise CorruptError(str(error)) from None
        if symbols.numel() == 1:  # `target` may be a copy
            symbols.copy_(torch.from_numpy(target).view(symbols.dtype))


def encode_all(model: Model, symbols: Integer[Tensor, " n"]) -> list[Stream]:
    """Streams of at most `STREAM_SYMBOLS` symbols each, as short as they get."""
    return [model.encode_best(part) for part in symbols.split(STREAM_SYMBOLS) if len(part)]


def decode_parts(
    model: Model, streams: list[Stream], num_symbols: int, dtype: torch.dtype
) -> Iterator[Integer[Tensor, " n"]]:
    """The symbols of the streams that `encode_all` made, stream by stream.

    Raises:
        CorruptError: if they are not streams of that many symbols.
    """
    needed = -(-num_symbols // STREAM_SYMBOLS)
    if len(streams) != needed:
        raise CorruptError(f"there must be {needed} streams, got {len(streams)}")
    for number, stream in enumerate(streams):
        left = num_symbols - number * STREAM_SYMBOLS
        symbols = torch.empty(min(left, STREAM_SYMBOLS), dtype=dtype, device="cpu")
        model.decode(stream, symbols)
        yield symbols


def raw(values: Tensor) -> Tensor:
    """The memory of flat, contiguous values as bytes.

    A single value may be contiguous with any stride; it is copied then.
    """
    if values.numel() < 2 and values.stride(-1) != 1:
        values = values.clone(memory_format=torch.contiguous_format)
    return values.detach().view(torch.uint8)


def _bytes(symbols: Tensor) -> np.ndarray:
    """The memory of `symbols` as bytes, for signed and unsigned dtypes alike."""
    if not symbols.is_contiguous() or symbols.device.type != "cpu":
        raise ValueError("symbols must be contiguous and on the CPU")
    return raw(symbols).numpy()


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
    rest = ((usage << (significant - 1)) >> exponent) - (1 << (significant - 1))
    tokens = 1 + (exponent << (significant - 1)) + rest
    return torch.where(usage > 0, tokens, 0).short()
