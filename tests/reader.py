"""A second reader of .momos files, written from docs/format.md alone.

It shares nothing with momos: the standard library, plain integers, one value at a time.
Where the two disagree about a file, one of them or the page is wrong.
"""

import hashlib
import json
import math
import re
import struct
import zlib
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

import lattice_decoder

SECTIONS = ("motifs", "usage", "mosaic", "dense", "manifest")
FLOATS = {"float16": "e", "bfloat16": "", "float32": "f", "float64": "d"}
STATES = (1, 8, 16, 32, 64, 256)
MOTIFS = FLOATS | {"int8": "b"}
BY_SIZE = {
    1: "bool int8 uint8 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz "
    "float8_e8m0fnu",
    2: "int16 uint16 float16 bfloat16",
    4: "int32 uint32 float32",
    8: "int64 uint64 float64 complex64",
    16: "complex128",
}
ITEM_SIZES = {name: size for size, names in BY_SIZE.items() for name in names.split()}
LEAST = {1: 640, 2: 104}  # bytes of a header
NEW_KEYS = ("order", "states", "axis")  # since version 2
PAGE = Path(__file__).parent.parent / "docs" / "format.md"
DICTIONARY = re.search("```dictionary\n(.*?)```", PAGE.read_text(), re.S)[1]
DICTIONARY = DICTIONARY.replace("\n", "").encode()
LONGEST = 2**20  # symbols of a stream, values of a pack

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


class Refused(Exception):
    """The file is not what the page says."""


# What Python raises of a key that lacks, a list that is none, a stream that is broken.
REFUSALS = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
REFUSALS += (RecursionError, zlib.error)


def read(path: str | Path) -> Tensors:
    """Dtype, shape and bytes of every tensor; `Refused` if the file breaks a rule."""
    return read_bytes(Path(path).read_bytes())


def read_bytes(file: bytes) -> Tensors:
    try:
        tensors, right, found = contents(file)
    except REFUSALS as error:
        raise Refused(repr(error)) from error
    need(right == found, "SHA-256", right, found)
    return tensors


def sha256(file: bytes) -> str:
    """That of all that the file holds, whatever the file says."""
    return contents(file)[2]


def need(fact: object, *what: object) -> None:
    if not fact:
        raise Refused(*what)


