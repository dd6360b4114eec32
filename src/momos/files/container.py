"""The outside of a file: a safetensors header of fixed form, then the sections.

There is exactly one header for given sections, so a reader writes it again and compares: no bit
of it can be wrong unnoticed. Version 1 names every section in the header; version 2 has one
tensor of bytes there, and the checksums behind the sections, which is shorter. Version 2 is
written, both are read.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = 2
SECTIONS = ("motifs", "usage", "mosaic", "dense", "manifest")
LEAST_HEADER = {1: 640, 2: 104}  # bytes, by version: room for lengths that are known last
LONGEST_TEXT = 640  # of a header without its padding
EXPANSION = 1 << 16  # a file holds at most this many times its own size
TRAILER = struct.Struct("<6I")  # the checksums of the sections, and the manifest's length


@dataclass(frozen=True)
class Section:
    """Where a section lies behind the header, and its checksum (CRC-32 as in zlib)."""

    start: int
    length: int
    crc32: int

    @property
    def stop(self) -> int:
        return self.start + self.length


def header_size(expanded: int, version: int = VERSION) -> int:
    """Bytes of header, padding included, that a file of `expanded` bytes' content needs.

    What is almost empty (one motif, and many weights that are it) is padded here, so that no
    small file can claim a memory full of weights.
    """
    return max(LEAST_HEADER[version], 8 * -(-expanded // (8 * EXPANSION)))


def build_header(num_bytes: int, size: int) -> bytes:
    """The length field and the header of `size` bytes, before `num_bytes` of sections and trailer."""
    text = _text_of(num_bytes)
    if len(text) > size:
        raise OverflowError(f"a header must fit {size} bytes, got {len(text)}")
    return struct.pack("<Q", size) + text.ljust(size)


def build_trailer(sections: Mapping[str, Section]) -> bytes:
    """What a file ends with."""
    sums = (sections[name].crc32 for name in SECTIONS)
    return TRAILER.pack(*sums, sections["manifest"].length)


def parse_header(text: bytes, size: int, num_bytes: int) -> tuple[int, dict[str, Section]]:
    """The version, and in version 1 the sections, of a header's `text` without its padding.

    `size` is the header's with its padding, and `num_bytes` what follows it.

    Raises:
        ValueError: if it is not the one header of its version.
    """
    header = json.loads(text)
    if not isinstance(header, dict) or "momos" not in (header.get("__metadata__") or ()):
        raise ValueError(
            'must be that of a .momos file, with "momos" in its metadata ("momos compress" '
            "makes one from a checkpoint)"
        )
    about = json.loads(header["__metadata__"]["momos"])
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
        ValueError: if the manifest is longer than all that there is.
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
    header: dict[str, object] = {"__metadata__": {"momos": _compact(about)}}
    for name in SECTIONS:
        header[name] = _bytes(sections[name].start, sections[name].stop)
    text = _compact(header).encode()
    if len(text) > size:
        raise OverflowError(f"a header must fit {size} bytes, got {len(text)}")
    return struct.pack("<Q", size) + text.ljust(size)


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
    header = {"__metadata__": {"momos": str(VERSION)}, "momos": _bytes(0, num_bytes)}
    return _compact(header).encode()


def _bytes(start: int, stop: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [stop - start], "data_offsets": [start, stop]}


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
