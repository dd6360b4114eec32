"""Checkpoints that torch.save wrote: tensors are read, code never is."""

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from momos.blocks import memory
from momos.errors import FormatError
from momos.ordinary import open_ordinary
from momos.sources.source import Source, SourceTensor

NESTED = ("state_dict", "model_state_dict", "model", "net", "module")  # where weights lie
BROKEN = (
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError),
    *(ImportError, OverflowError, struct.error, zipfile.BadZipFile),
)


def open_pickled(path: Path) -> Source:
    """The tensors of the torch checkpoint at `path`: a state dict, alone or under a usual key.

    Raises:
        FormatError: if it holds none, or more than data.
        OSError: if it cannot be read.
    """
    state, left_out = _state(path, _load(path))
    tensors, aliases, first = {}, {}, {}
    for name, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise FormatError(path, f"tensor {name!r}", "must be strided and hold values")
        value = value.detach().resolve_conj().resolve_neg()
        if (key := memory(value) if value.numel() else name) in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        read = partial(_read, value)
        tensors[name] = SourceTensor(name, tuple(value.shape), value.dtype, read)
    return Source(path, tensors, aliases, left_out, files=(path,))


def _load(path: Path) -> Any:
    """What is in the file; mapped into memory where its kind allows that."""
    # A missing file is an OSError, whatever torch makes of it.
    with open_ordinary(path) as file:
        zipped = zipfile.is_zipfile(file)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise FormatError(
            path,
            "pickle",
            "must hold tensors and plain values only, for nothing else is read from a pickle: "
            f"{_refused(error)}",
        ) from error
    except BROKEN as error:
        raise FormatError(
            path, "pickle", f"must be what torch.save writes: {error!r}"
        ) from error


def _refused(error: Exception) -> str:
    """What torch refused to load, out of its many lines of advice."""
    found = re.search(
        r"(Unsupported .*?|Can only .*?)( was not an allowed|\\. |\n|$)", str(error)
    )
    return found[1] if found else str(error).partition("\n")[0][:200]


def _state(path: Path, value: Any) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    """The state dict in `value`, and what is beside it."""
    if isinstance(value, Mapping):
        if value and _is_state(value):
            return value, {}
        for key in NESTED:
            if key in value and _is_state(value[key]):
                others = {str(k): type(v).__name__ for k, v in value.items() if k != key}
                return value[key], others
    found = (
        ", ".join(map(repr, value)) if isinstance(value, Mapping) else type(value).__name__
    )
    raise FormatError(
        path,
        "pickle",
        f"must hold a state dict (tensors by name), alone or as {', '.join(NESTED)}; got "
        f"{found[:200] or 'nothing'}",
    )


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor)
        for name, tensor in value.items()
    )


def _read(value: Tensor, first: int, last: int) -> Tensor:
    return value.reshape(-1)[first:last].contiguous()
