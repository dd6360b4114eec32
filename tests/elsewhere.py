"""A device beside the CPU on machines that have none: its tensors and those of the CPU do not mix."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # the only one that torch always has


class Elsewhere(Tensor):
    """Says that it is on `DEVICE`; its values are in `held`, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


class Apart(TorchDispatchMode):
    """In it, what is made on `DEVICE` or sent there is `Elsewhere`."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One operation, if all its tensors are on one device (those of no dimension aside)."""
    flat = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    there = [t for t in flat if isinstance(t, Elsewhere)]
    name = str(function)
    crossing = name.startswith(("aten._to_copy", "aten.copy_"))
    if there and not crossing:
        here = [t for t in flat if not isinstance(t, Elsewhere) and t.ndim]
        if here and "index" not in name:
            raise RuntimeError(f"all tensors must be on one device in {name}, got two")
    device = kwargs.get("device")
    asked = None if device is None else torch.device(device).type
    if asked is not None:
        kwargs = kwargs | {"device": "cpu"}
    bare = tree_map(lambda t: t.held if isinstance(t, Elsewhere) else t, (args, kwargs))
    found = function(*bare[0], **bare[1])
    if name.startswith("aten.copy_"):
        return args[0]
    if asked == "cpu" or (asked is None and not there):
        return found
    written = {id(tensor.held): tensor for tensor in there}  # where it is in place

    def sent(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return written[id(value)] if id(value) in written else Elsewhere(value)

    return tree_map(sent, found)
