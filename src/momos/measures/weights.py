"""What is measured: floating tensors by name, read one at a time."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from momos.blocks import DTYPES, matches
from momos.files import Checkpoint, MosaicFile, load
from momos.mosaic import Mosaic, remembered
from momos.sources import open_source

STATISTICS = ("*running_mean", "*running_var")
Measurable = (
    nn.Module | Mosaic | Checkpoint | Mapping[str, Tensor] | Tensor | str | os.PathLike
)


@dataclass(frozen=True)
class Weights:
    """Tensors that are read when they are measured; the mosaic they are, if they are one."""

    tensors: dict[str, Callable[[], Tensor]]
    left_out: dict[str, str] = field(default_factory=dict)
    mosaic: Mosaic | None = None
    file_bits: int | None = None

    @classmethod
    def of(cls, x: Measurable) -> "Weights":
        """The weights of a network in any form.

        Of a module these are its trainable parameters; of a checkpoint or mapping all floating
        tensors but running statistics.

        Raises:
            TypeError: if `x` is no network.
            ValueError: if no tensor in it can be measured.
        """
        if isinstance(x, nn.Module):
            found = _of_module(x)
        elif isinstance(x, Mosaic):
            found = cls(_lazy(x.dense()), mosaic=x)
        elif isinstance(x, Checkpoint):
            found = _of_checkpoint(x)
        elif isinstance(x, Tensor):
            found = _of_mapping({"tensor": x})
        elif isinstance(x, Mapping):
            found = _of_mapping(x)
        elif isinstance(x, str | os.PathLike):
            found = _of_path(Path(x))
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


def _of_module(model: nn.Module) -> Weights:
    tensors, left_out = {}, {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            left_out[name] = "frozen"
        elif why := _why_not(name, parameter.dtype, parameter.numel()):
            left_out[name] = why
        else:
            tensors[name] = partial(torch.Tensor.detach, parameter)
    for name, _ in model.named_buffers():
        left_out[name] = "buffer"
    mosaic = Mosaic.of(model) if remembered(model) else None
    return Weights(tensors, left_out, mosaic)


def _of_mapping(state: Mapping[str, Tensor]) -> Weights:
    tensors, left_out = {}, {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            left_out[name] = type(tensor).__name__
        elif why := _why_not(name, tensor.dtype, tensor.numel()):
            left_out[name] = why
        else:
            tensors[name] = partial(torch.Tensor.detach, tensor)
    return Weights(tensors, left_out)


def _of_checkpoint(checkpoint: Checkpoint, file_bits: int | None = None) -> Weights:
    found = _of_mapping(checkpoint.state_dict())
    return Weights(found.tensors, found.left_out, checkpoint.mosaic, file_bits)


def _of_path(path: Path) -> Weights:
    if path.suffix == ".momos":
        with MosaicFile(path) as file:
            size = file.file.num_bytes
        return _of_checkpoint(load(path), 8 * size)
    source = open_source(path)
    tensors, left_out = {}, dict(source.left_out)
    for name, tensor in source.tensors.items():
        if why := _why_not(name, tensor.dtype, tensor.num_weights):
            left_out[name] = why
        else:
            tensors[name] = partial(_read, tensor.read, tensor.num_weights, tensor.shape)
    left_out |= {name: f"same as {first}" for name, first in source.aliases.items()}
    return Weights(tensors, left_out)


def _read(read: Callable[[int, int], Tensor], count: int, shape: tuple[int, ...]) -> Tensor:
    return read(0, count).view(shape)


def _lazy(tensors: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    return {name: partial(torch.Tensor.detach, tensor) for name, tensor in tensors.items()}


def _why_not(name: str, dtype: torch.dtype, count: int) -> str:
    if dtype not in DTYPES:
        return f"not floating but {str(dtype).removeprefix('torch.')}"
    if not count:
        return "empty"
    return "running statistics" if matches(name, STATISTICS) else ""
