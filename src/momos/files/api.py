"""Saving networks to files and loading them: `save`, `load`, `load_`, `inspect`, `Checkpoint`."""

import copy
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, overload

import torch
from torch import Tensor, nn

from momos._util.atomic import replacing
from momos._util.work import Progress, in_parallel, quiet
from momos.blocks import memory
from momos.compact.compacting import (
    Compacted,
    check_not_compact,
    expand_,
    install_packed_,
    is_compact,
)
from momos.config import LatticeConfig, MosaicConfig, known_config
from momos.files.compact_loading import fill_dense_, read_packed
from momos.files.contents import (
    TEMPORARY,
    Contents,
    check_state,
    joined,
    named_tensors,
    sha256_of,
    takes,
    why_fixed,
)
from momos.files.gathering import FetchedMosaic, Gathering, local_scales
from momos.files.manifest import Record
from momos.files.reader import MosaicFile
from momos.files.report import SaveReport, report_on
from momos.files.writer import write
from momos.mosaic import Mosaic, index_dtype
from momos.parameters import check_held_tensors, check_whole_tensors
from momos.sharded import ShardedLayout, sharded_layout
from momos.shards import Part, Ranks, local, spread_out, without_replicas


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All tensors of a network: those that are blocks as a mosaic, the others dense, by name.

    `mosaic` is None if no tensor is blocks. `metadata` is that of the checkpoint which was
    compressed, if it had any.

    Example:
        >>> report = momos.compress(nn.Linear(8, 3), "net.momos")
        >>> checkpoint = momos.load("net.momos")
        >>> checkpoint.mosaic.num_motifs > 1, list(checkpoint.dense)
        (True, ['bias'])
        >>> sorted(checkpoint.state_dict())
        ['bias', 'weight']
    """

    mosaic: Mosaic | None
    dense: dict[str, Tensor]
    records: tuple[Record, ...] = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by every name it has; names of one tensor share it."""
        values = self.dense | (self.mosaic.dense() if self.mosaic else {})
        return {
            record.name: values[record.same_as or record.name] for record in self.records
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The state dict of the saved model, without the buffers that its own left out."""
        values = self.tensors()
        return {
            record.name: values[record.name] for record in self.records if record.persistent
        }

    def contents(self) -> Contents:
        """Contents with which this is saved again.

        Raises:
            ValueError: if `dense` has other names, shapes or dtypes than `records`.
        """
        if self.mosaic is not None and isinstance(self.mosaic.layout, ShardedLayout):
            raise ValueError(
                "a checkpoint must hold all weights to be saved, but this is one rank's part "
                "(momos.save(model, path) saves those of all ranks)"
            )
        wanted = {r.name: (r.dtype, r.shape) for r in self.records if r.stored == "dense"}
        found = {name: (t.dtype, tuple(t.shape)) for name, t in self.dense.items()}
        for name in wanted | found:
            if found.get(name) != wanted.get(name):
                raise ValueError(
                    f"tensor {name!r} of a checkpoint must be {_described(wanted.get(name))}, "
                    f"as its record says, got {_described(found.get(name))}"
                )
        flat = {name: t.detach().contiguous().view(-1) for name, t in self.dense.items()}

        def read(name: str, start: int, stop: int) -> Tensor:
            return flat[name][start:stop].cpu()

        return Contents(self.records, self.mosaic, read, self.metadata)


def _described(about: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return f"{about[0]} of shape {about[1]}" if about else "absent"


def save(
    network: nn.Module | Mosaic | Checkpoint,
    path: str | os.PathLike[str],
    *,
    config: MosaicConfig | None = None,
) -> SaveReport:
    """Writes a network to `path`, and reports its size.

    A module must be a mosaic (`project_` makes it one); all its parameters and buffers are saved,
    those that are not blocks losslessly. An old file at `path` stays whole until the new one is.
    Every value is read once, so weights that another thread changes meanwhile are saved as they
    were when they were read. A module that only holds the weights of a mosaic, as after
    `load_state_dict`, needs the `config` that made them (see `Mosaic.of`). One that is compact is
    saved as the dense one would be, of which a copy is made.

    Of a sharded model, and of the DistributedDataParallel around replicas, every rank calls this.
    The first writes, tensor by tensor, what it would write of the whole model; all return when
    the file is there, with the same report.

    Raises:
        TypeError: if `network` is none of these.
        ValueError: if the module is not a mosaic, or holds what is not an ordinary tensor, or
            `config` is given for anything but a module.
        OSError: if `path` cannot be written, or another process is writing it. Of several ranks,
            an error of one is raised on all.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> result = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16))
        >>> momos.save(model, "net.momos").factor > 10
        True
    """
    if config is not None and not isinstance(network, nn.Module):
        raise ValueError(
            f"config must be given for a Module only, got one for a {type(network).__name__}"
        )
    with torch.device("cpu"):  # whatever the default device is
        if ranks := _ranks_of(network):
            return _save_together(network, path, config, ranks)
        return save_contents(_contents_of(network, config), path)


def _ranks_of(network: object) -> Ranks | None:
    """The processes that save `network` together; None if it is that of this one alone."""
    if isinstance(network, nn.Module):
        ranks = Ranks.of(network)
        return ranks if ranks.groups or spread_out(network) else None
    layout = network.layout if isinstance(network, Mosaic) else None
    return layout.ranks if isinstance(layout, ShardedLayout) else None


def _save_together(
    network: nn.Module | Mosaic | Checkpoint,
    path: str | os.PathLike[str],
    config: MosaicConfig | None,
    ranks: Ranks,
) -> SaveReport:
    """`save` on every rank: the first one writes, and all return its report."""
    gathering, contents = None, None
    if isinstance(network, Mosaic):
        gathering = Gathering(ranks, None, network)
        contents = Contents.of_mosaic(FetchedMosaic(network, gathering.indices))
    elif isinstance(network, nn.Module):
        network = without_replicas(network)
        if spread_out(network):
            contents, gathering = Contents.gathered(network, config, ranks)
    report = None
    with ranks.together():
        if ranks.number > 0 and gathering is not None:
            gathering.serve()
        elif ranks.number == 0:
            try:
                report = save_contents(contents or _contents_of(network, config), path)
            finally:
                if gathering is not None:
                    gathering.end()
    return ranks.message(report)


def _contents_of(
    network: nn.Module | Mosaic | Checkpoint, config: MosaicConfig | None
) -> Contents:
    if isinstance(network, nn.Module):
        if is_compact(network):
            network = copy.deepcopy(network)
            expand_(network)
        return Contents.of_model(network, config)
    if isinstance(network, Mosaic):
        return Contents.of_mosaic(network)
    if isinstance(network, Checkpoint):
        return network.contents()
    raise TypeError(
        f"a Module, a Mosaic or a Checkpoint can be saved, got {type(network).__name__}"
    )


def save_contents(
    contents: Contents, path: str | os.PathLike[str], progress: Progress = quiet
) -> SaveReport:
    """Writes `contents` to `path`, and reports its size.

    The new file is opened and reported on before it replaces an old one, so nothing can fail
    after the old one is gone.
    """
    with replacing(path) as file:
        write(file, contents, progress=progress)
        contents.check_unchanged()
        file.flush()
        with MosaicFile(file.name) as written:
            report = report_on(written, contents.mosaic)
    return dataclasses.replace(report, path=Path(path))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Everything in the file at `path`, on the CPU; every checksum is compared.

    Raises:
        FormatError: if the file is damaged or not a .momos file; says where and how.
        OSError: if it cannot be read.

    Example:
        >>> report = momos.compress(nn.Linear(8, 3), "net.momos")
        >>> state = momos.load("net.momos").state_dict()
        >>> {name: tuple(value.shape) for name, value in state.items()}
        {'weight': (3, 8), 'bias': (3,)}
    """
    with MosaicFile(path) as file:
        return checkpoint_of(file)


