"""The tensors of a checkpoint before their values are read: names, shapes, dtypes."""

import copy
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from momos.blocks import memory
from momos.checkpoints.records import piece
from momos.files.contents import (
    TEMPORARY,
    Contents,
    check_state,
    check_values,
    joined,
    named_tensors,
    why_fixed,
)
from momos.parameters import check_whole_tensors

# Running statistics by the names that frameworks give them. They never become blocks: a variance
# that is rounded to a motif may become negative or zero, and the network is lost.
PARTS = re.compile(r"[./:|]+")
OF_HOLDERS = (
    "value",
    "raw_value",
)  # last parts without meaning, in names of Flax's variables
COLLECTIONS = (  # of Flax and Haiku; everything in them is statistics
    "batch_stats",
    "mean_ema",
    "var_ema",
)
# The last part of the name, or the end of it as in "bn0_moving_var" of MXNet.
ENDS = tuple(
    f"{kind}_{what}"
    for kind in ("running", "moving", "rolling", "avg")
    for what in ("mean", "var", "variance", "std")
)
# For vectors only: Paddle's names, and those of other frameworks inside a module for statistics.
OF_VECTORS = ("mean", "var", "variance", "std", "_mean", "_variance")


@dataclass(frozen=True)
class SourceTensor:
    """A tensor on disk; `read` returns its flat values between two positions."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[int, int], Tensor]

    @property
    def num_weights(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Source:
    """The tensors of a checkpoint by name.

    `aliases` maps further names of shared tensors to the first. `left_out` is what else the file
    holds, and of which type. `unreadable` are tensors whose values are not plain numbers, such as
    quantized and sparse ones, and what to do about them. `files` are all files that are read.
    """

    path: Path
    tensors: dict[str, SourceTensor]
    aliases: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors as they are in memory, each once."""
        tensors = self.tensors.values()
        return sum(tensor.num_weights * tensor.dtype.itemsize for tensor in tensors)


def is_statistics(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this name and shape is known to be running statistics."""
    parts = [part for part in PARTS.split(name.lower()) if not part.isdigit()]
    while parts and parts[-1] in OF_HOLDERS:
        parts.pop()
    if not parts:
        return False
    if parts[-1].endswith(ENDS) or any(part in COLLECTIONS for part in parts):
        return True
    return parts[-1] in OF_VECTORS and math.prod(shape) == max(shape, default=1)


def module_source(model: nn.Module) -> Source:
    """The tensors of the `state_dict` of `model`, tied ones once, by their first name.

    Raises:
        ValueError: if it is sharded, has state other than parameters and buffers, or one of
            them holds no values.
    """
    check_whole_tensors(model)
    for name, tensor, _ in named_tensors(model):
        check_values(name, tensor)
    check_state(model)
    tensors, aliases, first, unreadable = {}, {}, {}, {}
    for name, tensor, kind in named_tensors(model):
        if kind == TEMPORARY:
            continue
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
            unreadable[name] = _why_unreadable(tensor)
            continue
        held = first.setdefault(memory(tensor), name)
        if held != name:
            aliases[name] = held
            continue
        read = partial(_read, tensor.detach())
        tensors[name] = SourceTensor(name, tuple(tensor.shape), tensor.dtype, read)
    path = Path(type(model).__name__)
    return Source(path, tensors, aliases, unreadable=unreadable)


def _why_unreadable(tensor: Tensor) -> str:
    if tensor.is_quantized:
        return "quantized: use its dequantize()"
    if tensor.is_nested:
        return "nested: use its to_padded_tensor(0.0)"
    return f"sparse ({str(tensor.layout).removeprefix('torch.')}): use its to_dense()"


def _read(tensor: Tensor, start: int, stop: int) -> Tensor:
    return piece(tensor, start, stop).cpu().resolve_conj().resolve_neg().contiguous()


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model` that shares no tensor with it.

    Raises:
        ValueError: if it cannot be copied; says why.
    """
    try:
        return copy.deepcopy(model)
    except (TypeError, RuntimeError, copy.Error) as error:
        raise ValueError(
            f"a Module must allow copy.deepcopy to be evaluated, but {type(model).__name__} "
            f"does not: {error}"
        ) from error


@torch.no_grad()
def with_values(model: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `model` whose parameters and buffers have these `values` by name."""
    result = copied(model)
    for name, tensor, kind in named_tensors(result):
        if kind != TEMPORARY and name in values:
            value = values[name].to(tensor.device)
            if why_fixed(tensor):  # as an expanded buffer is
                _replace(result, name, value.clone())
            else:
                tensor.copy_(value)
    return result


def _replace(model: nn.Module, name: str, value: Tensor) -> None:
    """Puts another tensor in the place of a parameter or buffer."""
    prefix, _, last = name.rpartition(".")
    module = model.get_submodule(prefix)
    if last in module._buffers:
        module._buffers[last] = value
    else:
        module._parameters[last] = nn.Parameter(value, requires_grad=False)


def dense_values(source: Source) -> dict[str, Tensor]:
    """All tensors of `source`, unchanged, by every name they have."""
    values = {
        name: tensor.read(0, tensor.num_weights).clone().view(tensor.shape)
        for name, tensor in source.tensors.items()
    }
    return values | {name: values[first] for name, first in source.aliases.items()}


def stored_values(contents: Contents) -> dict[str, Tensor]:
    """All tensors by every name they have, as they would be loaded from the file."""
    values = {
        record.name: joined(record, contents.pieces(record))
        for record in contents.records
        if record.stored != "same"
    }
    return {
        record.name: values[record.same_as or record.name] for record in contents.records
    }
