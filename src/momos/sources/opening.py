"""Opening a checkpoint: its content, not its name, says of which kind it is."""

import os
from pathlib import Path

from momos.errors import FormatError
from momos.ordinary import open_ordinary
from momos.sources.folders import checkpoint_in
from momos.sources.pickled import open_pickled
from momos.sources.recognition import MOMOS, SAFETENSORS, TORCH, recognized
from momos.sources.safetensors import open_safetensors
from momos.sources.shards import is_index, open_shards
from momos.sources.source import Source


def open_source(path: str | os.PathLike[str], *, key: str = "") -> Source:
    """The checkpoint at `path`: a safetensors file, a torch file, or a folder with either.

    A folder is read as Hugging Face writes it: with or without an index of shards, an adapter,
    or a variant as fp16. Of the state dicts in a torch file `key` chooses one, as "ema".

    Raises:
        FormatError: if it is something else, damaged, or holds several checkpoints.
        OSError: if it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = checkpoint_in(path)
    if is_index(path.name):
        return open_shards(path, _open_file)
    return _open_file(path, key)


def _open_file(path: Path, key: str = "") -> Source:
    """The tensors of one file."""
    open_ordinary(path).close()  # what cannot be read is an OSError, whatever it is
    kind = recognized(path)
    if kind in (SAFETENSORS, MOMOS) or (kind is None and path.suffix == ".safetensors"):
        return open_safetensors(path)
    if kind == TORCH:
        return open_pickled(path, key)
    raise FormatError(
        path,
        "content",
        "must be a checkpoint (a safetensors file or what torch.save writes), got "
        f"{kind or 'neither'}",
    )