def contents(file: bytes) -> tuple[Tensors, str, str]:
    size, section = outside(file)
    manifest = manifest_of(section["manifest"], version := version_of(file))
    if version == 1:
        for holder in (manifest.get("motifs", {}), *rows(manifest["tensors"])):
            for key in NEW_KEYS:
                holder.pop(key, None)
    texts(manifest)
    need(isinstance(manifest.get("config", {}), dict), "config")
    entries = rows(manifest["tensors"])
    by_name = {text_of(entry["name"]): entry for entry in entries}
    need(len(by_name) == len(entries), "a name twice")
    for entry in entries:
        described(entry, by_name)
    blocks = [entry for entry in entries if entry["stored"] == "blocks"]
    need(("motifs" in manifest) == bool(blocks), "motifs without blocks, or the reverse")
    own = [entry for entry in entries if entry["stored"] != "same"]
    least = LEAST[version]
    need(size == max(least, 8 * -(-expanded(manifest, own) // (8 * 65536))), "header")
    values = mosaic(blocks, manifest["motifs"], section) if blocks else {}
    need(blocks or not any(section[name] for name in SECTIONS[:3]), "bytes of nothing")
    values |= dense(
        [entry for entry in own if entry["stored"] == "dense"], manifest, section
    )
    digest = hashlib.sha256(b"".join(values[entry["name"]] for entry in own)).hexdigest()
    need(re.fullmatch("[0-9a-f]{64}", manifest["sha256"]), "sha256")
    result = {}
    for entry in entries:
        own_entry = by_name[entry["as"]] if entry["stored"] == "same" else entry
        shape, value = tuple(own_entry["shape"]), values[own_entry["name"]]
        result[entry["name"]] = own_entry["dtype"], shape, value
    return result, manifest["sha256"], digest


def expanded(manifest: dict, own: list) -> int:
    if "motifs" not in manifest:
        return sum(map(num_bytes, own))
    bank = manifest["motifs"]
    s, k = integer(bank["block_size"], 1), integer(bank["num_motifs"], 1, 2**28)
    allowed = MOTIFS if "scales" in bank else FLOATS
    need(bank["dtype"] in allowed, "dtype of motifs")
    total = k * (s * ITEM_SIZES[bank["dtype"]] + 8)
    total += 4 * sum(num_scales(entry, bank) for entry in own)
    for entry in own:
        weights = num_weights(entry)
        padded = -(-weights // s) * s if entry["stored"] == "blocks" else weights
        total += padded * ITEM_SIZES[entry["dtype"]]
    return total


# 1. Outside


def outside(file: bytes) -> tuple[int, dict[str, bytes]]:
    """Bytes of the header, and the sections."""
    size = int.from_bytes(file[:8], "little")
    need(104 <= size <= len(file) - 8 and size % 8 == 0, "size of the header")
    text, rest = file[8 : 8 + size].rstrip(b" "), file[8 + size :]
    version = version_of(file)
    need(size >= LEAST[version], "size of the header")
    if version == 1:
        found = parse(text)
        section = cut(rest, [integer(found[name]["shape"][0]) for name in SECTIONS])
        need(text == header(section), "text of the header")
        return size, section
    need(text == header_2(len(rest)), "text of the header")
    need(len(rest) >= 24, "a trailer")
    *sums, length = struct.unpack("<6I", rest[-24:])
    end = len(rest) - 24 - length
    need(end >= 0, "length of the manifest")
    packed = rest[end:-24]
    need(zlib.crc32(packed) == sums[-1], "checksum of the manifest")
    section = cut(rest[:-24], [*lengths_in(manifest_of(packed, 2)), length])
    for name, crc in zip(SECTIONS, sums, strict=True):
        need(zlib.crc32(section[name]) == crc, "checksum", name)
    return size, section


def version_of(file: bytes) -> int:
    return 2 if file[8:].startswith(b'{"__metadata__":{"momos":"2"},') else 1


def cut(rest: bytes, lengths: list[int]) -> dict[str, bytes]:
    ends = list(accumulate(lengths, initial=0))
    need(ends[-1] == len(rest), "the sections do not fill the file")
    return {name: rest[ends[i] : ends[i + 1]] for i, name in enumerate(SECTIONS)}


def lengths_in(manifest: dict) -> list[int]:
    """Bytes of the sections before the manifest, by what it says of their parts."""
    bank = manifest.get("motifs", {"packs": []})
    packs = [pair for pack in [*bank["packs"], *bank.get("scales", [])] for pair in pack]
    streams = [pair for entry in manifest["tensors"] for pair in entry.get("streams", ())]
    dense = [p for pool in manifest["dense"] for pack in pool["packs"] for p in pack]
    parts = packs, bank.get("usage", {"streams": []})["streams"], streams, dense
    return [sum(integer(length) for _, length in own) for own in parts]


def header(section: dict[str, bytes]) -> bytes:
    """The text of version 1."""
    sums = ",".join(rf"\"{name}\":{zlib.crc32(section[name])}" for name in SECTIONS)
    text = rf'{{"__metadata__":{{"momos":"{{\"version\":1,\"crc32\":{{{sums}}}}}"}}'
    end = 0
    for name in SECTIONS:
        begin, length = end, len(section[name])
        end += length
        offsets = f'"shape":[{length}],"data_offsets":[{begin},{end}]'
        text += f',"{name}":{{"dtype":"U8",{offsets}}}'
    return text.encode() + b"}"


def header_2(length: int) -> bytes:
    offsets = f'"shape":[{length}],"data_offsets":[0,{length}]'
    return f'{{"__metadata__":{{"momos":"2"}},"momos":{{"dtype":"U8",{offsets}}}}}'.encode()


def trailer(section: dict[str, bytes]) -> bytes:
    sums = (zlib.crc32(section[name]) for name in SECTIONS)
    return struct.pack("<6I", *sums, len(section["manifest"]))


# 2. Manifest


def manifest_of(packed: bytes, version: int) -> dict:
    need(len(packed) <= 2**27, "length of the manifest")
    text = inflate(
        packed, max(65536, 64 * len(packed)), DICTIONARY if version == 2 else b""
    )
    return parse(text)


def inflate(data: bytes, most: int, dictionary: bytes = b"") -> bytes:
    stream = zlib.decompressobj(zdict=dictionary) if dictionary else zlib.decompressobj()
    result = stream.decompress(data, most + 1)
    need(stream.eof and not stream.unused_data and len(result) <= most, "zlib stream")
    return result


def parse(data: bytes):
    def object_(pairs: list) -> dict:
        need(len(dict(pairs)) == len(pairs), "a key twice")
        return dict(pairs)

    def finite(digits: str) -> float:
        need(math.isfinite(float(digits)), "a number that is not finite")
        return float(digits)

    return json.loads(
        data.decode(), object_pairs_hook=object_, parse_float=finite, parse_constant=finite
    )


def integer(value: object, least: int = 0, most: int = 2**63) -> int:
    need(type(value) is int and least <= value <= most, "an integer", value)
    return value


def rows(value: object) -> list:
    need(isinstance(value, list), "a list", value)
    return value


def text_of(value: object) -> str:
    need(isinstance(value, str), "a text", value)
    value.encode()
    return value


def texts(manifest: dict) -> None:
    text_of(manifest["producer"])
    if "metadata" in manifest:
        for key, value in manifest["metadata"].items():
            text_of(key), text_of(value)


def described(entry: dict, by_name: dict) -> None:
    need(entry["stored"] in ("blocks", "dense", "same"), "stored")
    need(type(entry.get("persistent", True)) is bool, "persistent")
    if entry["stored"] == "same":
        need(by_name[entry["as"]]["stored"] != "same", "the same as the same")
        return
    text_of(entry.get("why", ""))
    shape = [integer(n) for n in rows(entry["shape"])]
    need(len(shape) <= 64 and math.prod(n for n in shape if n) <= 2**62, "shape")
    need(entry["dtype"] in ITEM_SIZES, "dtype", entry["dtype"])
    if entry["stored"] == "blocks":
        need(entry["dtype"] in FLOATS and num_weights(entry), "blocks")
        distortion = entry.get("distortion", 0)
        need(type(distortion) in (int, float) and float(distortion) >= 0, "distortion")
        axis = integer(entry.get("axis", 0), 0, max(0, len(shape) - 1))
        need(
            integer(entry.get("scales", 1)) in (1, *shape[axis:][:1]), "scales of a tensor"
        )


def num_weights(entry: dict) -> int:
    return math.prod(map(integer, entry["shape"]))


def num_scales(entry: dict, bank: dict) -> int:
    """Those of one tensor; none if it is dense or nothing has any."""
    if entry["stored"] != "blocks":
        return 0
    if "scales" not in bank:
        need("scales" not in entry, "scales of a tensor without scales")
        return 0
    return integer(entry.get("scales", 1), 1)


def num_bytes(entry: dict) -> int:
    return num_weights(entry) * ITEM_SIZES[entry["dtype"]]


class Parts:
    """The parts of one section, in order."""

    def __init__(self, section: bytes) -> None:
        self.left = section

    def take(self, size: object) -> bytes:
        need(integer(size) <= len(self.left), "a part beyond its section")
        part, self.left = self.left[:size], self.left[size:]
        return part

    def end(self) -> None:
        need(not self.left, "bytes of no part")


# 3. Streams


def table(weights: list[int]) -> tuple[int, list[int]]:
    bits = min(28, (len(weights) - 1).bit_length() + 6)
    shift = 0
    while sum(scaled(weights, shift)) > 2**bits:
        shift += 1
    sums = list(accumulate(scaled(weights, shift), initial=0))
    return bits, [(c << bits) // sums[-1] for c in sums]


def scaled(weights: list[int], shift: int) -> list[int]:
    return [max(1, (w + 2**shift // 2) >> shift) if w else 0 for w in weights]


def decode(data: bytes, n: int, weights: list[int], rate: object) -> list[int]:
    integer(rate, 0, 31)
    need(0 < sum(weights) < 2**56, "weights")
    x = int.from_bytes(data[:8], "little")
    need(len(data) <= 8 or len(data) % 4 == 0, "bytes of a stream")
    need(not data or len(data) > 8 or data[-1], "a short stream that ends with a zero")
    need(x < 2**63 and (len(data) <= 8 or x >= 2**31), "the first state")
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(8, len(data), 4)]
    words.reverse()
    anew = max(64, len(weights) // 4) if rate else n
    bits, slots = table(weights)
    weights, symbols = list(weights), []
    for i in range(n):
        if i == anew:
            bits, slots = table(weights)
            anew += anew // 2
        r = x & (2**bits - 1)
        j = bisect_right(slots, r) - 1
        x = (slots[j + 1] - slots[j]) * (x >> bits) + r - slots[j]
        if x < 2**31 and words:
            x = x << 32 | words.pop()
        symbols.append(j)
        if rate:
            weights[j] += 2 ** (rate - 1)
    need(x == 0 and not words, "the end of a stream")
    return symbols


def coded(size: object, n: int) -> int:
    return integer(size, 0, 64 + 4 * n)


def lengths_of(n: int) -> list[int]:
    return [min(LONGEST, n - begin) for begin in range(0, n, LONGEST)]


def sequence(parts: Parts, streams: list, n: int, weights: list[int]) -> list[int]:
    result = []
    for (rate, size), length in zip(rows(streams), lengths_of(n), strict=True):
        result += decode(parts.take(coded(size, length)), length, weights, rate)
    return result


# 4. Usage


def usage(parts: Parts, bank: dict) -> list[int]:
    k = bank["num_motifs"]
    if "usage" not in bank:
        return [1] * k
    t = integer(bank["usage"]["significant"], 1, 6)
    symbols = [1] * (48 * 2 ** (t - 1) + 1)
    result = []
    for symbol in sequence(parts, bank["usage"]["streams"], k, symbols):
        g, low = divmod(symbol - 1, 2 ** (t - 1))
        scaled = (2 ** (t - 1) + low) << g if symbol else 0
        need(scaled % 2 ** (t - 1) == 0, "a usage that is no integer")
        result.append(scaled >> (t - 1))
    need(0 < sum(result) < 2**56, "sum of the usages")
    return result


# 5. Packs


def unpack(parts: Parts, packs: list, n: int, dtype: str) -> bytes:
    result = b""
    for pack, length in zip(rows(packs), lengths_of(n), strict=True):
        values = bytearray(length * ITEM_SIZES[dtype])
        for i, (rate, size) in enumerate(pack):
            values[i :: len(pack)] = plane(parts.take(coded(size, length)), length, rate)
        need(len(pack) == ITEM_SIZES[dtype], "planes")
        result += bytes(values)
    need(dtype != "bool" or not result.strip(b"\0\1"), "a bool that is not 0 or 1")
    return result


def plane(data: bytes, n: int, rate: object) -> bytes:
    if integer(rate, 0, 32) == 32:
        data = inflate(data, n)
    elif rate:
        data = bytes(decode(data, n, [1] * 256, rate))
    need(len(data) == n, "length of a plane")
    return data


def dense(entries: list, manifest: dict, section: dict) -> dict[str, bytes]:
    dtypes = list(dict.fromkeys(entry["dtype"] for entry in entries))
    parts, values = Parts(section["dense"]), {}
    for dtype, pool in zip(dtypes, rows(manifest["dense"]), strict=True):
        need(pool["dtype"] == dtype, "order of the dtypes")
        members = [entry for entry in entries if entry["dtype"] == dtype]
        n = sum(num_weights(entry) for entry in members)
        all_values = Parts(unpack(parts, pool["packs"], n, dtype))
        values |= {entry["name"]: all_values.take(num_bytes(entry)) for entry in members}
    parts.end()
    return values


# 6. Mosaic and 7. Values


def mosaic(entries: list, bank: dict, section: dict) -> dict[str, bytes]:
    s, k, dtype = bank["block_size"], bank["num_motifs"], bank["dtype"]
    parts = Parts(section["motifs"])
    if "order" in bank:
        need(bank["order"] == "whole" and s == 1, "order")
        motifs = in_order(unpack(parts, bank["packs"], k, "uint32"), dtype)
    else:
        motifs = unpack(parts, bank["packs"], k * s, dtype)
    counts, scales = [num_scales(entry, bank) for entry in entries], []
    if "scales" in bank:
        scales = floats(unpack(parts, bank["scales"], sum(counts), "float32"), "float32")
        need(all(math.isfinite(scale) and scale > 0 for scale in scales), "scales")
    parts.end()
    parts = Parts(section["usage"])
    weights = usage(parts, bank)
    parts.end()
    parts, values = Parts(section["mosaic"]), {}
    numbers = floats(motifs, dtype)
    need(all(map(math.isfinite, numbers)), "motifs")
    number_of, states = {}, bank.get("states")
    if "states" in bank:
        need(states in STATES and s == 1 and "usage" not in bank, "states")
        need(all(v == int(v) and abs(v) < 2**30 for v in numbers), "whole motifs")
        need(not any(v == 0 and math.copysign(1, v) < 0 for v in numbers), "-0")
        number_of = {int(v): j for j, v in enumerate(numbers)}
        need(len(number_of) == k, "different motifs")
    for entry, count in zip(entries, counts, strict=True):
        num_blocks = -(-num_weights(entry) // s)
        axis = entry.get("axis", 0)
        if states:
            found = by_value(parts, entry, states)
            indices = [number_of[v] for v in by_position(found, entry["shape"], axis)]
        else:
            indices = sequence(parts, entry["streams"], num_blocks, weights)
        size = s * ITEM_SIZES[dtype]
        flat = b"".join(motifs[i * size : (i + 1) * size] for i in indices)
        flat = flat[: num_weights(entry) * ITEM_SIZES[dtype]]
        own, scales = scales[:count], scales[count:]
        inner = math.prod(entry["shape"][axis + 1 :])
        values[entry["name"]] = converted(flat, dtype, entry["dtype"], own, inner)
    parts.end()
    return values


def in_order(distances: bytes, dtype: str) -> bytes:
    """Motifs by the distances of their places: 0, -1, 1, -2, 2 are at 0, 1, 2, 3, 4."""
    place, values = -1, []
    for (distance,) in struct.iter_unpack("<I", distances):
        place += 1 + distance
        values.append(-(place + 1) // 2 if place % 2 else place // 2)
    need(all(abs(value) < 2**30 for value in values), "size of a motif")
    data = bytes_of([float(value) for value in values], dtype)
    need(floats(data, dtype) == values, "motifs that their dtype holds")
    return data


def by_value(parts: Parts, entry: dict, states: int) -> list[int]:
    n, result = num_weights(entry), []
    shape = list(entry["shape"])
    channels = shape.pop(entry.get("axis", 0)) if shape else 1
    row, kernel = n // channels, math.prod(shape[1:])
    for (rate, size), length in zip(rows(entry["streams"]), lengths_of(n), strict=True):
        integer(rate, 0, 0)
        data, v = parts.take(coded(size, length)), states.bit_length() - 1
        result += lattice_decoder.decode(
            data, length, memory=v, row=row, kernel=kernel, position=len(result)
        )
    return result


def by_position(found: list[int], shape: list[int], axis: int) -> list[int]:
    """Values channel by channel, in the order of the tensor."""
    inner, channels = math.prod(shape[axis + 1 :]), [*shape, 1][axis]
    if not axis:
        return found
    size = len(found) // channels
    result = [0] * len(found)
    for i, value in enumerate(found):
        channel, rest = divmod(i, size)
        before, behind = divmod(rest, inner)
        result[(before * channels + channel) * inner + behind] = value
    return result


def converted(values: bytes, dtype: str, to: str, scales: list[float], inner: int) -> bytes:
    if scales:
        wide = "float64" if to == "float64" else "float32"
        factors = floats(bytes_of(floats(values, dtype), wide), wide)
        # The product of two float32 is exact in float64, so that this rounds once.
        products = [
            value * scales[i // inner % len(scales)] for i, value in enumerate(factors)
        ]
        values, dtype = bytes_of(products, wide), wide
    if dtype == "float64" and to in ("float16", "bfloat16"):
        values, dtype = bytes_of(floats(values, dtype), "float32"), "float32"
    return values if dtype == to else bytes_of(floats(values, dtype), to)


def floats(values: bytes, dtype: str) -> list[float]:
    if dtype == "bfloat16":  # the upper halves of float32
        values = b"".join(b"\0\0" + values[i : i + 2] for i in range(0, len(values), 2))
    code = MOTIFS[dtype] or "f"
    return [float(value) for (value,) in struct.iter_unpack("<" + code, values)]


def bytes_of(values: list[float], dtype: str) -> bytes:
    if dtype == "int8":
        need(all(-128 <= value < 128 for value in values), "int8")
        return struct.pack(f"<{len(values)}b", *map(int, values))
    return b"".join(rounded(value, FLOATS[dtype]) for value in values)


def rounded(value: float, code: str) -> bytes:
    """To nearest, ties to even; beyond the largest number is infinity."""
    if code:
        try:
            return struct.pack("<" + code, value)
        except OverflowError:
            return struct.pack("<" + code, math.copysign(math.inf, value))
    if not math.isfinite(value) or value == 0:
        return struct.pack("<f", value)[2:]
    lowest = max(math.frexp(value)[1] - 8, -133)  # exponent of the last of 8 binary digits
    nearest = math.ldexp(round(math.ldexp(value, -lowest)), lowest)
    return rounded(math.copysign(nearest, value), "f")[2:]
