"""Writing a file: section after section, then the header into the room left for it."""

import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import BinaryIO

import torch
from torch import Tensor

from momos.codec import (
    PACK_VALUES,
    STREAM_SYMBOLS,
    Model,
    Pack,
    choose_usage_table,
    pack,
)
from momos.files.container import Section, build_header, header_size
from momos.files.contents import Contents
from momos.files.hashing import Hashing
from momos.files.manifest import Bank, Manifest, Packs, Record, write_manifest
from momos.files.packs import bytes_of, coded, lengths, split
from momos.files.parallel import in_parallel
from momos.files.parsing import read_manifest
from momos.files.progress import Progress, quiet
from momos.files.sections import CHUNK
from momos.version import __version__

MOST_WAITING = 1 << 24  # bytes of a dtype's packs that wait in memory, not on disk


def write(file: BinaryIO, contents: Contents, *, progress: Progress = quiet) -> None:
    """Writes `contents` to a new file, reading every dense value once.

    So the checksum is that of the values which were written, even if they change meanwhile.

    Raises:
        ValueError: if a name or a shape is one that no reader would take.
    """
    writer = _Writer(file, header_size(contents.num_bytes))
    bank, model = _write_bank(writer, contents)
    records = _write_mosaic(writer, contents, model, progress)
    dense, sha256 = _write_dense(writer, contents, progress)
    manifest = Manifest(
        bank=bank,
        records=records,
        dense=dense,
        sha256=sha256,
        config=contents.config,
        metadata=contents.metadata,
        producer=f"momos {__version__}",
    )
    section = write_manifest(manifest)
    read_manifest(section)  # what no reader would take must not replace an old file
    writer.section("manifest", [section])
    writer.finish()


class _Writer:
    def __init__(self, file: BinaryIO, header_bytes: int) -> None:
        self.file = file
        self.header_bytes = header_bytes
        self.sections: dict[str, Section] = {}
        file.seek(8 + header_bytes)

    def section(self, name: str, parts: Iterable[bytes]) -> None:
        start = max((section.stop for section in self.sections.values()), default=0)
        length = crc32 = 0
        for part in parts:
            self.file.write(part)
            length += len(part)
            crc32 = zlib.crc32(part, crc32)
        self.sections[name] = Section(start, length, crc32)

    def finish(self) -> None:
        self.file.seek(0)
        self.file.write(build_header(self.sections, self.header_bytes))


def _write_bank(writer: _Writer, contents: Contents) -> tuple[Bank | None, Model | None]:
    mosaic = contents.mosaic
    if mosaic is None:
        writer.section("motifs", [])
        writer.section("usage", [])
        return None, None
    packs = list(in_parallel(pack, split(mosaic.motifs.cpu().reshape(-1))))
    scales = None
    if mosaic.scales is not None:
        scales = [pack(part) for part in split(torch.cat(mosaic.scales).cpu())]
    writer.section("motifs", bytes_of([*packs, *(scales or [])]))
    usage = mosaic.usage().cpu()
    table = choose_usage_table(usage)
    streams = table.streams if table else []
    writer.section("usage", (stream.data for stream in streams))
    bank = Bank(
        block_size=mosaic.layout.block_size,
        num_motifs=mosaic.num_motifs,
        dtype=mosaic.motifs.dtype,
        packs=lengths(packs),
        scales=lengths(scales) if scales is not None else None,
        num_scales=sum(map(len, mosaic.scales or ())),
        significant=table.significant if table else 0,
        usage=tuple(map(coded, streams)),
    )
    return bank, Model(table.usage if table else torch.ones_like(usage))


