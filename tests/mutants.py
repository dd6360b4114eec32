"""Files that are wrong in one place only: everything around it fits what was changed.

A `Draft` is a file taken apart. Putting it together again makes lengths, checksums and header
right, so that a reader gets as far as what was changed on purpose.
"""

import json
import math
import random
import zlib
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import memory
import reader
import torch
from torch import Tensor

import momos

REFUSED, LOADED = "refused", "loaded"
MOST_SIZE = 704  # bytes of header, so that no mutant expands to more than 44 MiB
LONG = 1 << 18  # bytes of content that the second reader takes too long for

EDGES = (0, 1, 7, 31, 32, 33, 63, 64, 127, 128, 255, 256, 2**16, 2**20, 2**28, 2**31)
EDGES += (2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**15, 10**400, -1, -(2**63))
ODD = (*EDGES, None, True, False, 0.0, 1.5, -0.0, 1e300, "", "\0", "é", "\ud800", [], {})
ODD += ([0], [[]], [0, 0], {"": 0}, "float32", "bool", "same", "blocks", "dense", "0" * 64)


@dataclass
class Draft:
    """The parts of a file: the manifest, as JSON or as bytes, and the other sections."""

    manifest: Any
    sections: dict[str, bytes]
    version: int = 1

    @classmethod
    def of(cls, file: bytes) -> "Draft":
        _, sections = reader.outside(file)
        version = reader.version_of(file)
        return cls(reader.manifest_of(sections.pop("manifest"), version), sections, version)

    def copy(self) -> "Draft":
        return deepcopy(self)

    def file(self, *, size: int | None = None) -> bytes:
        """The whole file, with the header that it needs or one of `size` bytes."""
        text = self.manifest
        if not isinstance(text, bytes):
            text = json.dumps(text, separators=(",", ":")).encode()
        deflated = deflate(text, self.version)
        if self.version == 2:
            return closed_2(self.sections | {"manifest": deflated}, size or self.size())
        return closed(self.sections | {"manifest": deflated}, size or self.size())

    def size(self) -> int:
        """Bytes of header for what the manifest claims; the least if that is nonsense."""
        size, least = 8 * -(-claimed(self) // (8 * 65536)), reader.LEAST[self.version]
        return size if least < size <= MOST_SIZE else least

    def tensor(self, name: str) -> dict[str, Any]:
        return next(entry for entry in self.manifest["tensors"] if entry["name"] == name)


def closed(sections: dict[str, bytes], size: int = 640, text: bytes | None = None) -> bytes:
    """A file of these sections, or with the header `text` in place of theirs."""
    text = reader.header(sections) if text is None else text
    body = b"".join(sections[name] for name in reader.SECTIONS)
    return size.to_bytes(8, "little") + text.ljust(size) + body


def closed_2(sections: dict[str, bytes], size: int = 104) -> bytes:
    """A file of version 2; `Draft.of` finds its sections if the manifest tells their lengths."""
    body = b"".join(sections[name] for name in reader.SECTIONS) + reader.trailer(sections)
    return size.to_bytes(8, "little") + reader.header_2(len(body)).ljust(size) + body


def deflate(text: bytes, version: int) -> bytes:
    extra = (reader.DICTIONARY,) if version == 2 else ()
    deflater = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, *extra)
    return deflater.compress(text) + deflater.flush()


