"""What every treatment is; dense networks, trained or as published, are the plainest.

Every treatment meets the same network, the same batches and the same optimizer. All keep
parameters of one dimension and buffers, and round them to bfloat16 in the end, so that files
differ by the treatment alone.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from momos.study.tasks.task import Task
from momos.study.treatments.packing import write

Weight = tuple[nn.Module, str]
KINDS: dict[
    Any, tuple[str, tuple[type, ...]]
] = {  # of settings: words, and types of values
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    NoneType: ("none", (NoneType,)),
}


class Treatment(ABC):
    """A way to train a network. `start` comes before the optimizer is made.

    `finish` may be called at any time from `settled` on.
    """

    task: Task | None = None  # what it trains the network for, if it is told
    _network: nn.Module

    def __post_init__(self) -> None:
        """Checks the kinds of the settings; a subclass that checks more calls it.

        Raises:
            ValueError: if one is of another kind (names it, what it must be and what was given).
        """
        kinds = get_type_hints(type(self))
        for setting in fields(self):  # type: ignore[arg-type]
            kind, given = kinds[setting.name], getattr(self, setting.name)
            if not _is_of(kind, given):
                raise ValueError(f"{setting.name} must be {_words(kind)}, got {given!r}")

    @property
    def settled(self) -> float:
        """The share of all steps from which on a network is all that the settings ask for.

        No network of an earlier step is chosen, and training does not stop earlier.
        """
        return 0.0

    def start(self, network: nn.Module, steps: int, *, epochs: float, seed: int) -> None:
        """Prepares the network for so many steps, in so many epochs of equal length."""
        self._network = network

    def after_backward(self) -> None:  # noqa: B027
        """To be called when the gradients of a step are there."""

    def after_step(self) -> None:  # noqa: B027
        """To be called after each step of the optimizer."""

    @abstractmethod
    def finish(self) -> None:
        """Leaves an ordinary network, which is what the file will hold."""

    @abstractmethod
    def file_bytes(self, network: nn.Module, folder: Path) -> int:
        """Writes the finished network into the folder; the size of the file in bytes."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs in addition to the network."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Goes on from there, after `start` on a network like the first."""


@dataclass
class Dense(Treatment):
    """Nothing but training; weights as they are, or rounded to bfloat16."""

    dtype: Literal["float32", "bfloat16"] = "float32"

    def finish(self) -> None:
        round_(self._network, everything=self.dtype == "bfloat16")

    def file_bytes(self, network: nn.Module, folder: Path) -> int:
        return write(folder / "dense.bin", network)


@dataclass
class Published(Dense):
    """No training: the weights as their authors published them."""

    def finish(self) -> None:
        pass


def _is_of(kind: Any, given: Any) -> bool:
    """Whether a setting is of its kind, without conversion; kinds not in `KINDS` are open."""
    if get_origin(kind) is Literal:
        return given in get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is_of(each, given) for each in get_args(kind))
    return kind not in KINDS or type(given) in KINDS[kind][1]


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    parts = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    return " or ".join(KINDS[part][0] for part in parts)


def weights_of(network: nn.Module) -> dict[str, Weight]:
    """Weights of two dimensions or more, by name: what treatments are about."""
    return {
        f"{prefix}.{name}".lstrip("."): (module, name)
        for prefix, module in network.named_modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim >= 2
    }


@torch.no_grad()
def round_(network: nn.Module, *, everything: bool = False) -> None:
    """Rounds parameters of one dimension and buffers to bfloat16, or all parameters as well."""
    every = set(network.parameters()) if everything else set()
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor in every or (tensor.is_floating_point() and tensor.ndim < 2):
            tensor.copy_(tensor.bfloat16())
