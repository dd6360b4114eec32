"""The code whose length is `ordered_bdm`, really written and read: proof that it is one.

An arithmetic coder on Python's integers, which knows of `momos` only what a decoder must have:
the lengths of the blocks. The string is a prefix code: whatever follows it is not read.
"""

import math

import numpy as np

from momos.complexity.bdm import block_lengths

EDGES = {1: 12, 2: 4}
PRECISION = 1 << 48  # of probabilities that are no fractions


class Writer:
    """Narrows the interval [low, low + width) · 2^−digits by one symbol after the other."""

    def __init__(self) -> None:
        self.low, self.width, self.digits = 0, 1 << 96, 96

    def put(self, start: int, size: int, total: int) -> None:
        unit = self.width // total
        self.low += unit * start
        self.width = unit * size
        while self.width < 1 << 64:
            self.low, self.width, self.digits = (
                self.low << 32,
                self.width << 32,
                self.digits + 32,
            )

    def finish(self) -> str:
        """The shortest string all of whose continuations lie in the interval."""
        for spare in range(self.digits, -1, -1):
            value = -(-self.low >> spare)
            if (value + 1) << spare <= self.low + self.width:
                return (
                    format(value, f"0{self.digits - spare}b") if spare < self.digits else ""
                )
        raise AssertionError


class Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 96
        self.value, self.width = self._digits(0, 96), 1 << 96

    def peek(self, total: int) -> int:
        return self.value // (self.width // total)

    def take(self, start: int, size: int, total: int) -> None:
        unit = self.width // total
        self.value -= unit * start
        self.width = unit * size
        while self.width < 1 << 64:
            self.value = self.value << 32 | self._digits(self.at, 32)
            self.width <<= 32
            self.at += 32

    def uniform(self, total: int) -> int:
        symbol = self.peek(total)
        self.take(symbol, 1, total)
        return symbol

    def _digits(self, start: int, number: int) -> int:
        return int(self.text[start : start + number].ljust(number, "0"), 2)


def encode(bits: np.ndarray) -> str:
    writer, edge = Writer(), EDGES[bits.ndim]
    tiles = split(bits)
    for side in bits.shape:
        put_gamma(writer, side // edge + 1)
        writer.put(side % edge, 1, edge)
    for cell in bits[outside(bits.shape)]:
        writer.put(int(cell), 1, 2)
    if len(tiles):
        found, order = np.unique(tiles, return_inverse=True)
        writer.put(len(found) - 1, 1, len(block_lengths(bits.ndim)))
        put_set(writer, {int(block) for block in found}, bits.ndim)
        seen = np.ones(len(found), np.int64)  # twice (occurrences + 1/2)
        for symbol in order:
            writer.put(int(seen[:symbol].sum()), int(seen[symbol]), int(seen.sum()))
            seen[symbol] += 2
    return writer.finish()


def decode(text: str, ndim: int) -> np.ndarray:
    reader, edge = Reader(text), EDGES[ndim]
    shape = []
    for _ in range(ndim):
        blocks = take_gamma(reader) - 1
        shape.append(blocks * edge + reader.uniform(edge))
    bits = np.zeros(shape, np.uint8)
    rest = outside(bits.shape)
    bits[rest] = [reader.uniform(2) for _ in range(rest.sum())]
    number = math.prod(side // edge for side in shape)
    if number:
        distinct = reader.uniform(len(block_lengths(ndim))) + 1
        found = take_set(reader, distinct, ndim)
        seen = np.ones(distinct, np.int64)
        tiles = []
        for _ in range(number):
            ends = seen.cumsum()
            symbol = int(np.searchsorted(ends, reader.peek(int(ends[-1])), side="right"))
            reader.take(int(ends[symbol] - seen[symbol]), int(seen[symbol]), int(ends[-1]))
            seen[symbol] += 2
            tiles.append(found[symbol])
        join(bits, tiles)
    return bits


# Whole blocks and what is beside them


def outside(shape: tuple[int, ...]) -> np.ndarray:
    mask = np.ones(shape, bool)
    mask[tuple(slice(side - side % EDGES[len(shape)]) for side in shape)] = False
    return mask


def split(bits: np.ndarray) -> np.ndarray:
    """The blocks, each as an integer."""
    return np.array(
        [int("".join(map(str, bits[place].flat)), 2) for place in places(bits.shape)], int
    )


def join(bits: np.ndarray, tiles: list[int]) -> None:
    for place, block in zip(places(bits.shape), tiles, strict=True):
        digits = format(block, f"0{bits[place].size}b")
        bits[place] = np.array([int(digit) for digit in digits]).reshape(bits[place].shape)


def places(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    edge = EDGES[len(shape)]
    starts = np.ndindex(*(side // edge for side in shape))
    return [tuple(slice(edge * i, edge * i + edge) for i in start) for start in starts]


# Elias's gamma code: as many zeros as digits follow the first, then the digits


def put_gamma(writer: Writer, value: int) -> None:
    for digit in "0" * (value.bit_length() - 1) + format(value, "b"):
        writer.put(int(digit), 1, 2)


def take_gamma(reader: Reader) -> int:
    zeros = 0
    while not reader.uniform(2):
        zeros += 1
    value = 1
    for _ in range(zeros):
        value = value << 1 | reader.uniform(2)
    return value


# A set of distinct blocks, as how often each is drawn in as many draws: 0 or 1 times. The
# binomial probabilities of all blocks in turn multiply to U! · prod 2^−c.


def chances(ndim: int) -> np.ndarray:
    """The probability of each block where none before it is drawn."""
    chance = np.exp2(-block_lengths(ndim))
    return chance / chance[::-1].cumsum()[::-1]


def sizes(chance: float, draws: int) -> tuple[int, int]:
    """The parts of `PRECISION` + 2 for 0 and 1 times; the rest, for more, is never used."""
    none = (1 - chance) ** draws
    once = draws * chance * (1 - chance) ** (draws - 1)
    return max(1, int(none * PRECISION)), max(1, int(once * PRECISION))


def put_set(writer: Writer, found: set[int], ndim: int) -> None:
    draws = len(found)
    for block, chance in enumerate(chances(ndim).tolist()):
        if not draws:
            return
        none, once = sizes(chance, draws)
        if block in found:
            writer.put(none, once, PRECISION + 2)
            draws -= 1
        else:
            writer.put(0, none, PRECISION + 2)


def take_set(reader: Reader, draws: int, ndim: int) -> list[int]:
    found = []
    for block, chance in enumerate(chances(ndim).tolist()):
        if not draws:
            break
        none, once = sizes(chance, draws)
        if reader.peek(PRECISION + 2) < none:
            reader.take(0, none, PRECISION + 2)
        else:
            reader.take(none, once, PRECISION + 2)
            found.append(block)
            draws -= 1
    return found