def inspect(path: str | os.PathLike[str], *, progress: Progress = quiet) -> SaveReport:
    """Contents of the file at `path`, and the size of each part.

    The checksums of all sections are compared; that of all values is for `load` and
    `momos verify`, which decode them.

    Raises:
        FormatError: if the file is damaged or not a .momos file.
        OSError: if it cannot be read.

    Example:
        >>> report = momos.compress(nn.Linear(100, 100), "net.momos")
        >>> momos.inspect("net.momos").num_bytes == report.num_bytes
        True
    """
    with MosaicFile(path) as file:
        file.check_sections(*file.file.sections)
        return report_on(file, mosaic_of(file, progress))


def checkpoint_of(file: MosaicFile, progress: Progress = quiet) -> Checkpoint:
    """Everything in `file`, every checksum compared."""
    file.check_sections(*file.file.sections)
    manifest, mosaic = file.manifest, mosaic_of(file, progress)
    dense = {record.name: file.tensor(record.name) for record in manifest.of_kind("dense")}
    checkpoint = Checkpoint(mosaic, dense, manifest.records, manifest.metadata)
    found = sha256_of(manifest.records, checkpoint.contents().pieces, progress)
    file.check_weights(found)
    return checkpoint


def mosaic_of(file: MosaicFile, progress: Progress = quiet) -> Mosaic | None:
    """The mosaic in `file`, if there is one."""
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


