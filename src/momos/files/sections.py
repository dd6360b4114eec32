"""The sections of an open file: their place, their bytes, their checksums."""

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from momos._util.reading import open_ordinary
from momos._util.recognition import CHECKPOINTS, MOMOS, recognized
from momos.errors import FormatError
from momos.files.container import (
    LEAST_HEADER,
    LONGEST_TEXT,
    SECTIONS,
    TRAILER,
    Section,
    parse_header,
    parse_trailer,
)

CHUNK = 1 << 20  # bytes read at once
# What reading nonsense may raise.
BROKEN = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class SectionFile:
    """A file whose header is whole and leads to its sections.

    In version 2 `sections` has only the manifest until `place` has told the others' lengths.
    `outside` is how many bytes of the file are no section's.

    Raises:
        FormatError: if it is not.
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
        """Whatever is found wrong inside is told as a problem of `section`."""
        try:
            yield
        except BROKEN as error:
            raise self.error(section, str(error) or type(error).__name__) from error

    def _other_kind(self) -> FormatError | None:
        """The error that says what else the file is, if that is known."""
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
        (size,) = struct.unpack("<Q", self._pread(0, 8, "header"))
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
                f"must have {TRAILER.size} bytes, got {num_bytes} behind the header",
            )
        trailer = self._pread(self.num_bytes - TRAILER.size, TRAILER.size, "trailer")
        with self.problems("trailer"):
            manifest, self._checksums = parse_trailer(trailer, num_bytes)
        self.sections = {"manifest": manifest}
        self.outside += TRAILER.size

    def place(self, lengths: Mapping[str, int]) -> None:
        """Takes over the lengths of all sections but the manifest, which it says in version 2.

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
