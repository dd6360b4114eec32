"""What is wrong in version 2 only (docs/format.md, §1, §2, §9), and what was wrong before."""

import struct
import zlib
from collections.abc import Callable

import reader
from files.make import GOLDEN_2
from files.one_change import BASE, Files
from mutants import Draft, closed_2, deflate

WHOLE = (GOLDEN_2 / "whole.momos").read_bytes()  # blocks by value
ORDERED = (GOLDEN_2 / "ordered.momos").read_bytes()  # by usage, motifs in order


def as_version_2(file: bytes) -> bytes | None:
    """The same mistake in version 2, if it is one of the manifest or of a section."""
    try:
        draft = Draft.of(file)
        draft.version = 2
        return draft.file()
    except (reader.Refused, *reader.REFUSALS):
        return None


def outside_2() -> Files:
    size, parts = reader.outside(WHOLE)
    body = WHOLE[8 + size :]
    text = reader.header_2(len(body))

    def headed(old: bytes, new: bytes, width: int = size) -> bytes:
        assert old in text, old
        return width.to_bytes(8, "little") + text.replace(old, new, 1).ljust(width) + body

    for length in (0, 1, 8, 8 + len(text), 8 + size, 8 + size + 23, 8 + size + 24):
        yield f"cut to {length} bytes", WHOLE[:length]
    yield "a byte behind the trailer", WHOLE + b"\0"
    yield "a byte less", WHOLE[:-1]
    yield "the file twice", WHOLE + WHOLE
    for wrong in (0, 1, 8, 96, 105, 112, 640, len(WHOLE) - 8, 2**31, 2**63, 2**64 - 1):
        yield f"header length {wrong}", struct.pack("<Q", wrong) + WHOLE[8:]
    yield "header longer than it must be", closed_2(parts, 112)
    yield "header of version 1's length", closed_2(parts, 640)
    for version in (b"0", b"3", b"02", b"2.0", b"true", b"null", b"-2", b"20", b"", b"[2]"):
        yield f"version {version.decode()}", headed(b'"2"', b'"%s"' % version)
    yield "version a number", headed(b'"2"', b"2")
    yield "version 1 in one number", headed(b'"2"', b'"1"')
    yield "a key more", headed(b'"momos":{', b'"x":0,"momos":{', 120)
    yield "white space", headed(b'"momos":{', b'"momos": {')
    yield "another dtype", headed(b'"U8"', b'"I8"')
    yield "another name", headed(b'"momos":{', b'"mOmos":{')
    yield "another shape", headed(b"[%d]" % len(body), b"[%d]" % (len(body) + 1))
    yield "other offsets", headed(b"[0,", b"[1,")
    yield "a zero in front of a number", headed(b"[0,", b"[00,")
    yield "padding of zeros", WHOLE[: 8 + len(text)] + b"\0" * (size - len(text)) + body
    for at in range(24):
        damaged = bytearray(WHOLE)
        damaged[len(WHOLE) - 24 + at] ^= 1
        yield f"byte {at} of the trailer", bytes(damaged)
    for length in (0, 1, len(parts["manifest"]) + 1, len(body), 2**32 - 1):
        trailer = body[-24:-4] + struct.pack("<I", length)
        yield f"a manifest of {length} bytes", WHOLE[:-24] + trailer
    for first, second in (("motifs", "mosaic"), ("mosaic", "dense")):
        swapped = parts | {first: parts[second], second: parts[first]}
        yield f"{first} and {second} exchanged", closed_2(swapped, size)
    for name in reader.SECTIONS:
        more = closed_2(parts | {name: parts[name] + b"\0"}, size)
        yield f"{name} with a byte more", more
        if parts[name]:
            less = closed_2(parts | {name: parts[name][:-1]}, size)
            yield f"{name} with a byte less", less
    manifest = reader.inflate(parts["manifest"], 1 << 16, reader.DICTIONARY)
    for name, packed in {
        "with another dictionary": another_dictionary(manifest),
        "of two zlib streams": parts["manifest"] + deflate(b"", 2),
        "that is a bomb": deflate(manifest + b" " * 10**7, 2),
        "not deflated": manifest,
    }.items():
        yield f"a manifest {name}", closed_2(parts | {"manifest": packed}, size)