@overload
def load_(
    model: nn.Module, path: str | os.PathLike[str], *, compact: Literal[False] = False
) -> Checkpoint: ...


@overload
def load_(
    model: nn.Module, path: str | os.PathLike[str], *, compact: Literal[True]
) -> Compacted: ...


@torch.no_grad()
def load_(
    model: nn.Module, path: str | os.PathLike[str], *, compact: bool = False
) -> Checkpoint | Compacted:
    """Gives every parameter and buffer of `model` the values that the file at `path` holds.

    The model may be on any device, and sharded: then every rank calls this and takes its part,
    tensor by tensor, and the result holds that part. Buffers that `state_dict` leaves out are set where the model
    has them too. A tensor that the model ties to one in the file need not be in the file itself:
    checkpoints of tied models often leave `lm_head.weight` out. Afterwards the model is a mosaic
    that `Mosaic.of` knows.

    With `compact` the model becomes what `compact_` makes of it, and its dense weights are never
    made: not even before, if the model was made on the meta device.

    Raises:
        FormatError: if the file is damaged or not a .momos file.
        ValueError: if the model has other names, shapes or dtypes; lists them all. The model is
            then unchanged.

    Example:
        >>> report = momos.compress(nn.Linear(8, 3), "net.momos")
        >>> model = nn.Linear(8, 3)
        >>> checkpoint = momos.load_(model, "net.momos")
        >>> torch.equal(model.weight, checkpoint.state_dict()["weight"])
        True
    """
    if compact:
        return load_compact_(model, path)
    model = without_replicas(model)
    if spread_out(model):
        return _load_shards_(model, path)
    with MosaicFile(path) as file:
        check_whole_tensors(model)
        tensors = {name: tensor for name, tensor, _ in named_tensors(model)}
        _check_model(model, file)
        check_state(model)
        checkpoint = checkpoint_of(file)
    values = checkpoint.contents()
    for record in checkpoint.records:
        stored = values.record(record.same_as or record.name)
        tensor = tensors.get(record.name)
        if tensor is not None and takes(tensor, stored.shape, stored.dtype):
            tensor.copy_(joined(stored, values.pieces(stored)))
    mosaic, parameters = (
        checkpoint.mosaic,
        dict(model.named_parameters(remove_duplicate=False)),
    )
    if mosaic and all(place.name in parameters for place in mosaic.layout.placements):
        mosaic.remember_(model)
    return checkpoint


def _load_shards_(model: nn.Module, path: str | os.PathLike[str]) -> Checkpoint:
    """`load_` of what this rank holds; the first one verifies the whole file before."""
    ranks, tensors = Ranks.of(model), {n: t for n, t, _ in named_tensors(model)}
    with ranks.together():
        opened = MosaicFile(path)
    with opened as file:
        with ranks.together():
            check_held_tensors(model)
            _check_model(model, file)
            check_state(model)
            file.check_sections(*file.file.sections)
            if ranks.number == 0:
                file.verify()
        mosaic = _local_mosaic(model, file)
        if mosaic is not None:
            mosaic.write_(model)
        written = {place.name for place in mosaic.layout.placements} if mosaic else set()
        dense = {}
        for record in file.manifest.records:
            stored = file.record(record.same_as or record.name)
            tensor = tensors.get(record.name)
            if tensor is None or stored.name in written:
                continue
            part = Part.of(record.name, tensor)
            if takes(tensor, stored.shape, stored.dtype):
                local(tensor).copy_(joined(stored, file.pieces(stored))[part.box])
            if record.stored == "dense":
                dense[record.name] = local(tensor)
        return Checkpoint(mosaic, dense, file.manifest.records, file.manifest.metadata)


