"""Opens checkpoints, whose format is recognized by content: files, shards with an index, folders.

Of safetensors files only the header is read; values are read when they are needed.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from momos._util.formats import (
    CODES,
    METADATA,
    MOMOS,
    SAFETENSORS,
    TORCH,
    TORCHSCRIPT,
    UNREADABLE,
    read_header,
    recognized,
)
from momos._util.reading import open_ordinary, read_piece
from momos.checkpoints.pickled import open_pickled
from momos.checkpoints.source import Source, SourceTensor
from momos.errors import FormatError

# File names of Hugging Face's libraries and PyTorch, in the order of the search: the usual name wins,
# then the only match.
KINDS = (
    ("model.safetensors.index.json", ("*.safetensors.index*.json",)),
    ("model.safetensors", ("*.safetensors",)),
    ("pytorch_model.bin.index.json", ("*.bin.index*.json",)),
    ("pytorch_model.bin", ("*.bin", "*.pt", "*.pth", "*.th", "*.ckpt", "*.pth.tar")),
)
OF_TRAINING = ("optimizer*", "scheduler*", "scaler*", "rng_state*", "training_args*")
MOST_LISTED = 10


def open_source(path: str | os.PathLike[str], *, key: str = "") -> Source:
    """The checkpoint at `path`: a safetensors file, a torch file, or a folder with either.

    A folder is read as Hugging Face writes it: with or without an index of shards, an adapter,
    or a variant such as fp16. `key` chooses one of the state dicts in a torch file, such as "ema".
    A TorchScript archive has the tensors of its modules; its code is not run.

    Raises:
        FormatError: if it is something else, damaged, or holds several checkpoints.
        ValueError: if `key` is given for anything but a torch file.
        OSError: if it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = checkpoint_in(path)
    if is_index(path.name):
        _check_key(path, key, "an index of shards")
        return open_shards(path, _open_file)
    return _open_file(path, key)


def _open_file(path: Path, key: str = "") -> Source:
    """The tensors of one file."""
    open_ordinary(path).close()  # raises OSError if it cannot be read
    kind = recognized(path)
    if kind in (SAFETENSORS, MOMOS) or (kind is None and path.suffix == ".safetensors"):
        _check_key(path, key, kind or SAFETENSORS)
        return open_safetensors(path)
    if kind in (TORCH, TORCHSCRIPT):
        return open_pickled(path, key, scripted=kind == TORCHSCRIPT)
    raise FormatError(
        path,
        "content",
        "must be a checkpoint (a safetensors file, or what torch.save or torch.jit.save writes), got "
        f"{kind or 'bytes of no format that is known'}",
    )


def _check_key(path: Path, key: str, kind: str) -> None:
    """Refuses a key for files that have nothing to choose from."""
    if key:
        raise ValueError(
            f"key must be given for what torch.save writes only, got {key!r} for {path}, {kind}"
        )


