"""Writes a folder that `from_pretrained` loads compact, from a .momos file and a Hugging Face folder.

The network is never built: packed indices, the bank and the dense tensors go from one file to the other.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from momos._util.work import Progress, quiet
from momos.compact.compacting import why_not_packed
from momos.compact.layers import SUFFIX
from momos.compact.packed_weight import NAME
from momos.files.compact_loading import PackedContents, read_packed
from momos.files.manifest import name_of
from momos.files.reader import MosaicFile
from momos.integrations.transformers.quantizer import METHOD, MomosConfig

WEIGHTS = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".h5",
    ".msgpack",
    ".ckpt",
    ".onnx",
    ".gguf",
)
SHARD_BYTES = 5 * 10**9


def write_folder(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = quiet,
) -> Path:
    """Writes the .momos file at `path` as a folder for `from_pretrained`, and returns it.

    `source` is the folder of the dense checkpoint: its `config.json` is extended, and whatever is no
    weights (tokenizer, generation settings) copied. `output` appears when it is whole.

    Raises:
        FormatError: if the file is damaged or not a .momos file.
        ValueError: if no tensor of the file is blocks, or `source` has no `config.json` that is
            an object.
        FileExistsError: if `output` exists and is not an empty folder.
        OSError: if a file cannot be read or written.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from momos.integrations.transformers import write_folder
        >>> sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
        >>> model = BertModel(BertConfig(vocab_size=64, num_hidden_layers=1, **sizes))
        >>> model.save_pretrained("dense")
        >>> _ = momos.compress("dense", "net.momos")
        >>> write_folder("net.momos", "dense", "small").name
        'small'
    """
    source, output = Path(source), Path(output)
    settings = settings_of(source)
    check_free(output)
    with torch.device("cpu"), MosaicFile(path) as file:
        read = read_packed(file, progress)
    settings["quantization_config"] = _config_of(read).to_dict() | {"quant_method": METHOD}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as name:
        new = Path(name) / "folder"
        new.mkdir()
        _copy_others(source, new)
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (new / "config.json").write_text(text, encoding="utf-8")
        _write_weights(dict(_tensors(read)), new, shard_bytes)
        if output.exists():
            output.rmdir()
        new.rename(output)
    return output


def settings_of(source: Path) -> dict[str, Any]:
    """The `config.json` of a Hugging Face folder.

    Raises:
        ValueError: if there is none, or it is not an object.
    """
    config = source / "config.json"
    if not config.is_file():
        raise ValueError(f"{source} must be a Hugging Face folder, but has no config.json")
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config} must be JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{config} must be an object, got {type(settings).__name__}")
    return settings


def check_free(output: Path) -> None:
    """Refuses to write where something is.

    Raises:
        FileExistsError: if `output` exists and is not an empty folder.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileExistsError(
            errno.EEXIST, "must be a new or an empty folder, but exists", str(output)
        )


def _stays_dense(read: PackedContents) -> set[str]:
    """The blocks that are written dense: vectors, and what packing would not make smaller."""
    places, num_motifs = read.layout.placements, len(read.motifs)
    return {place.name for place in places if why_not_packed(place, num_motifs)}


def _config_of(read: PackedContents) -> MomosConfig:
    dense, weights = _stays_dense(read), {}
    for place in read.layout.placements:
        if place.name in dense:
            continue
        about: dict[str, Any] = {"dtype": name_of(place.dtype)}
        scales = read.scales[place.name]
        if scales is not None:
            about["scales"] = len(scales)
        if place.axis:
            about["axis"] = place.axis
        weights[place.name] = about
    count, size = read.motifs.shape
    return MomosConfig(
        block_size=size,
        num_motifs=count,
        motif_dtype=name_of(read.motifs.dtype),
        weights=weights,
    )


def _tensors(read: PackedContents) -> Iterator[tuple[str, Tensor]]:
    """Everything the new checkpoint holds; of tied tensors the first name only."""
    dense = _stays_dense(read)
    values = read.still_dense(dense)
    for name, tensor in values.items():
        if name not in read.aliases:
            yield name, tensor
    for place in read.layout.placements:
        if place.name in dense:
            continue
        yield f"{place.name}{SUFFIX}.indices", read.indices[place.name]
        scales = read.scales[place.name]
        if scales is not None:
            yield f"{place.name}{SUFFIX}.scales", scales
    yield f"{NAME}.motifs", read.motifs


def _write_weights(tensors: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    """One safetensors file, or several with an index."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    places = {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors"
        if len(shards) > 1:
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        apart = {name: tensors[name].contiguous().clone() for name in names}
        save_file(apart, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    if len(shards) == 1:
        return
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    text = json.dumps(index, indent=2)
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _copy_others(source: Path, folder: Path) -> None:
    """Copies the files of a checkpoint that are no weights."""
    for path in sorted(source.iterdir()):
        weights = path.suffix in WEIGHTS or path.name.endswith(".index.json")
        if path.is_file() and not weights and path.name != "config.json":
            shutil.copyfile(path, folder / path.name)
