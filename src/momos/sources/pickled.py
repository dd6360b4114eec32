"""Checkpoints that torch.save wrote: tensors are read, code never is.

torch.load maps a file or reads all of it. Here its unpickler, which makes tensors and plain
values only, is given storages without values; values are read by position when they are asked
for. Files of before torch 1.6 are no archives and are read whole.
"""

import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._weights_only_unpickler import Unpickler

from momos._util.reading import open_ordinary
from momos.errors import FormatError
from momos.sources.records import Records
from momos.sources.refusals import BROKEN, refusal
from momos.sources.scripted import state_of, unpickle_modules
from momos.sources.source import Source, SourceTensor
from momos.sources.states import find_state
from momos.sources.strided import Kept, Raw, Strided

WITH_MEMORY = (b"_rebuild_qtensor", b"_rebuild_nested_tensor")  # impossible on meta
MOST_EXPANDED = 1 << 28  # values that an expanded tensor may stand for

Located = Callable[[Tensor], tuple[Raw, int] | None]  # how to read a storage, and its bytes


def open_pickled(path: Path, key: str = "", *, scripted: bool = False) -> Source:
    """The tensors of the torch checkpoint at `path`: of its only state dict, or that at `key`.

    A `scripted` one is a TorchScript archive, whose modules are one state dict.

    Raises:
        FormatError: if it holds none, or more than data.
        OSError: if it cannot be read.
    """
    with open_ordinary(path) as file:
        zipped = file.read(4) == b"PK\x03\x04"
    value, located = _of_archive(path, scripted) if zipped else _of_stream(path)
    value = state_of(path, value) if scripted else value
    state, kept = find_state(path, value, key), Kept()
    tensors, aliases, first, unreadable = {}, {}, {}, {}
    for name, one in state.tensors.items():
        one = one.detach()
        why, found = _why_unreadable(one), None
        if not why and (found := located(one)) is None:
            why = "without values in the file: load it where it was made and save it again"
        if why or found is None:
            unreadable[name] = why
            continue
        held = first.setdefault(_place(one) if one.numel() else name, name)
        if held != name:
            aliases[name] = held
            continue
        strided = Strided(one, found[0], kept)
        if (need := strided.span[1] * one.itemsize) > found[1]:
            raise FormatError(
                path, f"tensor {name!r}", f"must have {need:,} bytes, got {found[1]:,}"
            )
        tensors[name] = SourceTensor(name, tuple(one.shape), one.dtype, strided.read)
    return Source(
        path, tensors, aliases, state.left_out, unreadable=unreadable, files=(path,)
    )


def _place(one: Tensor) -> object:
    """What two names share when they are one tensor."""
    storage = one.untyped_storage()._cdata
    lies = one.storage_offset(), one.shape, one.stride(), one.dtype
    return (storage, *lies, one.is_conj(), one.is_neg())


def _why_unreadable(one: Tensor) -> str:
    """What a tensor is, and what to do, if its values are not those of a plain storage."""
    if one.is_quantized:
        return f"quantized ({_named(one.dtype)}): save its dequantize()"
    if one.is_nested:
        return "nested: save its to_padded_tensor(0.0)"
    if one.layout != torch.strided:
        return f"sparse ({_named(one.layout)}): save its to_dense()"
    count, span = one.numel(), Strided(one, _no_values, Kept()).span
    if count > MOST_EXPANDED and count > span[1] - span[0]:
        return (
            f"expanded: {span[1] - span[0]:,} stored values stand for {count:,}: save its "
            "contiguous()"
        )
    return ""


def _named(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")


def _no_values(first: int, last: int) -> Tensor:
    raise AssertionError(f"bytes {first} to {last} of no storage")


def _of_archive(path: Path, scripted: bool) -> tuple[Any, Located]:
    """What is in an archive, and how to read the storages of its tensors."""
    records = Records(path)
    if "data.pkl" not in records:
        raise FormatError(path, "archive", "must hold data.pkl, as torch.save writes it")
    written = records.content("byteorder") if "byteorder" in records else b"little"
    if written not in (b"little", b"big"):
        raise FormatError(path, "byteorder", f"must be little or big, got {written[:20]!r}")
    content = records.content("data.pkl")
    device = "cpu" if any(name in content for name in WITH_MEMORY) else "meta"
    storages = _Storages(records, written.decode() != sys.byteorder, device)
    load = partial(_unpickle, storages)
    load = partial(unpickle_modules, content, load) if scripted else partial(load, content)
    return _loaded(path, load), storages.located


@dataclass(frozen=True)
class _Storages:
    """Storages without their values, as an unpickler asks for them."""

    records: Records
    swapped: bool
    device: str
    made: dict[str, torch.UntypedStorage] = field(default_factory=dict)
    names: dict[int, tuple[str, int]] = field(default_factory=dict)  # and bytes, by storage

    def load(self, saved: Any) -> torch.TypedStorage:
        """The storage that `saved` names, as torch.save writes it."""
        _, kind, key, _, count = saved
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        if key not in self.made:
            self.made[key] = self._make(f"data/{key}", count * dtype.itemsize)
        return torch.TypedStorage(wrap_storage=self.made[key], dtype=dtype, _internal=True)

    def _make(self, name: str, size: int) -> torch.UntypedStorage:
        if size > self.records.size(name):
            raise FormatError(
                self.records.path,
                f"record {name!r}",
                f"must hold the {size:,} bytes of its storage, got "
                f"{self.records.size(name):,}",
            )
        if self.device == "meta":
            storage = torch.UntypedStorage(size, device="meta")
        else:  # zeros that take memory only once they are touched
            storage = torch.from_numpy(np.zeros(size, np.uint8)).untyped_storage()
        self.names[storage._cdata] = name, size
        return storage

    def located(self, one: Tensor) -> tuple[Raw, int] | None:
        found = self.names.get(one.untyped_storage()._cdata)
        if found is None:
            return None
        name, size = found
        return partial(self._read, name, _width(one.dtype)), size

    def _read(self, name: str, width: int, first: int, last: int) -> Tensor:
        raw = self.records.read(name, first, last)
        return raw.view(-1, width).flip(1).view(-1) if self.swapped else raw


def _width(dtype: torch.dtype) -> int:
    """Bytes of one number."""
    return dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize


def _unpickle(storages: _Storages, content: bytes) -> Any:
    unpickler = Unpickler(io.BytesIO(content), encoding="utf-8")
    unpickler.persistent_load = storages.load  # pyright: ignore[reportAttributeAccessIssue]
    with torch.device(storages.device):  # where sparse tensors are made of their parts
        return unpickler.load()


def _of_stream(path: Path) -> tuple[Any, Located]:
    """What is in a file of before torch 1.6, in memory."""
    load = partial(torch.load, path, map_location="cpu", weights_only=True)
    return _loaded(path, load), _located_in_memory


def _located_in_memory(one: Tensor) -> tuple[Raw, int]:
    raw = torch.empty(0, dtype=torch.uint8, device="cpu").set_(one.untyped_storage())
    return lambda first, last: raw[first:last], len(raw)


def _loaded(path: Path, load: Callable[[], Any]) -> Any:
    """What `load` returns; what it raises about a file is a FormatError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about pickle protocols
            return load()
    except FormatError:
        raise
    except BROKEN as error:
        raise refusal(path, error) from error
