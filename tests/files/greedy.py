"""Files that honestly announce much more than they are: their headers are as long as they must be.

Zeros cost nothing: a stream of no bytes is the first symbol again and again (docs/format.md, §3).
"""

import hashlib
import random
import zlib
from typing import Any

import reader
import torch
from mutants import Draft, encode

from momos.codec import lattice

EMPTY = dict.fromkeys(reader.SECTIONS[:-1], b"")


def greedy(expanded: int) -> dict[str, bytes]:
    """Files of about `expanded` bytes' content, by what they have much of."""
    k, n = expanded // 12, expanded // 4
    return {
        "motifs": mosaic(k),
        "motifs in a usage table": mosaic(k, table=True),
        "whole motifs": mosaic(expanded // 9, dtype="int8", table=True),
        "wide motifs": mosaic(3, block_size=expanded // 24, dtype="float64"),
        "blocks": mosaic(2, weights=n),
        "narrow weights of wide motifs": mosaic(
            2, block_size=1024, weights=expanded // 2, dtype="float64", to="bfloat16"
        ),
        "indices wider than weights": mosaic(65537, weights=expanded // 2, to="bfloat16"),
        "scales": mosaic(2, weights=n // 2, scales=True),
        "streams that learn": mosaic(1 << 22, weights=(1 << 20) + (1 << 18), rate=8),
        "tensors of few blocks": mosaic(expanded // 24, tensors=200, table=True),
        "blocks by value": by_value(n),
        "dense bytes": dense(expanded, "uint8"),
        "dense complex values": dense(expanded // 16, "complex128"),
        "names": names(50_000),
        "lists": manifest_of("[" + "[]," * 10**6 + "0]"),
        "objects": manifest_of("[" + '{"":0},' * 10**6 + "0]"),
    }


def mosaic(
    num_motifs: int,
    *,
    block_size: int = 1,
    weights: int = 1,
    tensors: int = 1,
    dtype: str = "float32",
    to: str = "float32",
    table: bool = False,
    scales: bool = False,
    rate: int = 0,
) -> bytes:
    """Tensors of zeros, whose blocks are all motif 0."""
    bank = {"block_size": block_size, "num_motifs": num_motifs, "dtype": dtype}
    bank["packs"] = zeros(num_motifs * block_size, reader.ITEM_SIZES[dtype])
    streams = [[rate, 0] for _ in reader.lengths_of(-(-weights // block_size))]
    entry = {"stored": "blocks", "shape": [weights], "dtype": to, "streams": streams}
    sections = dict(EMPTY)
    if scales or dtype == "int8":
        entry["scales"] = weights if scales else 1
        bank["scales"], sections["motifs"] = ones(entry["scales"] * tensors)
    if table:  # of which the first motif is used, and no other
        first = encode([1], [1] * 49)
        rows = [[0, 0] for _ in reader.lengths_of(num_motifs)]
        rows[0] = [0, len(first)]
        bank["usage"] = {"significant": 1, "streams": rows}
        sections["usage"] = first
    entries = [{"name": str(i)} | entry for i in range(tensors)]
    size = tensors * weights * reader.ITEM_SIZES[to]
    return file_of({"motifs": bank, "tensors": entries, "dense": []}, sections, size)


def by_value(weights: int) -> bytes:
    """A row of zeros as long as can be, which has a mean for every column."""
    parts = [
        lattice.encode(
            torch.zeros(length, dtype=torch.int32),
            lattice.Geometry.of((1, weights)).at(number * reader.LONGEST),
            memory=0,
        )
        for number, length in enumerate(reader.lengths_of(weights))
    ]
    entry = {"name": "w", "stored": "blocks", "shape": [1, weights], "dtype": "float32"}
    entry["streams"] = [[0, len(part)] for part in parts]
    bank = {"block_size": 1, "num_motifs": 1, "dtype": "float32", "order": "whole"}
    bank |= {"packs": zeros(1, 4), "states": 1}
    sections = EMPTY | {"mosaic": b"".join(parts)}
    manifest = {"motifs": bank, "tensors": [entry], "dense": []}
    return file_of(manifest, sections, 4 * weights, version=2)


def dense(count: int, dtype: str) -> bytes:
    entry = {"name": "w", "stored": "dense", "shape": [count], "dtype": dtype}
    pool = {"dtype": dtype, "packs": zeros(count, reader.ITEM_SIZES[dtype])}
    size = count * reader.ITEM_SIZES[dtype]
    return file_of({"tensors": [entry], "dense": [pool]}, EMPTY, size)


def names(count: int) -> bytes:
    """Tensors of no values."""
    rows = [
        {"name": str(i), "stored": "dense", "shape": [0], "dtype": "bool"}
        for i in range(count)
    ]
    return file_of({"tensors": rows, "dense": [{"dtype": "bool", "packs": []}]}, EMPTY, 0)


def manifest_of(value: str) -> bytes:
    """No tensor; an unknown key of this value, and what keeps the text from deflating well."""
    noise = random.Random(0).randbytes(len(value) // 60).hex()
    rest = f'"tensors":[],"dense":[],"sha256":"{hashlib.sha256().hexdigest()}"'
    text = f'{{"producer":"{noise}","x":{value},{rest}}}'
    return Draft(text.encode(), EMPTY).file()


def zeros(count: int, planes: int) -> list[Any]:
    """Packs of `count` zeros in no bytes."""
    return [[[1, 0]] * planes for _ in reader.lengths_of(count)]


def ones(count: int) -> tuple[list[Any], bytes]:
    """Packs of `count` float32 ones, and their bytes."""
    packs, data = [], b""
    for length in reader.lengths_of(count):
        planes = [zlib.compress(byte * length, 9) for byte in (b"\0", b"\0", b"\x80", b"?")]
        packs.append([[32, len(plane)] for plane in planes])
        data += b"".join(planes)
    return packs, data


def file_of(
    manifest: dict[str, Any],
    sections: dict[str, bytes],
    num_bytes: int,
    *,
    version: int = 1,
) -> bytes:
    """The file, with the SHA-256 of `num_bytes` zeros."""
    digest = hashlib.sha256(bytes(num_bytes)).hexdigest()
    whole = {"producer": "", **manifest, "sha256": digest}
    return Draft(whole, sections, version).file()
