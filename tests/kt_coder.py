"""Codes as bits: what the lengths of `momos.complexity` promise, written down and read back.

constriction does the arithmetic; the models are the definitions, one symbol at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import constriction
import numpy as np
import torch
from torch import Tensor

from momos.complexity.views import FORMATS

Categorical = constriction.stream.model.Categorical
Uniform = constriction.stream.model.Uniform
WIDEST = 16  # bits written at once


def float_fields(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sign, biased exponent and mantissa of each float, as numbers from 0."""
    form = FORMATS[weight.dtype]
    bits = weight.contiguous().view(form.bits)
    exponent = (bits >> form.mantissa) & ((1 << form.exponent) - 1)
    return (bits < 0).to(torch.uint8), exponent, bits & ((1 << form.mantissa) - 1)


class Estimator:
    """Krichevsky–Trofimov: a half for every symbol, and one more for each that came."""

    def __init__(self, alphabet: int, order: int):
        self.alphabet, self.order = alphabet, order
        self.counts: dict[tuple[int, ...], np.ndarray] = {}

    def share(self, before: Sequence[int]) -> np.ndarray | None:
        """The probabilities of what comes next; None for the first symbols, which are raw."""
        if len(before) < self.order:
            return None
        counts = self._of(before)
        return (counts + 0.5) / (counts.sum() + self.alphabet / 2)

    def learn(self, before: Sequence[int], symbol: int) -> None:
        if len(before) >= self.order:
            self._of(before)[symbol] += 1

    def _of(self, before: Sequence[int]) -> np.ndarray:
        context = tuple(before[len(before) - self.order :])
        return self.counts.setdefault(context, np.zeros(self.alphabet))


def model_of(share: np.ndarray | None, alphabet: int):
    return Uniform(alphabet) if share is None else Categorical(share, perfect=False)


class Writer:
    def __init__(self):
        self.encoder = constriction.stream.queue.RangeEncoder()

    def symbols(self, symbols: Sequence[int], alphabet: int, order: int = 0) -> None:
        estimator = Estimator(alphabet, order)
        for place, symbol in enumerate(symbols if alphabet > 1 else ()):
            before = symbols[max(0, place - order) : place]
            self.encoder.encode(symbol, model_of(estimator.share(before), alphabet))
            estimator.learn(before, symbol)

    def raw(self, number: int, bits: int) -> None:
        for start in range(0, bits, WIDEST):
            width = min(WIDEST, bits - start)
            self.encoder.encode((number >> start) % (1 << width), Uniform(1 << width))

    def size(self, number: int) -> None:
        """Elias's delta code of number + 1."""
        length = (number + 1).bit_length()
        steps = length.bit_length() - 1
        for place in reversed(range(2 * steps + 1)):
            self.raw((length >> place) & 1, 1)
        self.raw((number + 1) % (1 << (length - 1)), length - 1)

    def words(self) -> np.ndarray:
        return self.encoder.get_compressed()


@dataclass
class Reader:
    words: np.ndarray

    def __post_init__(self):
        self.decoder = constriction.stream.queue.RangeDecoder(self.words)

    def symbols(self, count: int, alphabet: int, order: int = 0) -> list[int]:
        estimator, read = Estimator(alphabet, order), []
        if alphabet == 1:
            return [0] * count
        for place in range(count):
            before = read[max(0, place - order) :]
            symbol = int(self.decoder.decode(model_of(estimator.share(before), alphabet)))
            estimator.learn(before, symbol)
            read.append(symbol)
        return read

    def raw(self, bits: int) -> int:
        number = 0
        for start in range(0, bits, WIDEST):
            width = min(WIDEST, bits - start)
            number |= int(self.decoder.decode(Uniform(1 << width))) << start
        return number

    def size(self) -> int:
        steps = 0
        while not self.raw(1):
            steps += 1
        length = 1
        for _ in range(steps):
            length = 2 * length + self.raw(1)
        return (1 << (length - 1)) + self.raw(length - 1) - 1


def bits_of(words: np.ndarray) -> int:
    return 32 * len(words)
