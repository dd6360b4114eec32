"""The outside of a file: a safetensors header of fixed form, then the sections.

There is exactly one header for given sections, so a reader writes it again and compares: no bit
of it can be wrong unnoticed.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = 1
SECTIONS = ("motifs", "usage", "mosaic", "dense", "manifest")
LEAST_HEADER = 640  # room for five sections of any length, so that it can be written last
EXPANSION = 1 << 16  # a file holds at most this many times its own size


@dataclass(frozen=True)
class Section:
    """Where a section lies behind the header, and its checksum (CRC-32 as in zlib)."""

    start: int
    length: int
    crc32: int

    @property
    def stop(self) -> int:
        return self.start + self.length


def header_size(expanded: int) -> int:
    """Bytes of header, padding included, that a file of `expanded` bytes' content needs.

    What is almost empty (one motif, and many weights that are it) is padded here, so that no
    small file can claim a memory full of weights.
    """
    return max(LEAST_HEADER, 8 * -(-expanded // (8 * EXPANSION)))


def build_header(sections: Mapping[str, Section], size: int) -> bytes:
    """The length field and the header of `size` bytes."""
    about = {"version": VERSION, "crc32": {n: sections[n].crc32 for n in SECTIONS}}
    header: dict[str, object] = {"__metadata__": {"momos": _compact(about)}}
    for name in SECTIONS:
        section = sections[name]
        header[name] = {
            "dtype": "U8",
            "shape": [section.length],
            "data_offsets": [section.start, section.stop],
        }
    text = _compact(header).encode()
    if len(text) > size:
        raise OverflowError(f"a header must fit {size} bytes, got {len(text)}")
    return struct.pack("<Q", size) + text.ljust(size)


def parse_header(text: bytes, size: int) -> dict[str, Section]:
    """The sections that a header's `text` (without its padding) names.

    Raises:
        ValueError: if it is not the one header of these sections.
    """
    header = json.loads(text)
    if not isinstance(header, dict) or "momos" not in (header.get("__metadata__") or ()):
        raise ValueError(
            'must be that of a .momos file, with "momos" in its metadata ("momos compress" '
            "makes one from a checkpoint)"
        )
    about = json.loads(header["__metadata__"]["momos"])
    version = about["version"]
    if version != VERSION:
        raise ValueError(
            f"format version must be {VERSION}, which this momos reads, got {version!r}"
        )
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
    if build_header(sections, size)[8:].rstrip(b" ") != text:
        raise ValueError("must be written in its one form")
    return sections


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
