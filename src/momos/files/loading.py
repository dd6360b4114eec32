"""Loading a network."""

import os

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from momos._util.work import Progress, in_parallel, quiet
from momos.blocks import memory
from momos.config import LatticeConfig, MosaicConfig, known_config
from momos.files.checkpoint import Checkpoint
from momos.files.contents import TEMPORARY, check_state, named_tensors
from momos.files.hashing import sha256_of
from momos.files.manifest import Record
from momos.files.reader import MosaicFile
from momos.files.report import SaveReport, report_on
from momos.mosaic import Mosaic, index_dtype
from momos.parameters import check_whole_tensors


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """All that the file at `path` holds, on the CPU; every checksum is compared.

    Raises:
        FormatError: if the file is damaged or not a .momos file; says where and how.
        OSError: if it cannot be read.
    """
    with MosaicFile(path) as file:
        return checkpoint_of(file)


def inspect(path: str | os.PathLike[str], *, progress: Progress = quiet) -> SaveReport:
    """What the file at `path` holds and what each part of it takes.

    The checksums of all sections are compared; that of all values is for `load` and
    `momos verify`, which decode them.

    Raises:
        FormatError: if the file is damaged or not a .momos file.
        OSError: if it cannot be read.
    """
    with MosaicFile(path) as file:
        file.check_sections(*file.file.sections)
        return report_on(file, mosaic_of(file, progress))


def checkpoint_of(file: MosaicFile, progress: Progress = quiet) -> Checkpoint:
    """All that `file` holds, every checksum compared."""
    file.check_sections(*file.file.sections)
    manifest, mosaic = file.manifest, mosaic_of(file, progress)
    dense = {record.name: file.tensor(record.name) for record in manifest.of_kind("dense")}
    checkpoint = Checkpoint(mosaic, dense, manifest.records, manifest.metadata)
    found = sha256_of(manifest.records, checkpoint.contents().pieces, progress)
    file.check_weights(found)
    return checkpoint


def mosaic_of(file: MosaicFile, progress: Progress = quiet) -> Mosaic | None:
    """The mosaic that `file` holds, if it holds one."""
    manifest = file.manifest
    layout = manifest.layout()
    if layout is None:
        return None
    indices = torch.empty(
        layout.num_blocks, dtype=index_dtype(file.bank.num_motifs), device="cpu"
    )
    parts = (part for record in manifest.of_kind("blocks") for part in file.streams(record))
    done = 0
    for part in in_parallel(file.decode, parts):
        indices[done : done + len(part)] = part
        done += len(part)
        progress("decoding", done, len(indices))
    file.arrange_(indices, layout)
    file.forget_usage()
    with file.file.problems("manifest"):
        return Mosaic(file.motifs, indices, layout, file.scales, config_of(file))


@torch.no_grad()
def load_(model: nn.Module, path: str | os.PathLike[str]) -> Checkpoint:
    """Gives every parameter and buffer of `model` the values that the file at `path` holds.

    The model may be on any device. Buffers that `state_dict` leaves out are set where the model
    has them too. A tensor that the model ties to one in the file need not be in the file itself:
    checkpoints of tied models often leave `lm_head.weight` out. Afterwards the model is a mosaic
    that `Mosaic.of` knows.

    Raises:
        FormatError: if the file is damaged or not a .momos file.
        ValueError: if the model has other names, shapes or dtypes; lists them all. The model is
            then unchanged.
    """
    with MosaicFile(path) as file:
        check_whole_tensors(model)
        tensors = {name: tensor for name, tensor, _ in named_tensors(model)}
        _check_model(model, file)
        check_state(model)
        checkpoint = checkpoint_of(file)
    values = checkpoint.contents()
    for record in checkpoint.records:
        stored = values.record(record.same_as or record.name)
        if record.name not in tensors or not _fits(tensors[record.name], stored):
            continue
        flat = torch.cat(
            [torch.empty(0, dtype=stored.dtype, device="cpu"), *values.pieces(stored)]
        )
        tensors[record.name].copy_(flat.view(stored.shape))
    mosaic, parameters = (
        checkpoint.mosaic,
        dict(model.named_parameters(remove_duplicate=False)),
    )
    if mosaic and all(place.name in parameters for place in mosaic.layout.placements):
        mosaic.remember_(model)
    return checkpoint


def _check_model(model: nn.Module, file: MosaicFile) -> None:
    """Refuses a model that the file does not fit, naming everything that is wrong."""
    records = {record.name: record for record in file.manifest.records}
    tensors = {name: (tensor, kind) for name, tensor, kind in named_tensors(model)}
    filled = {memory(tensor) for name, (tensor, _) in tensors.items() if name in records}
    missing = [
        name
        for name, (tensor, kind) in tensors.items()
        if name not in records and memory(tensor) not in filled and kind != TEMPORARY
    ]
    unexpected = [n for n, r in records.items() if n not in tensors and r.persistent]
    other, holders = [], {}
    for name, (tensor, kind) in tensors.items():
        if name not in records:
            continue
        stored = records[records[name].same_as or name]
        if not _fits(tensor, stored) and not _why_fixed(tensor) and kind != TEMPORARY:
            other.append(
                f"{name} (file: {stored.dtype} {stored.shape}, "
                f"model: {tensor.dtype} {tuple(tensor.shape)})"
            )
        if (why := _why_fixed(tensor)) and kind != TEMPORARY:
            other.append(f"{name} ({why})")
        first, held = holders.setdefault(memory(tensor), (name, stored.name))
        if held != stored.name:
            other.append(f"{name} (the model ties it to {first}, the file does not)")
    problems = [
        f"{title}: {', '.join(names)}"
        for title, names in (
            ("only the model has", missing),
            ("only the file has", unexpected),
            ("of another shape or kind", other),
        )
        if names
    ]
    if problems:
        raise ValueError(
            f"the model must have the tensors of {file.path}; " + "; ".join(problems)
        )


def _why_fixed(tensor: Tensor) -> str:
    """Why no values can be written into `tensor`, if they cannot."""
    if is_lazy(tensor):
        return "uninitialised: run one forward pass first"
    if tensor.is_meta:
        return "on the meta device, which holds no values"
    if tensor.is_inference():
        return "made in inference mode, so it cannot be changed"
    if tensor.layout != torch.strided:
        return f"not strided but {tensor.layout}"
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    if any(size > 1 and stride == 0 for size, stride in strides):
        return "expanded: its values share memory"
    return ""


def _fits(tensor: Tensor, stored: Record) -> bool:
    return not _why_fixed(tensor) and (tuple(tensor.shape), tensor.dtype) == (
        stored.shape,
        stored.dtype,
    )


def config_of(file: MosaicFile) -> MosaicConfig | LatticeConfig | None:
    """What the mosaic in `file` was made by, if that was saved and this version knows it."""
    config = file.manifest.config
    return None if config is None else known_config(config)