def encode(symbols: list[int], weights: list[int]) -> bytes:
    """The stream of `symbols` at rate 0."""
    bits, slots = reader.table(weights)
    x, words = 0, b""
    for j in reversed(symbols):
        share = slots[j + 1] - slots[j]
        if x >= share << (63 - bits):
            words = (x % 2**32).to_bytes(4, "little") + words
            x >>= 32
        x = (x // share << bits) + x % share + slots[j]
    return x.to_bytes(8 if words else -(-x.bit_length() // 8), "little") + words


# Mutants


def mutant(files: list[bytes], seed: int) -> bytes:
    """A file that is one of `files` changed at random; the same for the same seed."""
    draw = random.Random(seed)
    ways = (damaged, damaged, other_sections, other_manifest, other_manifest, other_parts)
    ways += (spliced, absurd, absurd, swapped, swapped)
    file = draw.choice(ways)(draw, draw.choice(files), draw.choice(files))
    return file if draw.random() < 0.9 else damaged(draw, file, file)


def damaged(draw: random.Random, file: bytes, other: bytes) -> bytes:
    """Bytes changed, put in, taken out or taken from another file; no checksum is repaired."""
    data = bytearray(file)
    for _ in range(draw.choice((1, 1, 1, 2, 5, 20))):
        at = draw.randrange(len(data) + 1)
        length = draw.choice((0, 1, 1, 4, 8, draw.randrange(200)))
        kind = draw.randrange(5)
        if kind == 0:
            data[at : at + 1] = draw.randbytes(1)
        elif kind == 1:
            data[at:at] = draw.randbytes(length)
        elif kind == 2:
            del data[at : at + max(1, length)]
        elif kind == 3:
            start = draw.randrange(len(other))
            data[at : at + length] = other[start : start + length]
        else:
            data[at : at + length] = data[:at][-length:] if length else b" "
    return bytes(data)


def other_sections(draw: random.Random, file: bytes, other: bytes) -> bytes:
    """Sections exchanged, or taken from another file, under a right header."""
    size, sections = reader.outside(file)
    _, others = reader.outside(other)
    a, b = draw.sample(reader.SECTIONS, 2)
    if draw.random() < 0.5:
        sections[a], sections[b] = sections[b], sections[a]
    else:
        sections[a] = others[draw.choice((a, b))]
    return (closed_2 if reader.version_of(file) == 2 else closed)(sections, size)


def other_manifest(draw: random.Random, file: bytes, other: bytes) -> bytes:
    """Values of the manifest changed, taken out or put elsewhere; the rest repaired."""
    draft = Draft.of(file)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(places_in(draft.manifest))
        holder, key = draw.choice(places)
        kind = draw.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and type(holder[key]) is int:
            holder[key] = max(0, holder[key] + draw.choice((-2, -1, 1, 1, 2, 8)))
        elif kind == 2:
            from_, at = draw.choice(places)
            holder[key] = deepcopy(from_[at])
        elif kind == 3 and isinstance(holder, list):
            holder.insert(draw.randrange(len(holder) + 1), deepcopy(holder[key]))
        elif kind == 4 and isinstance(holder, dict):
            other_key = draw.choice(
                ("as", "why", "usage", "scales", "scales", "config", "x")
            )
            holder[other_key] = deepcopy(holder[key])
        else:
            holder[key] = deepcopy(draw.choice(ODD))
        if not draft.manifest:
            break
    if draw.random() < 0.1:
        text = json.dumps(draft.manifest).encode()
        draft.manifest = damaged(draw, text, text)
    return draft.file()


def other_parts(draw: random.Random, file: bytes, other: bytes) -> bytes:
    """Bytes of the sections changed, with lengths in the manifest that fit them or not."""
    draft = Draft.of(file)
    names = [name for name, data in draft.sections.items() if data]
    if not names:
        return damaged(draw, file, other)
    name = draw.choice(names)
    data = bytearray(draft.sections[name])
    for _ in range(draw.choice((1, 1, 2, 10))):
        data[draw.randrange(len(data))] = draw.choice((0, 1, 2, 127, 128, 255))
    if draw.random() < 0.3:  # a part longer or shorter, and its length right
        coded = draw.choice(list(coded_of(draft.manifest, name)))
        change = draw.choice((-4, -1, 1, 4))
        if coded[1] + change >= 0:
            coded[1] += change
            data = data[:change] if change < 0 else data + draw.randbytes(change)
    draft.sections[name] = bytes(data)
    if draw.random() < 0.3:  # whatever it now means is right
        resum(draft)
    return draft.file()


def spliced(draw: random.Random, file: bytes, other: bytes) -> bytes:
    """Sections of another file together with all that the manifest says of them."""
    draft, from_ = Draft.of(file), Draft.of(other)
    for name in draw.sample(reader.SECTIONS[:-1], draw.choice((1, 1, 2, 3))):
        draft.sections[name] = from_.sections[name]
        ours, theirs = draft.manifest, deepcopy(from_.manifest)
        if name == "dense":
            mosaic = [e for e in ours["tensors"] if e["stored"] == "blocks"]
            rest = [e for e in theirs["tensors"] if e["stored"] != "blocks"]
            ours["tensors"], ours["dense"] = mosaic + rest, theirs["dense"]
        elif name == "mosaic":
            rest = [e for e in ours["tensors"] if e["stored"] != "blocks"]
            blocks = [e for e in theirs["tensors"] if e["stored"] == "blocks"]
            ours["tensors"] = draw.choice((blocks + rest, rest + blocks))
        elif "motifs" in ours and "motifs" in theirs:
            keys = ("usage",) if name == "usage" else ("packs", "num_motifs", "dtype")
            keys += ("block_size", "scales") * (name == "motifs")
            for key in keys:
                ours["motifs"].pop(key, None)
                if key in theirs["motifs"]:
                    ours["motifs"][key] = theirs["motifs"][key]
    if draw.random() < 0.7:
        resum(draft)
    return draft.file()


def absurd(draw: random.Random, file: bytes, other: bytes) -> bytes:
    """A number that claims much, and streams and packs of no bytes for as much as it claims."""
    draft = Draft.of(file)
    entries = [e for e in draft.manifest["tensors"] if e["stored"] != "same"]
    bank = draft.manifest.get("motifs")
    number = draw.choice(EDGES) + draw.choice((0, 0, -1, 1))
    number = draw.choice((number, draw.randrange(1 << draw.randrange(1, 23))))
    if bank and draw.random() < 0.6:
        bank[draw.choice(("num_motifs", "num_motifs", "block_size"))] = number
    elif entries:
        entry = draw.choice(entries)
        entry["shape"] = draw.choice(([number], [number, 1], [1, number], [2, number]))
        if draw.random() < 0.2:
            entry["scales"] = entry["shape"][0]
    if draw.random() < 0.9:
        refit(draft, draw.choice((0, 1, 1, 31)))
    if draw.random() < 0.5:
        resum(draft)
    return draft.file()


def refit(draft: Draft, rate: int) -> None:
    """Makes every part whose number of streams does not fit a number of empty ones."""
    manifest, dense = draft.manifest, {}
    bank = manifest.get("motifs", {"block_size": 1, "num_motifs": 1, "dtype": "float32"})

    def fitted(rows: list[Any], count: int, empty: Any) -> list[Any]:
        wanted = max(0, -(-count // reader.LONGEST))
        return rows if len(rows) == wanted or wanted > 4096 else [empty] * wanted

    size = reader.ITEM_SIZES.get(bank["dtype"], 1)
    count = bank["num_motifs"] * bank["block_size"]
    if "packs" in bank:
        bank["packs"] = fitted(bank["packs"], count, [[rate, 0]] * size)
    if "usage" in bank:
        rows = bank["usage"]["streams"]
        bank["usage"]["streams"] = fitted(rows, bank["num_motifs"], [rate, 0])
    for entry in manifest["tensors"]:
        if entry["stored"] == "same":
            continue
        weights = math.prod(entry["shape"])
        if entry["stored"] == "blocks":
            blocks = -(-weights // max(1, bank["block_size"]))
            entry["streams"] = fitted(entry["streams"], blocks, [rate, 0])
        else:
            dense[entry["dtype"]] = dense.get(entry["dtype"], 0) + weights
    for pool in manifest["dense"]:
        empty = [[rate, 0]] * reader.ITEM_SIZES[pool["dtype"]]
        pool["packs"] = fitted(pool["packs"], dense.get(pool["dtype"], 0), empty)
    sections = {"motifs": 0, "usage": 0, "mosaic": 0, "dense": 0}
    for name in sections:
        if name != "usage" or "usage" in bank:
            parts = coded_of(manifest, name) if name == "dense" or "packs" in bank else ()
            sections[name] = sum(length for _, length in parts)
        data = draft.sections[name]
        draft.sections[name] = data[: sections[name]].ljust(sections[name], b"\0")


def swapped(draw: random.Random, file: bytes, other: bytes) -> bytes:
    """Tensors in other places, of other dtypes, or the same as others."""
    draft = Draft.of(file)
    tensors = draft.manifest["tensors"]
    if not tensors:
        return damaged(draw, file, other)
    for _ in range(draw.choice((1, 1, 2, 4))):
        one, two = draw.choice(tensors), draw.choice(tensors)
        kind = draw.randrange(7)
        if kind == 0:
            at, to = draw.randrange(len(tensors)), draw.randrange(len(tensors))
            tensors[at], tensors[to] = tensors[to], tensors[at]
        elif kind == 1 and one["stored"] == two["stored"] != "same":
            key = draw.choice(("shape", "dtype", "name", "streams"))
            if key in one and key in two:
                one[key], two[key] = two[key], one[key]
        elif kind == 2 and one["stored"] != "same":
            like = reader.ITEM_SIZES[one["dtype"]]
            names = [name for name, size in reader.ITEM_SIZES.items() if size == like]
            one["dtype"] = draw.choice(names)
        elif kind == 3:
            name = draw.choice((one["name"], two["name"], "again", "\x1b[2J"))
            tensors.append({"name": name, "stored": "same", "as": two["name"]})
        elif kind == 4 and one["stored"] == "same":
            one["as"] = two["name"]
        elif kind == 5 and one is not two:
            name = one["name"]
            one.clear()
            one |= {"name": name, "stored": "same", "as": two["name"]}
        else:
            one["persistent"] = draw.random() < 0.5
    if draw.random() < 0.6:
        dtypes = [e["dtype"] for e in tensors if e["stored"] == "dense"]
        order = list(dict.fromkeys(dtypes))
        pools = draft.manifest["dense"]
        pools.sort(key=lambda p: order.index(p["dtype"]) if p["dtype"] in order else 99)
    if draw.random() < 0.7:
        resum(draft)
    return draft.file()


def places_in(value: Any) -> Any:
    """Every holder and key of a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places_in(value[key])


def coded_of(manifest: Any, section: str) -> Any:
    """The pairs of rate and length of one section."""
    bank = manifest.get("motifs", {})
    if section == "motifs":
        yield from (pair for pack in bank["packs"] for pair in pack)
        yield from (pair for pack in bank.get("scales", ()) for pair in pack)
    elif section == "usage":
        yield from bank["usage"]["streams"]
    elif section == "mosaic":
        yield from (pair for e in manifest["tensors"] for pair in e.get("streams", ()))
    else:
        yield from (p for pool in manifest["dense"] for pack in pool["packs"] for p in pack)


def claimed(draft: Draft) -> int:
    """Bytes of the content that the manifest claims; 0 if that is nonsense."""
    try:
        own = [e for e in draft.manifest["tensors"] if e["stored"] != "same"]
        return reader.expanded(draft.manifest, own)
    except (reader.Refused, *reader.REFUSALS):
        return 0


def resum(draft: Draft) -> None:
    """Gives `draft` the SHA-256 of what it means, where that is short and means anything."""
    if claimed(draft) > LONG:
        return
    try:
        draft.manifest["sha256"] = reader.sha256(draft.file())
    except (reader.Refused, *reader.REFUSALS):
        pass


# What becomes of them


def outcome(file: bytes, path: Path, *, measured: bool = False) -> str:
    """`REFUSED` or `LOADED`; anything else is a fault, and says which.

    `load` and `verify` must agree, what is loaded must be whole, and the second reader must
    refuse the same files and find the same in the others, unless they are long. Where it is
    `measured`, neither may take more memory than a file of that size allows.
    """
    path.write_bytes(file)
    greedy: list[str] = []
    counted = memory.counted(path, greedy) if measured else nullcontext()
    short = short_enough(file)
    try:
        with counted, momos.MosaicFile(path) as opened:
            opened.verify()
        verified = ""
    except momos.FormatError as error:
        verified = str(error)
    except Exception as error:  # which one is the result
        return f"verify: {type(error).__name__}: {error}"
    counted = memory.counted(path, greedy) if measured else nullcontext()
    try:
        with counted:
            tensors = contents(momos.load(path))
    except momos.FormatError as error:
        if str(path) not in str(error):
            return f"an error that names no file: {error}"
        if not verified:
            return f"load alone refuses: {error.problem}"
        if greedy:
            return greedy[0]
        if not short or refused_by_reader(file):
            return REFUSED
        return f"the reader loads: {error.problem}"
    except Exception as error:
        return f"load: {type(error).__name__}: {error}"
    if verified or greedy:
        return f"verify alone refuses: {verified}" if verified else greedy[0]
    try:
        same = not short or reader.read_bytes(file) == tensors
        return LOADED if same else "loaded as something else"
    except reader.Refused as error:
        return f"the reader refuses: {error}"


def short_enough(file: bytes) -> bool:
    """Whether the second reader, which takes one value at a time, is quick with `file`."""
    try:
        return claimed(Draft.of(file)) <= LONG
    except (reader.Refused, *reader.REFUSALS):
        return True


def refused_by_reader(file: bytes) -> bool:
    try:
        reader.read_bytes(file)
    except reader.Refused:
        return True
    return False


def contents(checkpoint: momos.Checkpoint) -> reader.Tensors:
    """The tensors of a checkpoint, whose parts must fit each other."""
    tensors = checkpoint.tensors()
    assert checkpoint.state_dict().keys() <= tensors.keys()
    assert list(tensors) == [record.name for record in checkpoint.records]
    if checkpoint.mosaic:
        assert int(checkpoint.mosaic.usage().sum()) == len(checkpoint.mosaic.indices)
    return {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), raw(tensor))
        for name, tensor in tensors.items()
    }


def raw(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
