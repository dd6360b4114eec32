"""Opening a checkpoint: its content, not its name, says of which kind it is."""

import os
from pathlib import Path

from momos._util.reading import open_ordinary
from momos._util.recognition import MOMOS, SAFETENSORS, TORCH, TORCHSCRIPT, recognized
from momos.errors import FormatError
from momos.sources.folders import checkpoint_in
from momos.sources.pickled import open_pickled
from momos.sources.safetensors import open_safetensors
from momos.sources.shards import is_index, open_shards
from momos.sources.source import Source


def open_source(path: str | os.PathLike[str], *, key: str = "") -> Source:
    """The checkpoint at `path`: a safetensors file, a torch file, or a folder with either.

    A folder is read as Hugging Face writes it: with or without an index of shards, an adapter,
    or a variant as fp16. Of the state dicts in a torch file `key` chooses one, as "ema". A
    TorchScript archive has the tensors that its modules hold; its code is not run.

    Raises:
        FormatError: if it is something else, damaged, or holds several checkpoints.
        ValueError: if `key` is given for what is no torch file.
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
    open_ordinary(path).close()  # what cannot be read is an OSError, whatever it is
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
    """Refuses a key where nothing is chosen by it."""
    if key:
        raise ValueError(
            f"key must be given for what torch.save writes only, got {key!r} for {path}, {kind}"
        )
