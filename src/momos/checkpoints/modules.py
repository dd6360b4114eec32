"""Modules as sources of compression, and copies of them with compressed weights.

The user's module is only read; only copies get other weights.
"""

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from momos.blocks import memory
from momos.checkpoints.source import Source, SourceTensor
from momos.files.contents import TEMPORARY, Contents, check_state, named_tensors
from momos.parameters import check_whole_tensors


def module_source(model: nn.Module) -> Source:
    """The tensors of the `state_dict` of `model`, tied ones once, by their first name.

    Raises:
        ValueError: if it is sharded, has state other than parameters and buffers, or one of
            them holds no values.
    """
    check_whole_tensors(model)
    _check_values(model)
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


def _check_values(model: nn.Module) -> None:
    for name, tensor, _ in named_tensors(model):
        if is_lazy(tensor) or tensor.is_meta:
            kind = "an uninitialised" if is_lazy(tensor) else "a meta"
            raise ValueError(f"tensor {name!r} must hold values, got {kind} one")


def _why_unreadable(tensor: Tensor) -> str:
    if tensor.is_quantized:
        return "quantized: use its dequantize()"
    if tensor.is_nested:
        return "nested: use its to_padded_tensor(0.0)"
    return f"sparse ({str(tensor.layout).removeprefix('torch.')}): use its to_dense()"


def _read(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor.contiguous().view(-1)[start:stop].cpu().resolve_conj().resolve_neg()


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
            if not torch.equal(value, tensor):  # do not touch views that cannot be written
                tensor.copy_(value)
    return result


def dense_values(source: Source) -> dict[str, Tensor]:
    """All tensors of `source`, unchanged, by every name they have."""
    values = {
        name: tensor.read(0, tensor.num_weights).clone().view(tensor.shape)
        for name, tensor in source.tensors.items()
    }
    return values | {name: values[first] for name, first in source.aliases.items()}


def stored_values(contents: Contents) -> dict[str, Tensor]:
    """All tensors by every name they have, as they would be loaded from the file."""
    values = {}
    for record in contents.records:
        if record.stored == "same":
            continue
        flat, start = torch.empty(record.num_weights, dtype=record.dtype, device="cpu"), 0
        for part in contents.pieces(record):
            flat[start : start + len(part)] = part
            start += len(part)
        values[record.name] = flat.view(record.shape)
    return {
        record.name: values[record.same_as or record.name] for record in contents.records
    }