def another_dictionary(text: bytes) -> bytes:
    deflater = zlib.compressobj(9, zdict=reader.DICTIONARY[:-1])
    return deflater.compress(text) + deflater.flush()


def whole() -> Files:
    """Motifs in order, and blocks by value."""

    def changed(file: bytes, change: Callable[[Draft], object]) -> bytes:
        draft = Draft.of(file)
        change(draft)
        return draft.file()

    def bank(key: str, value: object, file: bytes = WHOLE) -> bytes:
        return changed(file, lambda draft: draft.manifest["motifs"].update({key: value}))

    for value in (None, 0, 2, 7, -1, 512, 1.0, True, "8", [], 2**70):
        yield f"states {value!r}", bank("states", value)
    for value in (None, 0, "", "Whole", ["whole"], True):
        yield f"order {value!r}", bank("order", value)
    yield "fewer states than the values need", bank("states", 1)
    yield "more states than the values need", bank("states", 64)
    yield "states and a usage table", bank("usage", {"significant": 1, "streams": [[0, 0]]})
    yield "no states", changed(WHOLE, lambda d: d.manifest["motifs"].pop("states"))
    yield "states for streams by usage", bank("states", 1, ORDERED)
    yield "no order", changed(WHOLE, lambda d: d.manifest["motifs"].pop("order"))
    yield (
        "order of what is not",
        bank("order", "whole", (GOLDEN_2 / "half.momos").read_bytes()),
    )
    yield "motifs that their dtype does not hold", wide_motif(127)
    yield "motifs beyond all", wide_motif(2**32 - 1)
    yield "states with larger blocks", bank("block_size", 2)

    def tensor(key: str, value: object, number: int = 0) -> bytes:
        def change(draft: Draft) -> None:
            blocks = [e for e in draft.manifest["tensors"] if e["stored"] == "blocks"]
            blocks[number][key] = value

        return changed(WHOLE, change)

    for value in (-1, 2, 4, 2**63, 1.0, "0", None, True, []):
        yield f"axis {value!r}", tensor("axis", value)
    yield "axis of one dimension more", tensor("axis", 1, 1)
    streams = next(
        e["streams"] for e in Draft.of(WHOLE).manifest["tensors"] if "streams" in e
    )
    (mean, length), *rest = streams
    for wrong in (-1, 31, 1.5, None, "1"):
        yield f"rate {wrong!r} of a stream", tensor("streams", [[wrong, length], *rest])
    yield "a rate", tensor("streams", [[mean + 1, length], *rest])
    mosaic = Draft.of(WHOLE).sections["mosaic"]
    for at in range(min(len(mosaic), 60)):
        damaged = bytearray(mosaic)
        damaged[at] ^= 0x10

        def change(draft: Draft, damaged: bytearray = damaged) -> None:
            draft.sections["mosaic"] = bytes(damaged)

        yield f"byte {at} of the streams", changed(WHOLE, change)


def wide_motif(distance: int) -> bytes:
    draft = Draft.of(WHOLE)
    bank = draft.manifest["motifs"]
    count = bank["num_motifs"]
    values = [0] * (count - 1) + [distance]
    planes = struct.pack(f"<{count}I", *values)
    packs = b"".join(planes[i::4] for i in range(4))
    old = sum(length for pack in bank["packs"] for _, length in pack)
    draft.sections["motifs"] = packs + draft.sections["motifs"][old:]
    bank["packs"] = [[[0, count]] * 4]
    return draft.file()


def hostile_2(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those of version 2, and those of version 1 in `files` made over."""
    some = list(files.items())[::3]  # the same code reads what both versions share
    found = {f"made over: {name}": as_version_2(file) for name, file in some}
    base = as_version_2(BASE)
    result = {name: file for name, file in found.items() if file and file != base}
    for make in (outside_2, whole):
        result |= {f"{make.__name__}: {name}": file for name, file in make()}
    return result
