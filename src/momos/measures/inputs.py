"""The tensors to be measured: floating ones by name, read one at a time."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from momos.blocks import DTYPES, Placement, memory
from momos.checkpoints.opening import open_source
from momos.checkpoints.source import is_statistics
from momos.files import Checkpoint, MosaicFile
from momos.files.api import mosaic_of
from momos.files.manifest import Record
from momos.mosaic import Mosaic, remembered
from momos.parameters import check_held_tensors, check_whole_tensor, check_whole_tensors
from momos.sharded import ShardedLayout
from momos.shards import Ranks, gathered, spread_out

Measurable = (
    nn.Module | Mosaic | Checkpoint | Mapping[str, Tensor] | Tensor | str | os.PathLike
)
Read = Callable[[], Tensor]


@dataclass(frozen=True)
class FileSize:
    """Bits of a file, and the number and bits of its values."""

    bits: int
    num_weights: int
    raw_bits: int


@dataclass(frozen=True)
class Inputs:
    """Tensors that are read when they are measured, and their mosaic, if there is one."""

    tensors: dict[str, Read]
    shapes: dict[str, tuple[int, ...]]
    left_out: dict[str, str] = field(default_factory=dict)
    mosaic: Mosaic | None = None
    file: FileSize | None = None

    @classmethod
    def of(cls, x: Measurable, key: str = "") -> "Inputs":
        """The weights of a network in any form, in its order; shared ones once.

        Of a module these are its trainable parameters; of a checkpoint or mapping all floating
        tensors but running statistics.

        Raises:
            TypeError: if `x` is not a network.
            ValueError: if no tensor in it can be measured, or there is no torch file that `key`
                can choose from.
        """
        if key and not isinstance(x, str | os.PathLike):
            raise ValueError(
                f"key must be given for the path of a torch file only, got {key!r} for a "
                f"{type(x).__name__}"
            )
        if isinstance(x, nn.Module):
            found = _of_module(x)
        elif isinstance(x, Mosaic):
            if isinstance(x.layout, ShardedLayout):
                raise ValueError(
                    "a mosaic of which ranks hold parts is measured by its model, got the "
                    "mosaic (momos.measure(model))"
                )
            found = _gather(_blocks(x), mosaic=x)
        elif isinstance(x, Checkpoint):
            found = _of_checkpoint(x)
        elif isinstance(x, Tensor):
            found = _of_mapping({"weight": x})
        elif isinstance(x, Mapping):
            found = _of_mapping(x)
        elif isinstance(x, str | os.PathLike):
            found = _of_path(Path(x), key)
        else:
            raise TypeError(
                "a module, state dict, tensor, mosaic or path can be measured, got "
                f"{type(x).__name__}"
            )
        if not found.tensors:
            reasons = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
            raise ValueError(
                f"at least one floating tensor must be there to measure, got none "
                f"({reasons or 'nothing at all'})"
            )
        return found


@dataclass(frozen=True)
class _Found:
    """A candidate tensor, or the reason why it cannot be measured."""

    name: str
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    read: Read | None = None
    why: str = ""

    @classmethod
    def gathered(cls, name: str, tensor: Tensor, ranks: Ranks) -> "_Found":
        """A tensor of a sharded model; all ranks read it together."""
        read = partial(gathered, name, tensor, ranks)
        return cls(name, tuple(tensor.shape), tensor.dtype, read)

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "_Found":
        check_whole_tensor(name, tensor)
        if is_lazy(tensor):
            raise ValueError(f"tensor {name!r} must be initialised before it is measured")
        if tensor.layout != torch.strided or tensor.is_nested:
            return cls(name, why="sparse")
        read = partial(torch.Tensor.detach, tensor)
        return cls(name, tuple(tensor.shape), tensor.dtype, read)


def _gather(found: Iterable[_Found], **beside: Any) -> Inputs:
    tensors, shapes, left_out = {}, {}, {}
    for one in found:
        if (why := one.why or _why_not(one)) or one.read is None:
            left_out[one.name] = why
        else:
            tensors[one.name], shapes[one.name] = one.read, one.shape
    return Inputs(tensors, shapes, left_out, **beside)


def _why_not(one: _Found) -> str:
    if one.dtype not in DTYPES:
        return f"not floating but {str(one.dtype).removeprefix('torch.')}"
    if 0 in one.shape:
        return "empty"
    return "running statistics" if is_statistics(one.name, one.shape) else ""


def _of_module(model: nn.Module) -> Inputs:
    sharded = spread_out(model)
    ranks = Ranks.of(model, replicas=False)
    with ranks.together():
        (check_held_tensors if sharded else check_whole_tensors)(model)
    found = [
        _Found.gathered(name, parameter, ranks)
        if parameter.requires_grad and sharded
        else _Found.of(name, parameter)
        if parameter.requires_grad
        else _Found(name, why="frozen")
        for name, parameter in model.named_parameters()
    ]
    found += [_Found(name, why="buffer") for name, _ in model.named_buffers()]
    return _gather(found, mosaic=Mosaic.of(model) if remembered(model) else None)


def _of_mapping(state: Mapping[str, Tensor]) -> Inputs:
    found, first = [], {}
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise TypeError(f"names of tensors must be strings, got {name!r}")
        if not isinstance(tensor, Tensor):
            found.append(_Found(name, why=type(tensor).__name__))
            continue
        one = _Found.of(name, tensor)
        if (
            one.read is not None
            and (same := first.setdefault(memory(tensor), name)) != name
        ):
            one = _Found(name, why=f"same as {same}")
        found.append(one)
    return _gather(found)


def _of_checkpoint(checkpoint: Checkpoint) -> Inputs:
    blocks = {one.name: one for one in _blocks(checkpoint.mosaic)}
    found = []
    for record in checkpoint.records:
        if record.stored == "same":
            found.append(_Found(record.name, why=f"same as {record.same_as}"))
        elif record.stored == "blocks":
            found.append(blocks[record.name])
        elif record.persistent:
            found.append(_Found.of(record.name, checkpoint.dense[record.name]))
    return _gather(found, mosaic=checkpoint.mosaic)


def _of_path(path: Path, key: str) -> Inputs:
    if path.suffix == ".momos" and not key:
        return _of_file(path)
    source = open_source(path, key=key)
    found = [
        _Found(t.name, t.shape, t.dtype, partial(_read, t.read, t.num_weights, t.shape))
        for t in source.tensors.values()
    ]
    others = source.left_out | source.unreadable
    others |= {n: f"same as {first}" for n, first in source.aliases.items()}
    return _gather([*found, *(_Found(name, why=why) for name, why in others.items())])


def _of_file(path: Path) -> Inputs:
    """The tensors of a .momos file, decoded one by one."""
    with MosaicFile(path) as file:
        file.check_sections(*file.file.sections)
        mosaic, records = mosaic_of(file), file.manifest.records
        stored = [record for record in records if record.stored != "same"]
        size = FileSize(
            bits=8 * file.file.num_bytes,
            num_weights=sum(record.num_weights for record in stored),
            raw_bits=8 * sum(record.num_bytes for record in stored),
        )
    blocks = {one.name: one for one in _blocks(mosaic)}
    found = []
    for record in records:
        if record.stored == "same":
            found.append(_Found(record.name, why=f"same as {record.same_as}"))
        elif record.stored == "blocks":
            found.append(blocks[record.name])
        elif record.persistent:
            read = partial(_decode, path, record)
            found.append(_Found(record.name, record.shape, record.dtype, read))
    return _gather(found, mosaic=mosaic, file=size)


def _blocks(mosaic: Mosaic | None) -> list[_Found]:
    if mosaic is None:
        return []
    return [
        _Found(place.name, place.shape, place.dtype, partial(_rebuild, mosaic, place))
        for place in mosaic.layout.placements
    ]


def _rebuild(mosaic: Mosaic, place: Placement) -> Tensor:
    return torch.cat([values for _, values in mosaic.rebuilt(place)]).view(place.shape)


def _decode(path: Path, record: Record) -> Tensor:
    """A dense tensor of a file, whose checksums were compared when it was first opened."""
    with MosaicFile(path) as file:
        return torch.cat(list(file.pieces(record))).view(record.shape)


def _read(read: Callable[[int, int], Tensor], count: int, shape: tuple[int, ...]) -> Tensor:
    return read(0, count).view(shape)
