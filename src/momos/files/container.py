"""The container of a file: a safetensors header of fixed form, then the sections.

There is exactly one header for given sections, so a reader writes it again and compares: no bit
of it can be wrong unnoticed. Version 1 names every section in the header. Version 2 has one
tensor of bytes there, and the checksums after the sections, which is shorter. Version 2 is
written, both are read. `SectionFile` is a file that is open for reading.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from momos._util.formats import (
    CHECKPOINTS,
    LENGTH,
    METADATA,
    MOMOS,
    compact,
    entry,
    framed,
    recognized,
)
from momos._util.reading import open_ordinary
from momos.codec import PACK_VALUES, Pack, Stream
from momos.errors import FormatError
from momos.files.manifest import Coded, Packs

VERSION = 2
SECTIONS = ("motifs", "usage", "mosaic", "dense", "manifest")
LEAST_HEADER = {1: 640, 2: 104}  # bytes, by version: room for lengths that are known last
LONGEST_TEXT = 640  # of a header without its padding
EXPANSION = 1 << 16  # a file holds at most this many times its own size
TRAILER = struct.Struct("<6I")  # the checksums of the sections, and the manifest's length
CHUNK = 1 << 20  # bytes read at once
# What reading damaged content may raise.
BROKEN = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


@dataclass(frozen=True)
class Section:
    """Position of a section after the header, and its checksum (CRC-32 as in zlib)."""

    start: int
    length: int
    crc32: int

    @property
    def stop(self) -> int:
        return self.start + self.length


def header_size(expanded: int, version: int = VERSION) -> int:
    """Bytes of header, padding included, for a file whose content expands to `expanded` bytes.

    Files that are almost empty (many weights that are one motif) are padded here, so that no
    small file can make a reader fill its memory with weights.
    """
    return max(LEAST_HEADER[version], 8 * -(-expanded // (8 * EXPANSION)))


def build_header(num_bytes: int, size: int) -> bytes:
    """The length field and the header of `size` bytes, before `num_bytes` of sections and trailer."""
    return framed(_text_of(num_bytes), size)


def build_trailer(sections: Mapping[str, Section]) -> bytes:
    """The trailer, with which a file ends."""
    sums = (sections[name].crc32 for name in SECTIONS)
    return TRAILER.pack(*sums, sections["manifest"].length)


def parse_header(text: bytes, size: int, num_bytes: int) -> tuple[int, dict[str, Section]]:
    """The version, and in version 1 the sections, of a header's `text` without its padding.

    `size` is the header's with its padding, and `num_bytes` what follows it.

    Raises:
        ValueError: if it is not the one header of its version.
    """
    header = json.loads(text)
    if not isinstance(header, dict) or "momos" not in (header.get(METADATA) or ()):
        raise ValueError(
            'must be that of a .momos file, with "momos" in its metadata ("momos compress" '
            "makes one from a checkpoint)"
        )
    about = json.loads(header[METADATA]["momos"])
    version = about["version"] if isinstance(about, dict) else about
    if version == 1 and isinstance(about, dict):
        sections = _sections_1(header, about, size)
        if build_header_1(sections, size)[8:].rstrip(b" ") != text:
            raise ValueError("must be written in its one form")
        return 1, sections
    if version != VERSION:
        raise ValueError(
            f"format version must be 1 or {VERSION}, which this momos reads, got {version!r}"
        )
    if _text_of(num_bytes) != text:
        raise ValueError(f"must be the one of a file that goes on for {num_bytes} bytes")
    return VERSION, {}


def parse_trailer(trailer: bytes, num_bytes: int) -> tuple[Section, dict[str, int]]:
    """The manifest, of version 2, and the checksums of the other sections.

    Raises:
        ValueError: if the manifest is longer than the file.
    """
    *sums, length = TRAILER.unpack(trailer)
    stop = num_bytes - TRAILER.size
    if length > stop:
        raise ValueError(f"the manifest must have at most {stop} bytes, got {length}")
    checksums: dict[str, int] = dict(zip(SECTIONS, sums, strict=True))
    return Section(stop - length, length, checksums["manifest"]), checksums


def build_header_1(sections: Mapping[str, Section], size: int) -> bytes:
    """The length field and the header of version 1."""
    about = {"version": 1, "crc32": {n: sections[n].crc32 for n in SECTIONS}}
    header: dict[str, object] = {METADATA: {"momos": compact(about)}}
    for name in SECTIONS:
        header[name] = _bytes(sections[name].start, sections[name].stop)
    return framed(compact(header).encode(), size)


def _sections_1(
    header: Mapping[str, dict[str, list[int]]],
    about: Mapping[str, dict[str, int]],
    size: int,
) -> dict[str, Section]:
    sections = {}
    for name in SECTIONS:
        start, stop = header[name]["data_offsets"]
        crc32 = about["crc32"][name]
        if any(type(number) is not int for number in (start, stop, crc32)):
            raise ValueError(f"offsets and checksum of {name} must be integers")
        sections[name] = Section(start, stop - start, crc32)
    stops = [0, *(section.stop for section in sections.values())]
    for (name, section), before in zip(sections.items(), stops, strict=False):
        if section.start != before or section.length < 0 or section.stop >= 1 << 63:
            raise ValueError(f"section {name} must begin at {before}, got {section.start}")
    return sections


def _text_of(num_bytes: int) -> bytes:
    """The text of a header of version 2."""
    header = {METADATA: {"momos": str(VERSION)}, "momos": _bytes(0, num_bytes)}
    return compact(header).encode()


def _bytes(start: int, stop: int) -> dict[str, object]:
    return entry("U8", [stop - start], start, stop)


class SectionFile:
    """The sections of an open file: their positions, bytes and checksums.

    In version 2 `sections` has only the manifest until `place` is given the lengths of the others.
    `outside` counts the bytes of the file that belong to no section.

    Raises:
        FormatError: if the header is damaged, or not that of a .momos file.
        OSError: if it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.version = self.start = self.outside = 0
        self.sections: dict[str, Section] = {}
        self._checksums: dict[str, int] = {}
        self._file = open_ordinary(path)
        with ExitStack() as undo:
            undo.callback(self.close)
            self.num_bytes = os.fstat(self._file.fileno()).st_size
            try:
                self._open()
            except FormatError as error:
                raise self._other_kind() or error from None
            undo.pop_all()

    def close(self) -> None:
        self._file.close()

    def section(self, name: str) -> bytes:
        """A whole section, its checksum compared before it is in memory."""
        self.check(name)
        return self.read(name, 0, self.sections[name].length)

    def read(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes of a section, from its byte `start` on."""
        return self._pread(self.start + self.sections[name].start + start, length, name)

    def check(self, *names: str) -> None:
        """Compares the checksums of the sections `names`."""
        for name in names:
            length, crc32 = self.sections[name].length, 0
            for at in range(0, length, CHUNK):
                crc32 = zlib.crc32(self.read(name, at, min(CHUNK, length - at)), crc32)
            if crc32 != self.sections[name].crc32:
                raise self.error(
                    name,
                    f"must have the checksum {self.sections[name].crc32:08x}, got {crc32:08x}",
                )

    def error(self, section: str, problem: str) -> FormatError:
        return FormatError(self.path, section, problem)

    @contextmanager
    def problems(self, section: str) -> Iterator[None]:
        """Reports errors raised inside as problems of `section`."""
        try:
            yield
        except BROKEN as error:
            raise self.error(section, str(error) or type(error).__name__) from error

    def _other_kind(self) -> FormatError | None:
        """An error that names the format of the file, if it is another known one."""
        kind = recognized(self.path)
        if kind is None or kind == MOMOS:
            return None
        advice = " (momos compress makes a .momos file of it)" * (kind in CHECKPOINTS)
        return self.error(
            "header", f"must be that of a .momos file, but this is {kind}{advice}"
        )

    def _open(self) -> None:
        """Reads the header, and the trailer where there is one."""
        least = min(LEAST_HEADER.values())
        if self.num_bytes < 8 + least:
            raise self.error(
                "header",
                f"must have {8 + least} bytes at least, got {self.num_bytes} (is this a "
                ".momos file?)",
            )
        (size,) = LENGTH.unpack(self._pread(0, LENGTH.size, "header"))
        if size % 8 or not least <= size <= self.num_bytes - 8:
            raise self.error(
                "header",
                f"must have {least} to {self.num_bytes - 8} bytes, got {size} (is this "
                "a .momos file?)",
            )
        text = self._pread(8, min(size, LONGEST_TEXT), "header")
        for start in range(8 + len(text), 8 + size, CHUNK):
            padding = self._pread(start, min(CHUNK, 8 + size - start), "header")
            if padding.strip(b" "):
                raise self.error("header", "must be padded with spaces")
        self.start = self.outside = 8 + size
        rest = self.num_bytes - self.start
        with self.problems("header"):
            self.version, self.sections = parse_header(text.rstrip(b" "), size, rest)
            if size < LEAST_HEADER[self.version]:
                raise ValueError(
                    f"must have {LEAST_HEADER[self.version]} bytes at least, got {size}"
                )
        if self.version > 1:
            self._read_trailer(rest)
        elif (end := max(section.stop for section in self.sections.values())) != rest:
            raise self.error(
                "header",
                f"must name all {self.num_bytes} bytes of the file, got {self.start + end}",
            )

    def _read_trailer(self, num_bytes: int) -> None:
        if num_bytes < TRAILER.size:
            raise self.error(
                "trailer",
                f"must have {TRAILER.size} bytes, got {num_bytes} after the header",
            )
        trailer = self._pread(self.num_bytes - TRAILER.size, TRAILER.size, "trailer")
        with self.problems("trailer"):
            manifest, self._checksums = parse_trailer(trailer, num_bytes)
        self.sections = {"manifest": manifest}
        self.outside += TRAILER.size

    def place(self, lengths: Mapping[str, int]) -> None:
        """Takes the lengths of all other sections, which the manifest says in version 2.

        Raises:
            FormatError: if they do not end where the manifest begins.
        """
        start, sections = 0, {}
        for name in SECTIONS[:-1]:
            sections[name] = Section(start, lengths[name], self._checksums[name])
            start += lengths[name]
        manifest = self.sections["manifest"]
        if start != manifest.start:
            raise self.error(
                "manifest", f"must name all {manifest.start} bytes before it, got {start}"
            )
        self.sections = {**sections, "manifest": manifest}

    def _pread(self, start: int, length: int, section: str) -> bytes:
        parts = []
        while length:
            part = os.pread(self._file.fileno(), min(length, 1 << 30), start)
            if not part:
                raise self.error(
                    section, f"must go on for {length} bytes, but the file ends"
                )
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return b"".join(parts)


def split(values: Tensor) -> Iterator[Tensor]:
    """Flat values, split into packs."""
    return (part.contiguous() for part in values.split(PACK_VALUES) if len(part))


def coded(stream: Stream) -> Coded:
    """A stream as the manifest records it: rate and length."""
    return stream.rate, len(stream.data)


def lengths(packs: Iterable[Pack]) -> Packs:
    """Packs as the manifest records them."""
    return tuple(tuple(coded(plane) for plane in pack.planes) for pack in packs)


def bytes_of(packs: Iterable[Pack]) -> Iterator[bytes]:
    return (plane.data for pack in packs for plane in pack.planes)


def cut(section: bytes, parts: Iterable[Coded]) -> Iterator[Stream]:
    """The streams at the beginning of `section`."""
    position = 0
    for rate, length in parts:
        yield Stream(rate, section[position : position + length])
        position += length
