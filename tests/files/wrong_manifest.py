"""Manifests that are wrong, or claim too much (docs/format.md, §2)."""

import zlib
from typing import Any

from files.one_change import BASE, Files, changed
from files.written import written
from mutants import Draft, resum

WRONG: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "a fraction": 1.5,
    "a whole fraction": 1.0,
    "a text": "1",
    "an empty text": "",
    "an object": {"a": 1},
    "a negative number": -1,
    "10**15": 10**15,
    "2**63": 2**63,
    "2**64": 2**64,
    "10**400": 10**400,
    "10**4000": 10**4000,
    "a lone surrogate": "\ud800",
    "a list of lists": [[[[]]]],
}


def fields() -> Files:
    def set_to(place: str, value: Any) -> bytes:
        def change(draft: Draft) -> None:
            *path, key = place.split(".")
            holder = holder_of(draft, path)
            holder[int(key) if isinstance(holder, list) else key] = value

        return changed(change)

    def without(place: str) -> bytes:
        *path, key = place.split(".")
        return changed(lambda draft: holder_of(draft, path).pop(key))

    needed = (
        "producer motifs motifs.block_size motifs.num_motifs motifs.dtype motifs.packs "
        "motifs.usage.significant motifs.usage.streams tensors dense sha256 "
        "tensors.0.name tensors.0.stored tensors.0.shape tensors.0.dtype tensors.0.streams "
        "tensors.3.as tensors.4.shape tensors.4.dtype dense.0.dtype dense.0.packs"
    )
    right = {"producer": str, "tensors.0.name": str, "tensors.3.as": str}
    for place in needed.split():
        yield f"no {place}", without(place)
        for name, value in WRONG.items():
            if name == "a lone surrogate" or not isinstance(value, right.get(place, tuple)):
                yield f"{place} is {name}", set_to(place, value)
    numbers = (
        "tensors.0.shape.0 tensors.0.streams.0.0 tensors.0.streams.0.1 motifs.packs.0.0.0"
    )
    numbers += " motifs.packs.0.0.1 motifs.scales.0.0.1 motifs.usage.streams.0.1"
    numbers += " dense.0.packs.0.0.1 dense.1.packs.0.2.0"
    for place in numbers.split():
        for name, value in WRONG.items():
            yield f"{place} is {name}", set_to(place, value)
    for name, value in WRONG.items():
        yield f"scales of a tensor is {name}", set_to("tensors.0.scales", value)
    for name, value in WRONG.items():
        if name not in ("an object",):
            yield f"config is {name}", set_to("config", value)
            yield f"metadata is {name}", set_to("metadata", value)
        if type(value) is not str or name == "a lone surrogate":
            yield f"a text of metadata is {name}", set_to("metadata", {"a": value})
            yield f"why is {name}", set_to("tensors.4.why", value)
        if type(value) is not bool:
            yield f"persistent is {name}", set_to("tensors.4.persistent", value)
    for name in ("null", "true", "a text", "a negative number", "an object", "10**400"):
        yield f"distortion is {name}", set_to("tensors.0.distortion", WRONG[name])
    yield "a key of metadata is a lone surrogate", set_to("metadata", {"\ud800": ""})
    yield "an unknown dtype", set_to("tensors.4.dtype", "float128")
    yield "complex of float16", set_to("tensors.4.dtype", "complex32")
    yield "a quantized dtype", set_to("tensors.4.dtype", "qint8")
    yield "a dtype that is no dtype", set_to("tensors.4.dtype", "Tensor")
    yield "blocks of integers", set_to("tensors.0.dtype", "int32")
    yield "motifs of integers", set_to("motifs.dtype", "int32")
    yield "motifs of another dtype", set_to("motifs.dtype", "float64")
    yield "motifs of unsigned bytes", changed(lambda d: one_plane(d, "uint8"))
    yield "motifs of bool", changed(lambda d: one_plane(d, "bool"))
    yield "motifs of float8", changed(lambda d: one_plane(d, "float8_e5m2"))
    yield "whole motifs without scales", changed(whole_without_scales)
    yield "scales of a tensor without scales", changed(scale_without_scales)
    yield "an unknown way to be stored", set_to("tensors.4.stored", "sparse")
    yield "the same as nothing", set_to("tensors.3.as", "absent")
    yield "the same as itself", set_to("tensors.3.as", "tied")
    yield "names twice", set_to("tensors.4.name", "first")
    yield "dtypes in another order", changed(lambda d: d.manifest["dense"].reverse())
    yield "a dtype too few", changed(lambda d: d.manifest["dense"].pop())
    yield (
        "a dtype twice",
        changed(lambda d: d.manifest["dense"].append(d.manifest["dense"][0])),
    )
    yield "no blocks though there are motifs", changed(no_blocks)
    yield "the same as another of the same", changed(same_twice)
    for digits in ("0" * 64, "", "f" * 63, "f" * 65, "g" * 64, "٣" * 64):
        yield f"sha256 {digits[:3]!r} of {len(digits)}", set_to("sha256", digits)


