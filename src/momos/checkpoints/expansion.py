"""Expands a .momos file to a dense checkpoint."""

import os
from pathlib import Path

import torch

from momos._util.atomic import refuse_same, replacing
from momos._util.formats import (
    CODE_OF,
    CODES,
    METADATA,
    MOST_HEADER,
    compact,
    entry,
    framed,
)
from momos._util.work import Progress, quiet
from momos.files.api import checkpoint_of
from momos.files.container import EXPANSION
from momos.files.contents import Hashing
from momos.files.manifest import Record
from momos.files.reader import MosaicFile

TORCH = (".pt", ".pth", ".bin")  # names of what torch.save writes


def expand(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    most_bytes: int | None = None,
    progress: Progress = quiet,
) -> None:
    """Writes the tensors of the .momos file at `path` to the dense checkpoint `output`.

    The name of `output` decides what it becomes. `.safetensors` is written piece by piece, and
    tensors with several names are written under each, as that format demands. `.pt`, `.pth` and
    `.bin` are state dicts for `torch.load`, where such tensors share their memory; all weights are
    in memory while one is written, and the metadata of the checkpoint is left out.

    Buffers that `state_dict` omits are omitted. All checksums are compared before `output`
    appears. A safetensors file may have `most_bytes`; unless that is given, 65 536 times the
    bytes of `path`, which only tensors with very many names exceed.

    Raises:
        FormatError: if the file is damaged or not a .momos file.
        ValueError: if the name of `output` is none of these, it is the file that is read, it
            would be too large, or safetensors cannot hold a tensor; names the tensor.
        OSError: if a file cannot be read or written.

    Example:
        >>> report = momos.compress(nn.Linear(64, 10), "net.momos")
        >>> momos.expand("net.momos", "net.pt")
        >>> torch.load("net.pt")["weight"].shape
        torch.Size([10, 64])
    """
    path, output = Path(path), Path(output)
    if output.suffix not in (".safetensors", *TORCH):
        raise ValueError(
            f"a dense checkpoint must be named .safetensors, {', '.join(TORCH[:-1])} or "
            f"{TORCH[-1]}, got {output}"
        )
    refuse_same([path], output)
    with torch.device("cpu"), MosaicFile(path) as file:
        if output.suffix in TORCH:
            _write_torch(file, output, progress)
        else:
            _write_safetensors(file, output, most_bytes, progress)


def _write_torch(file: MosaicFile, output: Path, progress: Progress) -> None:
    state = checkpoint_of(file, progress).state_dict()
    with replacing(output) as target:
        torch.save(state, target)


def _write_safetensors(
    file: MosaicFile, output: Path, most_bytes: int | None, progress: Progress
) -> None:
    file.check_sections(*file.file.sections)
    stored = {record.name: record for record in file.manifest.records}
    written = {
        name: stored[record.same_as or name]
        for name, record in stored.items()
        if record.persistent
    }
    _check_size(file, output, written, most_bytes)
    header, starts = _header(written, file.manifest.metadata)
    copies: dict[str, list[int]] = {name: [] for name in stored}
    for name, record in written.items():
        copies[record.name].append(len(header) + starts[name])
    with replacing(output) as target:
        target.write(header)
        hashing = Hashing(stored.values(), progress)
        for record in hashing.stored:
            at = 0
            for values in file.pieces(record):
                data = hashing.update(values)
                for start in copies[record.name]:
                    target.seek(start + at)
                    target.write(data)
                at += len(data)
        file.check_weights(hashing.hexdigest())


def _check_size(
    file: MosaicFile, output: Path, written: dict[str, Record], most_bytes: int | None
) -> None:
    """Refuses small files that expand to large ones by repeating tensors under many names."""
    size = file.file.num_bytes
    most = EXPANSION * size if most_bytes is None else most_bytes
    needed = sum(record.num_bytes for record in written.values())
    once = sum({record.name: record.num_bytes for record in written.values()}.values())
    if needed > most:
        raise ValueError(
            f"{output} must have at most {most:,} bytes of weights, but the {size:,} bytes of "
            f"{file.path} expand to {needed:,}, of which {needed - once:,} repeat tensors with "
            f"several names (most_bytes={needed} allows that, and a .pt file does not repeat "
            "them)"
        )


def _header(
    written: dict[str, Record], metadata: dict[str, str]
) -> tuple[bytes, dict[str, int]]:
    """A safetensors header, and where each tensor's values begin after it.

    Wide values come first, so that all are aligned.
    """
    for name, record in written.items():
        if name == METADATA:
            raise ValueError(
                f"a tensor of a safetensors file must not be named {name!r}, which the format "
                "keeps for itself (a .pt file can hold it)"
            )
        if record.dtype not in CODE_OF:
            raise ValueError(
                f"a safetensors file can hold {', '.join(CODES)}, but tensor {name!r} is "
                f"{record.dtype} (a .pt file can hold it)"
            )
    header: dict[str, object] = {METADATA: {"format": "pt"} | metadata}
    starts, position = {}, 0
    for name in sorted(written, key=lambda name: -written[name].dtype.itemsize):
        record = written[name]
        starts[name] = position
        stop = position + record.num_bytes
        header[name] = entry(CODE_OF[record.dtype], record.shape, position, stop)
        position = stop
    text = compact(header).encode()
    size = -(-len(text) // 8) * 8
    if size > MOST_HEADER:
        raise ValueError(
            f"a safetensors header must have at most {MOST_HEADER:,} bytes, but {len(written):,} "
            f"tensors and their metadata need {size:,}"
        )
    return framed(text, size), starts
