"""Parses the manifest; every field is checked before anything relies on it.

Unknown keys are ignored: later writers may add what readers can do without.
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

import torch

from momos.blocks import DTYPES as BLOCK_DTYPES
from momos.codec import DEFLATE, PACK_VALUES, RATES, SIGNIFICANT, STREAM_SYMBOLS, inflate
from momos.codec.streams import MOST_SYMBOLS
from momos.config import TRELLISES
from momos.files.manifest import (
    DICTIONARY,
    DTYPES,
    GROWTH,
    LEAST_GROWTH,
    Coded,
    CodedBank,
    Manifest,
    Packs,
    Record,
)

NEW_KEYS = {"order", "states"}  # of motifs, since version 2
MOST_DISTORTION = sys.float_info.max
MOST_DIMENSIONS = 64
MOST_NUMBER = 1 << 62
FIXED_BYTES, SYMBOL_BYTES = (
    64,
    4,
)  # a coded part takes at most these, for each symbol the second


class Fields:
    """One JSON object of unknown origin, whose values are checked to have the right types."""

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
    """Rate and length of a stream of `count` symbols, within what a coder can produce."""
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


def read_manifest(section: bytes, version: int) -> Manifest:
    """The manifest in `section` of a file of that version.

    Raises:
        ValueError: if it is invalid; names the field.
    """
    most = max(LEAST_GROWTH, GROWTH * len(section))
    text = inflate(section, most=most, dictionary=DICTIONARY if version > 1 else b"")
    if len(text) > most:
        raise ValueError(f"must hold at most {most} bytes of JSON, got more")
    fields = Fields(_json(text), "the manifest")
    about = Fields(fields.any("motifs"), "'motifs'") if "motifs" in fields else None
    if about and version == 1:  # what was an unknown key then is one for ever
        about.value = {key: about.value[key] for key in about.value.keys() - NEW_KEYS}
    records = _records(fields, about, version)
    sha256 = fields.text("sha256")
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"'sha256' must be 64 hexadecimal digits, got {short_of(sha256)}")
    return Manifest(
        records=records,
        bank=_bank(about, records) if about else None,
        dense=_dense(fields, records),
        sha256=sha256,
        config=Fields(fields.any("config"), "'config'").value
        if "config" in fields
        else None,
        metadata=_metadata(fields),
        producer=fields.text("producer"),
    )


def _bank(fields: Fields, records: tuple[Record, ...]) -> CodedBank:
    counts = [record.num_scales for record in records if record.stored == "blocks"]
    if not counts:
        raise ValueError("where there are motifs, a tensor must be blocks")
    block_size = fields.whole("block_size", least=1)
    num_motifs = fields.whole("num_motifs", least=1, most=MOST_SYMBOLS)
    dtype, scaled = fields.dtype("dtype"), "scales" in fields
    if dtype not in BLOCK_DTYPES and not (dtype == torch.int8 and scaled):
        raise ValueError(
            f"'dtype' of motifs must be a floating one, or int8 with scales, got {dtype}"
        )
    significant, usage, states = 0, (), _states(fields, block_size)
    ordered = "order" in fields
    if ordered and fields.text("order") != "whole":
        raise ValueError(
            f"'order' of motifs must be 'whole', got {short_of(fields.any('order'))}"
        )
    if ordered and block_size > 1:
        raise ValueError(f"ordered motifs must be of blocks of 1, got {block_size}")
    if states and "usage" in fields:
        raise ValueError("'usage' must not be there where blocks are coded by value")
    if "usage" in fields:
        table = Fields(fields.any("usage"), "'usage'")
        significant = table.whole(
            "significant", least=SIGNIFICANT.start, most=SIGNIFICANT.stop - 1
        )
        usage = table.coded("streams", num_motifs)
    return CodedBank(
        block_size=block_size,
        num_motifs=num_motifs,
        dtype=dtype,
        packs=fields.packs(
            "packs", num_motifs * block_size, torch.uint32 if ordered else dtype
        ),
        scales=fields.packs("scales", sum(counts), torch.float32) if scaled else None,
        num_scales=sum(counts) if scaled else 0,
        significant=significant,
        usage=usage,
        ordered=ordered,
        states=states,
    )


def _states(fields: Fields, block_size: int) -> int:
    """States of the trellis on which blocks are coded by value; 0 if they are not."""
    if "states" not in fields:
        return 0
    states = fields.whole("states")
    if states not in TRELLISES:
        raise ValueError(f"'states' of motifs must be one of {TRELLISES}, got {states}")
    if block_size > 1:
        raise ValueError(f"only blocks of 1 can be coded by value, got {block_size}")
    return states


def _records(fields: Fields, about: Fields | None, version: int) -> tuple[Record, ...]:
    records: dict[str, Record] = {}
    for row in fields.rows("tensors"):
        record = _record(Fields(row, "a tensor"), about, version)
        if record.name in records:
            raise ValueError(f"names must differ, got {record.name!r} twice")
        records[record.name] = record
    for record in records.values():
        if record.stored == "same" and (
            record.same_as not in records or records[record.same_as].stored == "same"
        ):
            raise ValueError(
                f"{record.name!r} must be the same as a stored tensor, got {record.same_as!r}"
            )
    return tuple(records.values())


def _record(fields: Fields, about: Fields | None, version: int) -> Record:
    name = fields.text("name")
    fields.where = f"tensor {name!r}"
    stored = fields.text("stored")
    persistent = fields.value.get("persistent", True)
    if type(persistent) is not bool:
        raise ValueError(f"'persistent' of {fields.where} must be true or false")
    if stored == "same":
        return Record(name, "same", same_as=fields.text("as"), persistent=persistent)
    shape, dtype = _shape(fields), fields.dtype("dtype")
    why = fields.text("why") if "why" in fields else ""
    if stored == "dense":
        return Record(name, "dense", shape, dtype, why=why, persistent=persistent)
    if stored != "blocks":
        raise ValueError(
            f"'stored' of {fields.where} must be known, got {short_of(stored)}"
        )
    count = math.prod(shape)
    if about is None or dtype not in BLOCK_DTYPES or not count:
        raise ValueError(
            f"{fields.where} cannot be blocks: no motifs, or not floating weights"
        )
    axis = 0
    if "axis" in fields and version > 1:
        axis = fields.whole("axis", least=0, most=max(0, len(shape) - 1))
    return Record(
        name,
        "blocks",
        shape,
        dtype,
        streams=fields.coded(
            "streams",
            -(-count // about.whole("block_size", least=1)),
            most_rate=0 if "states" in about else RATES.stop - 1,
        ),
        num_scales=_num_scales(fields, shape, about, axis),
        axis=axis,
        distortion=_distortion(fields),
        energy=_energy(fields),
        why=why,
        persistent=persistent,
    )


def _num_scales(fields: Fields, shape: tuple[int, ...], about: Fields, axis: int) -> int:
    """How many scales a tensor of blocks has, if any tensor has."""
    if "scales" not in fields:
        return 1
    if "scales" not in about:
        raise ValueError(f"'scales' of {fields.where} must not be there without scales")
    count = fields.whole("scales", least=1)
    if count not in (1, *shape[axis : axis + 1]):
        raise ValueError(
            f"'scales' of {fields.where} must be 1 or its dimension {axis}, got {count}"
        )
    return count


def _shape(fields: Fields) -> tuple[int, ...]:
    rows = fields.rows("shape")
    where = f"'shape' of {fields.where}"
    shape = tuple(whole_of(row, where, 0, MOST_NUMBER) for row in rows)
    if len(shape) > MOST_DIMENSIONS or math.prod(max(1, n) for n in shape) > MOST_NUMBER:
        raise ValueError(f"{where} must be that of a tensor, got {short_of(rows)}")
    return shape


def _distortion(fields: Fields) -> float | None:
    if "distortion" not in fields:
        return None
    value = fields.any("distortion")
    if type(value) not in (int, float) or not 0 <= value <= MOST_DISTORTION:
        raise ValueError(f"'distortion' of {fields.where} must be a number of at least 0")
    return float(value)


def _energy(fields: Fields) -> float | None:
    """The sum of squares; anything else under this key is ignored, as older readers do."""
    value = fields.value.get("energy")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MOST_DISTORTION else None


def _dense(
    fields: Fields, records: tuple[Record, ...]
) -> tuple[tuple[torch.dtype, Packs], ...]:
    counts: dict[torch.dtype, int] = {}
    for record in records:
        if record.stored == "dense":
            counts[record.dtype] = counts.get(record.dtype, 0) + record.num_weights
    groups = [Fields(row, "'dense'") for row in fields.rows("dense")]
    found = [group.dtype("dtype") for group in groups]
    if found != list(counts):
        raise ValueError(
            f"'dense' must have one group for each of {list(counts)}, got {found}"
        )
    return tuple(
        (dtype, group.packs("packs", counts[dtype], dtype))
        for dtype, group in zip(found, groups, strict=True)
    )


def _metadata(fields: Fields) -> dict[str, str]:
    if "metadata" not in fields:
        return {}
    value = Fields(fields.any("metadata"), "'metadata'").value
    return {
        text_of(key, "a key of 'metadata'"): text_of(text, f"'metadata' at {key!r}")
        for key, text in value.items()
    }


def _json(text: bytes) -> object:
    try:
        return json.loads(
            text.decode(),
            parse_constant=_finite,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
    except RecursionError:
        raise ValueError("JSON must not be nested so deep") from None


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"numbers must be finite, got {short_of(number)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("keys of an object must differ")
    return value