def checkpoint_in(folder: Path) -> Path:
    """The file or index in `folder` that is its checkpoint.

    Raises:
        FileNotFoundError: if there is none; lists what is there.
        FormatError: if there are several to choose from; lists them.
    """
    names = sorted(one.name for one in folder.iterdir() if not one.is_dir())
    for usual, patterns in KINDS:
        found = [n for n in names if _matches(n, patterns) and not _matches(n, OF_TRAINING)]
        if usual in found or len(found) == 1:
            return folder / (usual if usual in found else found[0])
        if found:
            raise FormatError(
                folder,
                "folder",
                f"must hold one checkpoint, got {_listed(found)}: name the one you mean",
            )
    raise FileNotFoundError(
        f"{folder} must hold model.safetensors, pytorch_model.bin, an index of shards, or "
        f"another checkpoint, got {_listed(names)}"
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_LISTED
    listed = names[:MOST_LISTED] + ([f"{more} more"] if more > 0 else [])
    return ", ".join(listed) or "nothing"


def is_index(name: str) -> bool:
    """Whether a file of this name is an index, which maps tensors to files."""
    return name.endswith(".json") and ".index." in name


def open_shards(index: Path, open_file: Callable[[Path], Source]) -> Source:
    """All tensors that the index names, from the files next to it.

    Raises:
        FormatError: if the index or a file is damaged, or they differ.
        OSError: if a file cannot be read.
    """
    places = _places(index)
    shards = {
        file: open_file(index.parent / file) for file in dict.fromkeys(places.values())
    }
    files = (index, *(file for shard in shards.values() for file in shard.files))
    found = Source(index.parent, {}, files=files)
    for shard in shards.values():
        found.metadata.update(shard.metadata)
    for name, file in places.items():
        shard = shards[file]
        if name in shard.tensors:
            found.tensors[name] = shard.tensors[name]
        elif name in shard.unreadable:
            found.unreadable[name] = shard.unreadable[name]
        elif places.get(first := shard.aliases.get(name, "")) == file:
            found.aliases[name] = first
        elif first:  # a second name of a tensor that the index places elsewhere or nowhere
            found.tensors[name] = replace(shard.tensors[first], name=name)
        else:
            raise FormatError(
                index, "weight_map", f"{file} must hold {name!r}, but does not"
            )
    for shard in shards.values():
        found.left_out.update(shard.left_out)
        for name in (*shard.tensors, *shard.aliases, *shard.unreadable):
            if name not in places:
                found.left_out[name] = f"not in {index.name}"
    return found


def _places(index: Path) -> dict[str, str]:
    """The file of each tensor."""
    try:
        with open_ordinary(index) as file:
            places = json.loads(file.read())["weight_map"]
        if not all(isinstance(part, str) for part in (*places, *places.values())):
            raise TypeError("names and files must be strings")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(
            index, "weight_map", f"must name a file for each tensor: {error}"
        ) from error
    for file in places.values():
        if Path(file).name != file:
            raise FormatError(
                index, "weight_map", f"files must lie beside it, got {file!r}"
            )
    return places


def open_safetensors(path: Path) -> Source:
    """The tensors of the safetensors file at `path`.

    Raises:
        FormatError: if it is not one.
        OSError: if it cannot be read.
    """
    header, start, end = read_header(path)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise FormatError(path, "header", "metadata must be strings by name")
    if "momos" in metadata:
        raise FormatError(
            path,
            "header",
            "must be dense, but this is a .momos file already (momos expand makes a checkpoint "
            "of it)",
        )
    tensors, unreadable = {}, {}
    for name, about in header.items():
        if isinstance(about, dict) and about.get("dtype") in UNREADABLE:
            unreadable[name] = f"of dtype {about['dtype']}: save it dequantized"
            continue
        try:
            tensors[name] = _tensor(path, name, about, start, end - start)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(path, f"tensor {name!r}", str(error)) from error
    return Source(path, tensors, metadata=metadata, unreadable=unreadable, files=(path,))


def _tensor(path: Path, name: str, about: Any, start: int, size: int) -> SourceTensor:
    name.encode()
    code, shape = about["dtype"], about["shape"]
    if code not in CODES:
        raise ValueError(f"dtype must be one of {', '.join(CODES)}, got {code!r}")
    numbers = [*shape, *about["data_offsets"]]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"shape and offsets must be integers of at least 0, got {numbers}")
    begin, end = about["data_offsets"]
    dtype = CODES[code]
    if end - begin != math.prod(shape) * dtype.itemsize or end > size:
        raise ValueError(
            f"{math.prod(shape)} values must take {math.prod(shape) * dtype.itemsize} of the "
            f"file's {size} bytes, got {begin} to {end}"
        )
    return SourceTensor(
        name, tuple(shape), dtype, partial(_read, path, start + begin, dtype)
    )


def _read(path: Path, start: int, dtype: torch.dtype, first: int, last: int) -> Tensor:
    return read_piece(path, start + first * dtype.itemsize, dtype, last - first)