def holder_of(draft: Draft, path: list[str]) -> Any:
    holder = draft.manifest
    for key in path:
        holder = holder[int(key) if isinstance(holder, list) else key]
    return holder


def one_plane(draft: Draft, dtype: str) -> None:
    """Motifs of one byte, all 1, and the SHA-256 of nothing."""
    bank = draft.manifest["motifs"]
    before = sum(length for pack in bank["packs"] for _, length in pack)
    count = bank["num_motifs"] * bank["block_size"]
    draft.sections["motifs"] = b"\1" * count + draft.sections["motifs"][before:]
    bank |= {"dtype": dtype, "packs": [[[0, count]]]}


def whole_without_scales(draft: Draft) -> None:
    one_plane(draft, "int8")
    del draft.manifest["motifs"]["scales"]
    draft.sections["motifs"] = draft.sections["motifs"][:-12]


def scale_without_scales(draft: Draft) -> None:
    """1 for a tensor, though there are none; everything else is right."""
    del draft.manifest["motifs"]["scales"]
    draft.sections["motifs"] = draft.sections["motifs"][:-12]
    resum(draft)
    draft.tensor("first")["scales"] = 1


def no_blocks(draft: Draft) -> None:
    tensors = draft.manifest["tensors"]
    tensors[:] = [entry for entry in tensors if entry["stored"] == "dense"]


def same_twice(draft: Draft) -> None:
    draft.manifest["tensors"].append({"name": "again", "stored": "same", "as": "tied"})


# Claims


def claims() -> Files:
    def entry(shape: list[int], **keys: Any) -> bytes:
        return changed(lambda draft: draft.tensor("kept").update(keys, shape=shape))

    for shape in ([10**15], [2**62], [2**63], [2**31, 2**31], [2**32, 2**32], [1] * 65):
        yield f"dense of shape {shape[:2]}", entry(shape)
    yield "dense of shape [2] * 64", entry([2] * 64)
    yield "a shape of 20 000 numbers", entry([2**61] * 20_000)
    yield "a shape with a zero, huge", entry([0, 2**62, 2])
    yield "a shape with a zero, overflowing", entry([2**40, 0, 2**40])
    yield "a negative shape", entry([-1, -11])
    for key, value in (("num_motifs", 2**28), ("num_motifs", 2**28 + 1), ("num_motifs", 0)):
        yield (
            f"{key} {value}",
            changed(lambda d, k=key, v=value: d.manifest["motifs"].update({k: v})),
        )
    for value in (0, 2**31, 10**9, 2**62, 2**63):
        yield (
            f"block_size {value}",
            changed(lambda d, v=value: d.manifest["motifs"].update(block_size=v)),
        )
    for weights in (10**7, 10**9, 10**15):
        yield f"{weights} weights of one motif", one_motif(weights)
        yield f"{weights} weights, and their streams", one_motif(weights, streams=True)
    yield "10**7 weights and as many scales", as_many_scales(10**7)
    yield "100 tensors of 10**6 weights of one motif", many(100, 10**6)
    draft = Draft.of(BASE)
    yield "a header for more than there is", draft.file(size=draft.size() + 8)


def one_motif(weights: int, *, streams: bool = False) -> bytes:
    num_streams = min(-(-weights // 2**20), 9000) if streams else 1
    draft = written([0.5], [("a", [weights], [])], block_size=1)
    draft.manifest["tensors"][0]["streams"] = [[0, 0]] * num_streams
    return draft.file(size=640 if weights > 10**7 else 648)


def as_many_scales(weights: int) -> bytes:
    """Under the header for the weights alone, which is the least."""
    draft = written([0.5], [("a", [weights], [])], block_size=1)
    draft.manifest["tensors"][0]["scales"] = weights
    sizes = [min(2**20, weights - start) for start in range(0, weights, 2**20)]
    planes = [zlib.compress(b"\x3f" * size, 9) for size in sizes]
    draft.manifest["motifs"]["scales"] = [[[32, len(plane)]] * 4 for plane in planes]
    draft.sections["motifs"] += b"".join(plane * 4 for plane in planes)
    return draft.file(size=640)


def many(tensors: int, weights: int) -> bytes:
    draft = written([0.5], [(f"{i}", [weights], []) for i in range(tensors)], block_size=1)
    return draft.file(size=640)
