"""Checkpoints in several files, which an index names."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from momos._util.reading import open_ordinary
from momos.errors import FormatError
from momos.sources.source import Source


def is_index(name: str) -> bool:
    """Whether a file of this name says which tensor lies in which file."""
    return name.endswith(".json") and ".index." in name


def open_shards(index: Path, open_file: Callable[[Path], Source]) -> Source:
    """All tensors that the index names, from the files beside it.

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
