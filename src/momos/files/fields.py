"""JSON values of unknown origin, each checked to be of the type that it must have."""

from collections.abc import Iterator
from typing import Any

import torch

from momos.codec import DEFLATE, PACK_VALUES, RATES, STREAM_SYMBOLS
from momos.files.manifest import DTYPES, Coded, Packs

MOST_DIMENSIONS = 64
MOST_NUMBER = 1 << 62
FIXED_BYTES, SYMBOL_BYTES = (
    64,
    4,
)  # a coded part takes at most these, for each symbol the second


class Fields:
    """The values of one JSON object, each of the type that it must have."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be an object, got {short_of(value)}")
        self.value: dict[str, Any] = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def any(self, key: str) -> Any:
        if key not in self.value:
            raise ValueError(f"{self.where} must have {key!r}")
        return self.value[key]

    def whole(self, key: str, *, least: int = 0, most: int = MOST_NUMBER) -> int:
        return whole_of(self.any(key), f"{key!r} of {self.where}", least, most)

    def text(self, key: str) -> str:
        return text_of(self.any(key), f"{key!r} of {self.where}")

    def rows(self, key: str) -> list[Any]:
        return rows_of(self.any(key), f"{key!r} of {self.where}")

    def dtype(self, key: str) -> torch.dtype:
        name = self.text(key)
        if name not in DTYPES:
            raise ValueError(f"{key!r} of {self.where} must name a dtype, got {name!r}")
        return DTYPES[name]

    def coded(
        self, key: str, count: int, *, most_rate: int = RATES.stop - 1
    ) -> tuple[Coded, ...]:
        """The streams of `count` symbols."""
        where = f"{key!r} of {self.where}"
        rows, wanted = self.rows(key), -(-count // STREAM_SYMBOLS)
        if len(rows) != wanted:
            raise ValueError(f"{where} must be {wanted} streams, got {len(rows)}")
        counts = _counts(count, STREAM_SYMBOLS)
        return tuple(
            _coded(row, where, most_rate, n) for row, n in zip(rows, counts, strict=True)
        )

    def packs(self, key: str, count: int, dtype: torch.dtype) -> Packs:
        """The packs of `count` values."""
        where = f"{key!r} of {self.where}"
        rows, wanted = self.rows(key), -(-count // PACK_VALUES)
        if len(rows) != wanted:
            raise ValueError(f"{where} must be {wanted} packs, got {len(rows)}")
        packs = []
        for row, n in zip(rows, _counts(count, PACK_VALUES), strict=True):
            planes = rows_of(row, where)
            if len(planes) != dtype.itemsize:
                raise ValueError(
                    f"{where} must have {dtype.itemsize} planes a pack, got {len(planes)}"
                )
            packs.append(tuple(_coded(plane, where, DEFLATE, n) for plane in planes))
        return tuple(packs)


def _counts(count: int, most: int) -> Iterator[int]:
    """The lengths of parts of `most` symbols, the last shorter, of `count` symbols."""
    return (min(most, count - start) for start in range(0, count, most))


def _coded(value: object, where: str, most_rate: int, count: int) -> Coded:
    """The rate and length of `count` symbols, of which no coder makes more bytes than that."""
    pair = rows_of(value, where)
    if len(pair) != 2:
        raise ValueError(f"{where} must hold pairs of rate and bytes, got {short_of(pair)}")
    most = FIXED_BYTES + SYMBOL_BYTES * count
    return whole_of(pair[0], where, 0, most_rate), whole_of(pair[1], where, 0, most)


def whole_of(value: object, where: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"{where} must be an integer {least} to {most}, got {short_of(value)}"
        )
    return value


def rows_of(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, got {short_of(value)}")
    return value


def text_of(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} must be a string, got {short_of(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} must be UTF-8, got {short_of(value)}") from None
    return value


def short_of(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
