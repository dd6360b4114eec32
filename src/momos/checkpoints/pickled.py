"""Reads checkpoints that torch.save or torch.jit.save wrote, without running code in them.

torch.load maps a file or reads all of it. Here its unpickler, which creates only tensors and plain
values, is given storages without values; values are read by position when they are needed. Files
from before torch 1.6 are not archives and are read whole.

Modules in a TorchScript archive are objects of classes that only the archive defines. The unpickler
turns them into plain holders of their attributes; a tensor is named by its path.
"""

import io
import pickle
import re
import struct
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
from torch._weights_only_unpickler import Unpickler, get_globals_in_pkl
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from momos._util.reading import open_ordinary
from momos.checkpoints.records import Kept, Raw, Records, Strided
from momos.checkpoints.source import Source, SourceTensor
from momos.checkpoints.state_dicts import find_state
from momos.errors import FormatError

WITH_MEMORY = (b"_rebuild_qtensor", b"_rebuild_nested_tensor")  # impossible on meta
MOST_EXPANDED = 1 << 28  # values that an expanded tensor may stand for

Located = Callable[[Tensor], tuple[Raw, int] | None]  # how to read a storage, and its size
OF_ARCHIVE = "__torch__."  # the package of all classes that an archive defines
SAME = (  # functions that return their first argument, by name
    "restore_type_tag",
    *(f"build_{kind}list" for kind in ("int", "tensor", "double", "bool")),
)
MOST_DEEP, MOST_HELD = 100, 1 << 18
REFUSED = re.compile(
    r"Unsupported global: GLOBAL (\S+) was not|unsupported GLOBAL (\S+) whose"
)
PROTOCOL = re.compile(r"Unsupported operand 1(?:2[89]|[34]\d|5[01])$", re.MULTILINE)
OF_MODULES = ("torch.nn.modules.", "torch.fx.")
NEVER = ("os", "posix", "nt", "sys", "subprocess", "builtins")
BROKEN = (
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError),
    *(ImportError, OverflowError, AssertionError, struct.error, pickle.UnpicklingError),
)
SAVE = "torch.save(model.state_dict(), 'state.pt')"


def open_pickled(path: Path, key: str = "", *, scripted: bool = False) -> Source:
    """The tensors of the torch checkpoint at `path`: of its only state dict, or that at `key`.

    A `scripted` one is a TorchScript archive, whose modules are one state dict.

    Raises:
        FormatError: if it holds no state dict, or more than data.
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
    """The content of an archive, and how to read the storages of its tensors."""
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
    """Storages without values, created on the request of an unpickler."""

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
    """The content of a file from before torch 1.6, in memory."""
    load = partial(torch.load, path, map_location="cpu", weights_only=True)
    return _loaded(path, load), _located_in_memory


def _located_in_memory(one: Tensor) -> tuple[Raw, int]:
    raw = torch.empty(0, dtype=torch.uint8, device="cpu").set_(one.untyped_storage())
    return lambda first, last: raw[first:last], len(raw)


def _loaded(path: Path, load: Callable[[], Any]) -> Any:
    """The result of `load`; errors about the file become FormatErrors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about pickle protocols
            return load()
    except FormatError:
        raise
    except BROKEN as error:
        raise refusal(path, error) from error


class _Module:
    """A module of a TorchScript archive: its attributes, without its code."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def unpickle_modules(content: bytes, unpickle: Callable[[bytes], Any]) -> Any:
    """Unpickles `content`, with the classes of the archive replaced by plain holders."""
    names = get_globals_in_pkl(io.BytesIO(content))
    known: list[Any] = [(_Module, name) for name in names if name.startswith(OF_ARCHIVE)]
    known += [(_first, f"torch.jit._pickle.{name}") for name in SAME]
    with safe_globals(known):
        return unpickle(content)


def _first(value: Any, *_: Any) -> Any:
    return value


def state_of(path: Path, value: Any) -> dict[str, Any]:
    """The tensors by name in the modules of an archive, as its state_dict would have them.

    Packed parameters are returned as they are stored.

    Raises:
        FormatError: if there are none, or modules are nested too deep.
    """
    state, todo, count = {}, [("", value, 0)], 0
    while todo:
        name, one, depth = todo.pop()
        own = getattr(one, "state", None)
        if not isinstance(own, dict):
            state[name] = one if isinstance(one, Tensor) else own
            continue
        inner = [
            (f"{name}.{key}" if name else str(key), child, depth + 1)
            for key, child in own.items()
            if isinstance(child, _Module | Tensor)  # not lists, which are not state
        ]
        count += len(inner)
        if count > MOST_HELD or depth > MOST_DEEP:
            raise FormatError(
                path,
                "pickle",
                f"must hold at most {MOST_HELD:,} modules and tensors, at most {MOST_DEEP} deep",
            )
        todo += reversed(inner)
    if not any(isinstance(one, Tensor) for one in state.values()):
        raise FormatError(
            path,
            "pickle",
            "must hold tensors in its modules, got none: a frozen TorchScript module keeps its "
            "weights in its code: use the checkpoint that it was made from",
        )
    return state


def refusal(path: Path, error: Exception) -> FormatError:
    """Explains why torch could not unpickle the file at `path`, and what to do."""
    text = str(error)
    if names := _refused(path, text):
        return FormatError(path, "pickle", _about(names))
    if "torch.distributed.tensor" in text:
        problem = "must hold whole tensors, got DTensors: save their full_tensor()"
    elif PROTOCOL.search(text):
        problem = (
            "must be of pickle protocol 2, which torch.save writes unless told otherwise, got "
            "a later one: save it again without pickle_protocol"
        )
    else:
        problem = f"must be what torch.save writes: {_short(error)}"
    return FormatError(path, "pickle", problem)


def _refused(path: Path, text: str) -> list[str]:
    """The names that the file needs but torch does not allow: all of them, or the first."""
    found = REFUSED.search(text)
    if not found:
        return []
    first = found[1] or found[2]
    try:
        names = get_unsafe_globals_in_checkpoint(str(path))
    except BROKEN:
        names = []
    return sorted({*names, first} - {f"builtins.{first}"} if names else {first})


def _about(names: list[str]) -> str:
    listed = ", ".join(names[:5]) + ", …" * (len(names) > 5)
    if any(name.startswith(OF_MODULES) for name in names):
        return (
            f"must hold tensors and plain values only, got a whole module ({listed}), whose code "
            f"is never run: load it where its classes are defined and save its tensors, as {SAVE}"
        )
    problem = (
        f"must hold tensors and plain values only, but needs {listed}, and no code is run: save "
        f"the tensors alone, as {SAVE}"
    )
    if any(name.partition(".")[0] in NEVER or "." not in name for name in names):
        return problem
    return (
        f"{problem}, or call torch.serialization.add_safe_globals([{', '.join(names)}]) first if "
        "you trust what these names run"
    )


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