def _local_mosaic(model: nn.Module, file: MosaicFile) -> Mosaic | None:
    """What this rank holds of the mosaic in `file`, decoded parameter by parameter."""
    whole, parameters = file.manifest.layout(), dict(model.named_parameters())
    if whole is None or any(place.name not in parameters for place in whole.placements):
        return None
    layout = sharded_layout(whole, parameters, Ranks.of(model, replicas=False))
    kind = index_dtype(file.bank.num_motifs)
    indices = torch.empty(layout.num_rows, dtype=kind, device="cpu")
    for number, place in enumerate(whole.placements):
        blocks, rows = layout.rows_of(number)
        indices[rows] = torch.cat(list(file.indices(file.record(place.name))))[blocks]
    file.forget_usage()
    device = next(layout.tensors(model))[1].device
    with file.file.problems("manifest"):
        scales = local_scales(file.scales, layout)
        own = Mosaic(file.motifs, indices, layout, scales, config_of(file))
    if device.type == "cpu":
        return own
    moved = None if scales is None else tuple(scale.to(device) for scale in scales)
    return Mosaic(own.motifs.to(device), indices.to(device), layout, moved, own.config)


def load_compact_(model: nn.Module, path: str | os.PathLike[str]) -> Compacted:
    """`load_` without dense weights; a model on the meta device gets all its values on the CPU."""
    with torch.device("cpu"), MosaicFile(path) as file:
        check_whole_tensors(model)
        check_not_compact(model)
        _check_model(model, file, meta=True)
        check_state(model)
        read = read_packed(file)
        config = config_of(file)
        about = read.motifs, read.indices, read.scales, read.layout, config
        compacted = install_packed_(model, *about, aliases=read.aliases)
        fill_dense_(model, read.still_dense(compacted.dense))
    return compacted


def _check_model(model: nn.Module, file: MosaicFile, *, meta: bool = False) -> None:
    """Refuses a model that the file does not fit, naming everything that is wrong.

    With `meta`, tensors may be on the meta device if the file holds them.
    """
    records = {record.name: record for record in file.manifest.records}
    tensors = {name: (tensor, kind) for name, tensor, kind in named_tensors(model)}
    filled = {memory(tensor) for name, (tensor, _) in tensors.items() if name in records}
    missing = [
        name
        for name, (tensor, kind) in tensors.items()
        if name not in records and memory(tensor) not in filled and kind != TEMPORARY
    ]
    unexpected = [n for n, r in records.items() if n not in tensors and r.persistent]
    empty = [
        name
        for name, (tensor, kind) in tensors.items()
        if meta and kind == TEMPORARY and tensor.is_meta and name not in records
    ]
    problems = [
        f"{title}: {', '.join(names)}"
        for title, names in (
            ("only the model has", missing),
            ("on the meta device, and not in the file (make them on the CPU)", empty),
            ("only the file has", unexpected),
            ("of another shape or kind", list(_unlike(tensors, records, meta=meta))),
        )
        if names
    ]
    if problems:
        raise ValueError(
            f"the model must have the tensors of {file.path}; " + "; ".join(problems)
        )


def _unlike(
    tensors: dict[str, tuple[Tensor, str]], records: dict[str, Record], *, meta: bool
) -> Iterator[str]:
    """The tensors that cannot have the values of their records, and why."""
    holders: dict[object, tuple[str, str]] = {}
    for name, (tensor, kind) in tensors.items():
        if name not in records:
            continue
        stored = records[records[name].same_as or name]
        fixed = "" if meta and tensor.is_meta else why_fixed(tensor)
        if kind != TEMPORARY and fixed:
            yield f"{name} ({fixed})"
        elif kind != TEMPORARY and (tuple(tensor.shape), tensor.dtype) != (
            stored.shape,
            stored.dtype,
        ):
            yield (
                f"{name} (file: {stored.dtype} {stored.shape}, "
                f"model: {tensor.dtype} {tuple(tensor.shape)})"
            )
        first, held = holders.setdefault(memory(tensor), (name, stored.name))
        if held != stored.name:
            yield f"{name} (the model ties it to {first}, the file does not)"


def config_of(file: MosaicFile) -> MosaicConfig | LatticeConfig | None:
    """Settings by which the mosaic in `file` was made, if saved and known to this version."""
    config = file.manifest.config
    return None if config is None else known_config(config)
