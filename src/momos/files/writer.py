"""Writes a file: section after section, then the header into the space reserved for it."""

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
from jaxtyping import Int32
from torch import Tensor

from momos._util.work import Progress, in_parallel, quiet
from momos.blocks import Placement
from momos.codec import (
    PACK_VALUES,
    STREAM_SYMBOLS,
    Model,
    Pack,
    Stream,
    UsageTable,
    choose_usage_table,
    distances,
    pack,
    whole_numbers,
)
from momos.config import TRELLISES
from momos.files.coding import ByUsage, ByValue, Code, CodedMosaic, by_channel, fits
from momos.files.container import (
    CHUNK,
    TRAILER,
    VERSION,
    Section,
    build_header,
    build_trailer,
    bytes_of,
    coded,
    header_size,
    lengths,
    split,
)
from momos.files.contents import Contents, Hashing, as_stored
from momos.files.manifest import Coded, CodedBank, Manifest, Packs, Record, write_manifest
from momos.files.parsing import read_manifest
from momos.mosaic import Mosaic
from momos.version import __version__

MOST_WAITING = 1 << 24  # bytes of a dtype's packs that wait in memory, not on disk


def write(file: BinaryIO, contents: Contents, *, progress: Progress = quiet) -> None:
    """Writes `contents` to a new file, reading every dense value once.

    So the checksum is that of the values written, even if the network changes meanwhile.

    Raises:
        ValueError: if a name or a shape is one that no reader would accept.
    """
    writer = _Writer(file, header_size(contents.num_bytes))
    bank, streams = _write_bank(writer, contents)
    records = _write_mosaic(writer, contents, streams, progress)
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
    read_manifest(section, VERSION)  # a file no reader takes must not replace an old one
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
        self.file.write(build_trailer(self.sections))
        self.file.seek(0)
        num_bytes = self.sections["manifest"].stop + TRAILER.size
        self.file.write(build_header(num_bytes, self.header_bytes))


def _write_bank(
    writer: _Writer, contents: Contents
) -> tuple[CodedBank | None, Iterable[Stream]]:
    """Writes motifs and usage; how they are coded, and the streams of the blocks."""
    mosaic = contents.mosaic
    if mosaic is None:
        writer.section("motifs", [])
        writer.section("usage", [])
        return None, ()
    motifs = mosaic.motifs.cpu()
    values = whole_numbers(motifs)
    between = None if values is None else distances(values)
    stored = motifs.reshape(-1) if between is None else between
    packs = list(in_parallel(pack, split(stored)))
    scales = None
    if mosaic.scales is not None:
        scales = [pack(part) for part in split(torch.cat(mosaic.scales).cpu())]
    writer.section("motifs", bytes_of([*packs, *(scales or [])]))
    code, table, streams = _coded(mosaic, values)
    usage = table.streams if table else []
    writer.section("usage", (stream.data for stream in usage))
    bank = CodedBank(
        block_size=mosaic.layout.block_size,
        num_motifs=mosaic.num_motifs,
        dtype=motifs.dtype,
        packs=lengths(packs),
        scales=lengths(scales) if scales is not None else None,
        num_scales=sum(map(len, mosaic.scales or ())),
        significant=table.significant if table else 0,
        usage=tuple(map(coded, usage)),
        ordered=between is not None,
        states=code.states if isinstance(code, ByValue) else 0,
    )
    return bank, streams


def _coded(
    mosaic: Mosaic | CodedMosaic, values: Int32[Tensor, " k"] | None
) -> tuple[Code, UsageTable | None, Iterable[Stream]]:
    """The shorter code of the blocks, the usage table if it needs one, and the streams."""
    if isinstance(mosaic, CodedMosaic):
        own = (mosaic.streams[place.name] for place in mosaic.layout.placements)
        return mosaic.code, None, (Stream(0, data) for data in chain.from_iterable(own))
    usage = mosaic.usage().cpu()
    states = 0 if values is None else _states_of(mosaic, values)
    if values is not None and states > 1:  # weights are not on a trellis by chance
        code = ByValue(values, states)
        return code, None, _streams(mosaic, code)
    table = choose_usage_table(usage)
    by_usage = ByUsage(Model(table.usage if table else torch.ones_like(usage)))
    if values is None:
        return by_usage, table, _streams(mosaic, by_usage)
    by_value, tables = ByValue(values, 1), table.streams if table else []
    first, second = list(_streams(mosaic, by_usage)), list(_streams(mosaic, by_value))
    if _num_bytes(second) < _num_bytes([*tables, *first]):
        return by_value, None, second
    return by_usage, table, first


def _num_bytes(streams: Iterable[Stream]) -> int:
    return sum(len(stream.data) for stream in streams)


def _states_of(mosaic: Mosaic, values: Int32[Tensor, " k"]) -> int:
    """The most states of a trellis that all values are a path of; with 1 they always are."""
    for states in sorted(TRELLISES, reverse=True):
        if all(
            fits(values.index_select(0, part.int()), states)
            for place in mosaic.layout.placements
            for part in _parts(mosaic, place, channels=True)
        ):
            return states
    return 1


def _streams(mosaic: Mosaic, code: Code) -> Iterator[Stream]:
    """The streams of all blocks, tensor after tensor."""
    parts = (
        (part, place, number * STREAM_SYMBOLS)
        for place in mosaic.layout.placements
        for number, part in enumerate(_parts(mosaic, place, code.by_channel))
    )

    def encoded(part: tuple[Tensor, Placement, int]) -> Stream:
        return code.encode(*part)

    return in_parallel(encoded, parts)


def _parts(mosaic: Mosaic, place: Placement, channels: bool) -> Iterator[Tensor]:
    """The indices of a tensor's blocks, one stream at a time."""
    indices = mosaic.part(place).cpu()
    if channels:
        indices = by_channel(indices, place)
    return iter(indices.split(STREAM_SYMBOLS))


def _write_mosaic(
    writer: _Writer, contents: Contents, streams: Iterable[Stream], progress: Progress
) -> tuple[Record, ...]:
    mosaic = contents.mosaic
    if mosaic is None:
        writer.section("mosaic", [])
        return contents.records
    about: list[Coded] = []
    most = mosaic.layout.num_blocks

    def encoded() -> Iterator[bytes]:
        for number, stream in enumerate(streams):
            about.append(coded(stream))
            progress("encoding", min(most, (number + 1) * STREAM_SYMBOLS), most)
            yield stream.data

    writer.section("mosaic", encoded())
    left = iter(about)
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
    records = contents.records
    if contents.sha256 is not None:  # blocks need not be read for it
        records = tuple(record for record in records if record.stored == "dense")
    hashing = Hashing(records, progress, "packing")
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
    return found, contents.sha256 or hashing.hexdigest()


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
                held[dtype] = torch.empty(size, dtype=dtype, device="cpu"), 0
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
    """Takes over values as a file holds them."""
    if values.dtype != part.dtype or values.shape != part.shape:
        raise ValueError(
            f"tensor {record.name!r} must give {len(part)} values of {part.dtype}, got "
            f"{values.dtype} of shape {tuple(values.shape)}"
        )
    part.copy_(as_stored(values))
