"""Headers, sections and JSON that are wrong (docs/format.md, §1 and the beginning of §2)."""

import json
import struct
import zlib

import reader
from files.one_change import BASE, Files
from mutants import Draft, closed

# 1. Outside


def outside() -> Files:
    size, parts = reader.outside(BASE)
    text, body = reader.header(parts), BASE[8 + size :]

    def headed(old: bytes, new: bytes, count: int = 1) -> bytes:
        assert old in text, old
        return closed(parts, text=text.replace(old, new, count))

    for length in (0, 1, 7, 8, 9, 8 + len(text), 647, 648):
        yield f"cut to {length} bytes", BASE[:length]
    yield "a byte behind the last section", BASE + b"\0"
    yield "a byte less", BASE[:-1]
    for wrong in (
        0,
        1,
        632,
        636,
        641,
        648,
        len(BASE) - 8,
        len(BASE),
        2**31,
        2**63,
        2**64 - 1,
    ):
        data = struct.pack("<Q", wrong) + BASE[8:]
        yield f"header length {wrong}", data
    yield "header longer than it must be", closed(parts, 648)
    for version in (b"0", b"2", b"1.0", b"true", b"null", b"-1", b"10", rb"\"1\""):
        name = version.decode().replace("\\", "")
        yield (
            f"version {name}",
            headed(rb"\"version\":1".replace(b"1", b"1"), rb"\"version\":" + version),
        )
    yield "no version", headed(rb"\"version\":1,", b"")
    for section in parts:
        own = f'"{section}":{{'.encode()
        crc = str(zlib.crc32(parts[section])).encode()
        sum_ = rf"\"{section}\":".encode() + crc
        flipped = str(zlib.crc32(parts[section]) ^ 1).encode()
        yield f"wrong checksum of {section}", headed(sum_, sum_[: -len(crc)] + flipped)
        yield f"checksum of {section} a text", headed(crc, rb"\"" + crc + rb"\"")
        yield f"no checksum of {section}", headed(sum_, b"").replace(b",,", b", ", 1)
        yield (
            f"no {section}",
            headed(own, own.replace(section.encode(), b"x" * len(section))),
        )
        yield (
            f"{section} not of bytes",
            headed(own + b'"dtype":"U8"', own + b'"dtype":"I8"'),
        )
    long = str(10**300).encode()
    lengths = [len(data) for data in parts.values()]
    first = f"[0,{lengths[0]}]".encode()
    second = f"[{lengths[0]},{lengths[0] + lengths[1]}]".encode()
    yield (
        "a checksum of 300 digits",
        headed(str(zlib.crc32(parts["dense"])).encode(), long[:200]),
    )
    yield "offsets of 200 digits", headed(first, b"[0," + long[:200] + b"]")
    yield "offsets that overlap", headed(second, second.replace(b"[", b"[-", 1))
    yield "offsets with a hole", headed(first, f"[1,{lengths[0] + 1}]".encode())
    yield (
        "a section that ends before it begins",
        headed(first, f"[{lengths[0]},0]".encode()),
    )
    yield "offsets that are fractions", headed(first, first.replace(b"]", b".0]"))
    yield "offsets that are null", headed(first, b"[null,null]")
    yield "offsets that are true", headed(first, b"[false,true]")
    yield "one offset", headed(first, b"[0]")
    yield "three offsets", headed(first, first.replace(b"]", b",0]"))
    yield "offsets no list", headed(first, b"0")
    yield "offsets beyond 2**63", headed(first, b"[0,%d]" % 2**63)
    yield (
        "a shape of two",
        headed(b'"shape":[%d]' % lengths[0], b'"shape":[1,%d]' % lengths[0]),
    )
    yield (
        "another shape",
        headed(b'"shape":[%d]' % lengths[0], b'"shape":[%d]' % (lengths[0] + 1)),
    )
    yield "no shape", headed(b'"shape":[%d],' % lengths[0], b"")
    yield "sections in another order", headed(b'"usage":{', b'"mosaic":{')
    yield "a key twice in the header", headed(b'"usage":{', b'"usage":{"dtype":"U8",')
    yield "a key more in the header", headed(b'"usage":{', b'"usage":{"x":0,')
    yield (
        "a section more",
        headed(
            b',"usage":{', b',"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"usage":{'
        ),
    )
    yield "a metadata key more", headed(b'"__metadata__":{', b'"__metadata__":{"a":"b",')
    yield "white space in the header", headed(b'"usage":{', b'"usage": {')
    yield "an escape in the header", headed(b'"usage":{', rb'"\u0075sage":{')
    yield "a number written otherwise", headed(b"[0,", b"[-0,")
    yield "a number with a leading zero", headed(b"[0,", b"[00,")
    yield "padding in front", closed(parts, text=b" " + text)
    for byte in (b"\0", b"\n", b"\t", b"}", b"\xff"):
        padded = text.ljust(639) + byte
        yield f"padding ends with {byte!r}", closed(parts, text=padded)
    yield "text behind the padding", closed(parts, text=text.ljust(600) + b"{}")
    for other in (
        b"",
        b"{}",
        b"[]",
        b"null",
        b"0",
        b'"momos"',
        b"{",
        b"\xff\xfe",
        b"\0" * 99,
    ):
        yield f"header {other[:9]!r}", closed(parts, text=other)
    for about in (
        b"null",
        b"[]",
        b'"momos"',
        b"0",
        b'{"momos":0}',
        b'{"momos":"[]"}',
        b'{"momos":"{"}',
    ):
        yield f"metadata {about!r}", closed(parts, text=b'{"__metadata__":' + about + b"}")
    yield "header of brackets", closed(parts, text=b"[" * 640)
    yield "header of objects", closed(parts, text=b'{"a":' * 128)
    yield "header in UTF-16", closed(parts, 640, b"{}".decode().encode("utf-16"))
    bare = rb'{"__metadata__":{"momos":"{\"version\":1,\"crc32\":{'
    bare += (
        b",".join(rb"\"%s\":%s" % (name.encode(), b"9" * 40) for name in parts) + b'}}"}'
    )
    ends = [10**17 * i for i in range(6)]
    for name, low, high in zip(parts, ends, ends[1:], strict=False):
        bare += b',"%s":{"data_offsets":[%d,%d]}' % (name.encode(), low, high)
    yield "a header that written out is longer", closed(parts, text=bare + b"}")
    yield "the file twice", BASE + BASE
    yield "only the sections", body


