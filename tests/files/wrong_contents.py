"""Streams, usage, packs and values that are wrong (docs/format.md, §3 to §7)."""

import hashlib
import struct
import zlib
from collections.abc import Callable

import reader
from files.one_change import BASE, Files, changed
from files.written import written
from mutants import Draft

NAN, INFINITY = float("nan"), float("inf")

# 3 to 6: streams, usage, packs


def streams() -> Files:
    for section, number in (("mosaic", 0), ("usage", 0), ("dense", 2)):
        for name, change in BROKEN.items():
            if section != "mosaic" and name.startswith("long: "):
                continue
            yield f"{section}: {name}", broken(section, number, change)
    yield (
        "a stream too many",
        changed(lambda d: d.tensor("first")["streams"].append([0, 0])),
    )
    yield "a short stream that ends with a zero", changed(zero_more)
    yield "no stream", changed(lambda d: d.tensor("first").update(streams=[]))
    yield "two streams that change lengths", changed(other_lengths)
    yield (
        "a triple for a stream",
        changed(lambda d: d.tensor("first")["streams"][0].append(0)),
    )
    yield (
        "a plane too many",
        changed(lambda d: d.manifest["dense"][0]["packs"][0].append([0, 0])),
    )
    yield (
        "a pack too many",
        changed(lambda d: d.manifest["dense"][0]["packs"].append([[0, 0]] * 4)),
    )
    yield (
        "a rate of 32 for indices",
        changed(lambda d: d.tensor("first")["streams"][0].__setitem__(0, 32)),
    )
    yield (
        "a rate of 33 for a plane",
        changed(lambda d: d.manifest["dense"][1]["packs"][0][2].__setitem__(0, 33)),
    )
    names = ("all usages 0", "a usage that is no integer", "usages of 2**56 together")
    tables = ([0] * 300, [2] + [1] * 299, [48 * 32] * 300)
    for name, table in zip(names, tables, strict=True):
        draft = written([0.5] * 300, [("a", [1], [0])], usage=table, significant=6)
        draft.manifest["sha256"] = hashlib.sha256(struct.pack("<f", 0.5)).hexdigest()
        yield name, draft.file()
    for significant in (0, 7, 2**31):
        yield (
            f"significant {significant}",
            changed(
                lambda d, t=significant: d.manifest["motifs"]["usage"].update(significant=t)
            ),
        )
    for name, data in (
        ("a plane of zlib too long", zlib.compress(b"\0" * 41)),
        ("a plane of zlib too short", zlib.compress(b"\0" * 39)),
        ("a plane of zlib that goes on", zlib.compress(b"\0" * 40) + b"\0"),
        ("a plane of zlib cut", zlib.compress(b"\0" * 40)[:-1]),
        ("a plane that is a bomb", zlib.compress(b"\0" * 10**7)),
        ("a plane that is no zlib stream", b"\xff" * 9),
    ):
        yield name, replaced_mask([32, len(data)], data)
    yield "a bool of 2", replaced_mask([0, 40], b"\2" + b"\0" * 39)
    yield "a bool of 255", replaced_mask([0, 40], b"\xff" + b"\0" * 39)


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "long: state of 2**63": lambda data: data[:7] + bytes([data[7] | 128]) + data[8:],
    "long: a word more": lambda data: data + b"\0\0\0\0",
    "long: a word less": lambda data: data[:-4],
    "long: a byte more": lambda data: data + b"\0",
    "long: last bit flipped": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "all 255": lambda data: b"\xff" * len(data),
    "empty": lambda data: b"",
    "a byte less": lambda data: data[:-1],
    "much more": lambda data: data + b"\x55" * 4000,
}


def broken(section: str, number: int, change: Callable[[bytes], bytes]) -> bytes:
    """One part of a section changed, its length right, the SHA-256 not."""

    def apply(draft: Draft) -> None:
        if section == "mosaic":
            coded = draft.tensor("first")["streams"][0]
        elif section == "usage":
            coded = draft.manifest["motifs"]["usage"]["streams"][0]
        else:
            coded = draft.manifest["dense"][0]["packs"][0][number]
        before = number * coded[1]
        data = draft.sections[section]
        part = change(data[before : before + coded[1]])
        draft.sections[section] = data[:before] + part + data[before + coded[1] :]
        coded[1] = len(part)

    return changed(apply)


