"""Writing a file: section after section, then the header into the room left for it."""

import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
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
from momos.files.atomic import replacing
from momos.files.container import Section, build_header, header_size
from momos.files.contents import Contents
from momos.files.hashing import sha256_of
from momos.files.manifest import Bank, Manifest, Packs, Record, write_manifest
from momos.files.packs import bytes_of, coded, lengths, split
from momos.files.parallel import in_parallel
from momos.files.parsing import read_manifest
from momos.files.progress import Progress, quiet
from momos.version import __version__


def write(
    path: str | os.PathLike[str],
    contents: Contents,
    *,
    progress: Progress = quiet,
) -> None:
    """Writes `contents` to `path`, whole or not at all."""
    with replacing(path) as file:
        writer = _Writer(file, header_size(contents.num_bytes))
        bank, model = _write_bank(writer, contents)
        manifest = Manifest(
            bank=bank,
            records=_write_mosaic(writer, contents, model, progress),
            dense=_write_dense(writer, contents, progress),
            sha256=sha256_of(contents.records, contents.pieces, progress),
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
) -> tuple[tuple[torch.dtype, Packs], ...]:
    groups: dict[torch.dtype, list[Record]] = {}
    for record in contents.records:
        if record.stored == "dense":
            groups.setdefault(record.dtype, []).append(record)
    packs: dict[torch.dtype, list[Pack]] = {dtype: [] for dtype in groups}
    total = sum(record.num_bytes for records in groups.values() for record in records)

    def encoded() -> Iterator[bytes]:
        done = 0
        for dtype, records in groups.items():
            for one in in_parallel(pack, _joined(contents, records)):
                packs[dtype].append(one)
                done = min(total, done + PACK_VALUES * dtype.itemsize)
                progress("packing", done, total)
                yield from bytes_of([one])

    writer.section("dense", encoded())
    return tuple((dtype, lengths(found)) for dtype, found in packs.items())


def _joined(contents: Contents, records: list[Record]) -> Iterator[Tensor]:
    """The values of all `records` behind one another, cut into packs."""
    held: list[Tensor] = []
    room = PACK_VALUES
    for record in records:
        start = 0
        while start < record.num_weights:
            stop = min(record.num_weights, start + room)
            held.append(contents.read(record.name, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield torch.cat(held)
                held, room = [], PACK_VALUES
    if held:
        yield torch.cat(held)