def _write_mosaic(
    writer: _Writer, contents: Contents, model: Model | None, progress: Progress
) -> tuple[Record, ...]:
    mosaic = contents.mosaic
    if mosaic is None or model is None:
        writer.section("mosaic", [])
        return contents.records
    indices, streams = mosaic.indices.cpu(), []

    def encoded() -> Iterator[bytes]:
        parts = [
            part
            for place in mosaic.layout.placements
            for part in indices[place.start : place.stop].split(STREAM_SYMBOLS)
        ]
        done = 0
        for part, stream in zip(parts, in_parallel(model.encode_best, parts), strict=True):
            streams.append(coded(stream))
            done += len(part)
            progress("encoding", done, len(indices))
            yield stream.data

    writer.section("mosaic", encoded())
    left = iter(streams)
    own = {
        place.name: tuple(next(left) for _ in range(-(-place.num_blocks // STREAM_SYMBOLS)))
        for place in mosaic.layout.placements
    }
    counts = {
        place.name: len(scale)
        for place, scale in zip(mosaic.layout.placements, mosaic.scales or (), strict=False)
    }
    return tuple(
        replace(
            record,
            streams=own.get(record.name, ()),
            num_scales=counts.get(record.name, 1),
        )
        for record in contents.records
    )


def _write_dense(
    writer: _Writer, contents: Contents, progress: Progress
) -> tuple[tuple[tuple[torch.dtype, Packs], ...], str]:
    """The packs of each dtype, and the SHA-256 of all values, blocks included.

    Values are hashed in the order of the records but stored by dtype. To read each only once,
    packs of all dtypes are made in one pass; those of all but the first dtype wait in temporary
    files.
    """
    dtypes = dict.fromkeys(r.dtype for r in contents.records if r.stored == "dense")
    packs: dict[torch.dtype, list[Packs]] = {dtype: [] for dtype in dtypes}
    hashing = Hashing(contents.records, progress, "packing")
    folder = os.path.dirname(writer.file.name)

    def packed(values: Tensor) -> tuple[torch.dtype, Pack]:
        return values.dtype, pack(values)

    def encoded() -> Iterator[bytes]:
        with ExitStack() as stack:
            waiting = {
                dtype: stack.enter_context(SpooledTemporaryFile(MOST_WAITING, dir=folder))
                for dtype in list(dtypes)[1:]
            }
            for dtype, one in in_parallel(packed, _read_once(contents, hashing)):
                packs[dtype].append(lengths([one]))
                if dtype in waiting:
                    waiting[dtype].writelines(bytes_of([one]))
                else:
                    yield from bytes_of([one])
            for file in waiting.values():
                file.seek(0)
                yield from iter(partial(file.read, CHUNK), b"")

    writer.section("dense", encoded())
    found = tuple((dtype, tuple(chain.from_iterable(own))) for dtype, own in packs.items())
    return found, hashing.hexdigest()


def _read_once(contents: Contents, hashing: Hashing) -> Iterator[Tensor]:
    """All dense values in packs of one dtype each; everything is hashed on the way."""
    left: Counter[torch.dtype] = Counter()
    for record in contents.records:
        if record.stored == "dense":
            left[record.dtype] += record.num_weights
    held: dict[torch.dtype, tuple[Tensor, int]] = {}
    for record in hashing.stored:
        if record.stored == "blocks":
            for values in contents.pieces(record):
                hashing.update(values)
            continue
        dtype, start = record.dtype, 0
        while start < record.num_weights:
            if dtype not in held:
                size = min(PACK_VALUES, left[dtype])
                held[dtype] = torch.empty(size, dtype=dtype), 0
                left[dtype] -= size
            values, filled = held.pop(dtype)
            stop = min(record.num_weights, start + len(values) - filled)
            part = values[filled : filled + stop - start]
            _copy(part, contents.read(record.name, start, stop), record)
            hashing.update(part)
            filled, start = filled + len(part), stop
            if filled < len(values):
                held[dtype] = values, filled
            else:
                yield values


def _copy(part: Tensor, values: Tensor, record: Record) -> None:
    """Takes over values as a file holds them: a true bool, which may be any byte, as 1."""
    if values.dtype != part.dtype or values.shape != part.shape:
        raise ValueError(
            f"tensor {record.name!r} must give {len(part)} values of {part.dtype}, got "
            f"{values.dtype} of shape {tuple(values.shape)}"
        )
    if part.dtype == torch.bool:
        torch.ne(values.contiguous().view(torch.uint8), 0, out=part)
    else:
        part.copy_(values)
