"""Which kind of checkpoint a path is."""

import json
import os
from pathlib import Path

from momos.errors import FormatError
from momos.ordinary import open_ordinary
from momos.sources.pickled import open_pickled
from momos.sources.safetensors import open_safetensors
from momos.sources.source import Source

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def open_source(path: str | os.PathLike[str]) -> Source:
    """The checkpoint at `path`: a safetensors file, a Hugging Face folder, or a torch file.

    Raises:
        FormatError: if it is not what its name says.
        OSError: if it cannot be read.
        ValueError: if its name says nothing.
    """
    path = Path(path)
    if path.is_dir():
        if (path / INDEX).exists():
            return _open_shards(path / INDEX)
        if (path / SINGLE).exists():
            return open_safetensors(path / SINGLE)
        raise FileNotFoundError(f"{path} must hold {INDEX} or {SINGLE}")
    if path.name.endswith(".safetensors.index.json"):
        return _open_shards(path)
    if path.suffix == ".safetensors":
        return open_safetensors(path)
    if path.suffix in PICKLED:
        return open_pickled(path)
    raise ValueError(
        f"a checkpoint must be a .safetensors file, a folder with {INDEX}, or one of "
        f"{', '.join(PICKLED)}, got {path}"
    )


def _open_shards(index: Path) -> Source:
    """All tensors that the index names, from the files beside it."""
    try:
        with open_ordinary(index) as file:
            places = json.loads(file.read())["weight_map"]
        if not all(isinstance(part, str) for part in (*places, *places.values())):
            raise TypeError("names and files must be strings")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(
            index, "weight_map", f"must name a file for each tensor: {error}"
        ) from error
    shards = {}
    for file in dict.fromkeys(places.values()):
        if Path(file).name != file:
            raise FormatError(
                index, "weight_map", f"files must lie beside it, got {file!r}"
            )
        shards[file] = open_safetensors(index.parent / file)
    tensors, metadata = {}, {}
    for shard in shards.values():
        metadata |= shard.metadata
    for name, file in places.items():
        if name not in shards[file].tensors:
            raise FormatError(
                index, "weight_map", f"{file} must hold {name!r}, but does not"
            )
        tensors[name] = shards[file].tensors[name]
    unnamed = {
        name: f"not in {index.name}"
        for shard in shards.values()
        for name in shard.tensors
        if name not in tensors
    }
    files = (index, *(file for shard in shards.values() for file in shard.files))
    return Source(index.parent, tensors, left_out=unnamed, metadata=metadata, files=files)