def zero_more(draft: Draft) -> None:
    """Which a number does not change with."""
    draft.tensor("third")["streams"][0][1] += 1
    draft.sections["mosaic"] += b"\0"


def other_lengths(draft: Draft) -> None:
    a, b = draft.tensor("first")["streams"][0], draft.tensor("second")["streams"][0]
    a[1], b[1] = a[1] - 4, b[1] + 4


def replaced_mask(coded: list[int], data: bytes) -> bytes:
    """The one plane of the bools in other bytes; the SHA-256 is that of them as they are."""

    def apply(draft: Draft) -> None:
        pools = draft.manifest["dense"]
        before = sum(n for pool in pools[:2] for pack in pool["packs"] for _, n in pack)
        length = pools[2]["packs"][0][0][1]
        dense = draft.sections["dense"]
        draft.sections["dense"] = dense[:before] + data + dense[before + length :]
        pools[2]["packs"] = [[coded]]
        tensors = {name: value for name, (_, _, value) in reader.read_bytes(BASE).items()}
        draft.manifest["sha256"] = summed(tensors | {"mask": data[:40]})

    return changed(apply)


# 7. Values


def values() -> Files:
    for scale in (0.0, -0.0, -0.5, NAN, INFINITY, -INFINITY):
        yield f"a scale of {scale}", scaled_by(scale)
    yield "scales for another number of tensors", changed(one_scale)
    yield "scales without packs", changed(lambda d: d.manifest["motifs"].update(scales=[]))
    for count in (2, 25, 29, 31):
        yield f"{count} scales of 30 channels", scaled_apart(count)
    yield "a scale of one channel that is 0", scaled_apart(30, last=0.0)
    yield "a scale of one channel that is NaN", scaled_apart(30, last=NAN)
    yield (
        "scales of channels that are not there",
        changed(lambda d: d.tensor("first").update(scales=30)),
    )
    yield "a motif changed", changed(lambda d: flip(d, "motifs"))
    yield "an index changed", changed(lambda d: flip(d, "mosaic"))
    yield "a dense value changed", changed(lambda d: flip(d, "dense"))
    yield "a usage changed", changed(lambda d: flip(d, "usage"))


def scaled_by(scale: float) -> bytes:
    """The scale of the first tensor replaced; the SHA-256 is that of what it then is."""

    def apply(draft: Draft) -> None:
        motifs = bytearray(draft.sections["motifs"])
        motifs[-12::3] = struct.pack("<f", scale)
        draft.sections["motifs"] = bytes(motifs)
        tensors = {name: value for name, (_, _, value) in reader.read_bytes(BASE).items()}
        first = [
            value / 0.5 * scale for value in reader.floats(tensors["first"], "float32")
        ]
        tensors["first"] = reader.bytes_of(first, "float32")
        draft.manifest["sha256"] = summed(tensors)

    return changed(apply)


def scaled_apart(count: int, *, last: float = 0.5) -> bytes:
    """As many equal scales for the first tensor, but for the last one; the SHA-256 as it was."""

    def apply(draft: Draft) -> None:
        scales = [0.5] * (count - 1) + [last, 3.25, 1.1]
        data = struct.pack(f"<{len(scales)}f", *scales)
        draft.sections["motifs"] = draft.sections["motifs"][:-12]
        draft.sections["motifs"] += b"".join(data[i::4] for i in range(4))
        draft.manifest["motifs"]["scales"] = [[[0, len(scales)]] * 4]
        draft.tensor("first")["scales"] = count

    return changed(apply)


def one_scale(draft: Draft) -> None:
    draft.sections["motifs"] = draft.sections["motifs"][:-12] + b"\0\0\0\x3f"
    draft.manifest["motifs"]["scales"] = [[[0, 1]] * 4]


def flip(draft: Draft, section: str) -> None:
    data = draft.sections[section]
    draft.sections[section] = bytes([data[0] ^ 1]) + data[1:]


def summed(tensors: dict[str, bytes]) -> str:
    del tensors["tied"]
    return hashlib.sha256(b"".join(tensors.values())).hexdigest()
