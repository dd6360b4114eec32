"""Symbols to a stream of bytes and back, by asymmetric numeral systems (Duda 2013).

A `Model` gives each symbol a share of the slots by its weight. At rate 0 the shares stay; at
rate e every occurrence in the stream adds 2^(e-1) to its symbol's weight when the next table is
made, so that a stream learns what is usual in it. The compiled coder is native/rans.hpp.
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


class CorruptError(ValueError):
    """Bytes that no encoder wrote."""


@dataclass(frozen=True)
class Stream:
    """The bytes of a stream, and the rate at which its model learns."""

    rate: int
    data: bytes


class Model:
    """What streams start from: a weight of 0 or more for each symbol.

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
    """The memory of `symbols` as bytes; unsigned and signed are alike there."""
    if not symbols.is_contiguous() or symbols.device.type != "cpu":
        raise ValueError("symbols must be contiguous and on the CPU")
    return raw(symbols).numpy()