def sections() -> Files:
    size, parts = reader.outside(BASE)
    for name in parts:
        yield f"{name} with a byte more", closed(parts | {name: parts[name] + b"\0"}, size)
        yield f"{name} with a byte less", closed(parts | {name: parts[name][:-1]}, size)
        yield f"{name} empty", closed(parts | {name: b""}, size)
        yield f"{name} all 255", closed(parts | {name: b"\xff" * len(parts[name])}, size)
    manifest = parts["manifest"]
    text = zlib.decompress(manifest)

    def packed(data: bytes) -> bytes:
        return closed(parts | {"manifest": data}, size)

    yield "manifest not deflated", packed(text)
    yield "manifest in gzip", packed(zlib.compress(text, wbits=31))
    yield "manifest without zlib's frame", packed(zlib.compress(text, wbits=-15))
    yield (
        "manifest with zlib's checksum wrong",
        packed(manifest[:-1] + bytes([manifest[-1] ^ 1])),
    )
    yield "manifest of two zlib streams", packed(manifest + zlib.compress(b""))
    deflate = zlib.compressobj(zdict=b'{"name":')
    yield "manifest with a dictionary", packed(deflate.compress(text) + deflate.flush())
    yield "a bomb of spaces", packed(zlib.compress(text + b" " * 10**7, 9))
    yield "a bomb of brackets", packed(zlib.compress(b"[" * 10**6, 9))
    yield "a bomb of 2**16 + 1 bytes", packed(zlib.compress(text.ljust(2**16 + 1), 9))


# 2. Manifest


def json_texts() -> Files:
    draft = Draft.of(BASE)
    text = json.dumps(draft.manifest, separators=(",", ":"))

    def of(data: str | bytes) -> bytes:
        draft.manifest = data if isinstance(data, bytes) else data.encode()
        return draft.file()

    def with_key(value: str) -> bytes:
        return of('{"x":' + value + "," + text[1:])

    for whole in ("", "null", "[]", "0", '"text"', "true", "{", "{}", "[" + text + "]"):
        yield f"JSON {whole[:12]}", of(whole)
    yield "JSON behind the JSON", of(text + "{}")
    yield "JSON cut", of(text[:-1])
    yield "JSON with a comma too many", of(text[:-1] + ",}")
    yield "JSON with a comment", of(text + "//")
    yield "JSON in UTF-16", of(text.encode("utf-16"))
    yield "JSON behind a byte order mark", of(b"\xef\xbb\xbf" + text.encode())
    yield "a byte that is not UTF-8", of(text.encode().replace(b"momos 0", b"momos \xff"))
    yield (
        "a surrogate in UTF-8",
        of(text.encode().replace(b"momos 0", b"momos \xed\xa0\x80")),
    )
    yield "a control character in a text", of(text.replace("momos 0", "momos \n"))
    for value in (
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "01",
        "+1",
        ".5",
        "0x1",
    ):
        yield f"an unknown key of {value}", with_key(value)
    yield "an unknown key of 10**5 digits", with_key("1" * 10**5)
    yield "a key twice", with_key('0,"x":0')
    yield "a key twice, deep", with_key('[[{"a":{"b":0,"b":0}}]]')
    yield "tensors twice", of(text[:-1] + ',"tensors":[]}')
    yield "nested lists", with_key("[" * 30_000 + "]" * 30_000)
    yield "nested objects", with_key('{"a":' * 9_000 + "0" + "}" * 9_000)
