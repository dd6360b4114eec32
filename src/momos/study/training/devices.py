"""The device that a run trains on: names that users give, and what each kind is best run with."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from momos.study.cell import Cell

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
# Of cells on CUDA, unless they are given. Not compiled: what that costs or saves is not measured.
FAST: dict[str, Any] = {"precision": "bfloat16", "channels_last": True}
SHARE = 4  # data take at most this part of a device's free memory, or stay on the host


@dataclass(frozen=True)
class Compute:
    """Where runs of one command are trained: a device as torch names it, and its kind.

    It may be one of several `devices` of its kind that train together.
    """

    name: str
    devices: int = 1

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    @property
    def device(self) -> torch.device:
        return torch.device(self.name)

    @property
    def lightning(self) -> dict[str, Any]:
        """What a Trainer needs to know."""
        if self.devices > 1:
            return {
                "accelerator": "cpu" if self.kind == CPU else "gpu",
                "devices": self.devices,
                "use_distributed_sampler": False,  # a rank takes its rows of every batch
                "strategy": DDPStrategy(cluster_environment=LightningEnvironment()),
            }
        if self.kind == CPU:
            return {"accelerator": "cpu", "devices": 1}
        return {"accelerator": "gpu", "devices": [self.device.index or 0]}

    def of_rank(self, rank: int) -> "Compute":
        """The device of one of the processes that train together."""
        if self.devices == 1:
            return self
        return self if self.kind == CPU else replace(self, name=f"{self.kind}:{rank}")

    @property
    def seeded(self) -> list[int]:
        """The devices whose random state a run changes."""
        return [] if self.kind == CPU else [self.device.index or 0]

    def describe(self) -> str:
        """Its name, and that of the hardware if it is not the CPU."""
        if self.kind == CPU or not torch.cuda.is_available():
            return self.name
        return f"{self.name} ({torch.cuda.get_device_name(self.device)})"

    def free_memory(self) -> int:
        """Bytes."""
        return torch.cuda.mem_get_info(self.device)[0]


HOST = Compute(CPU)


def compute_of(name: str, *, here: bool = True) -> Compute:
    """The device `name`: cpu, cuda, cuda:N, or auto, which is cuda where there is one.

    Raises:
        ValueError: if it is none of these, or not available; the latter only if runs are `here`.
    """
    if name == AUTO:
        return Compute(CUDA if here and torch.cuda.is_available() else CPU)
    kind, colon, number = name.partition(":")
    if kind not in (CPU, CUDA) or (colon and (kind == CPU or not number.isdecimal())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if kind == CUDA and here:
        _check_available(name, int(number or 0))
    return Compute(name)


def compute_for(cell: Cell, device: str) -> Compute:
    """The device of a cell: the one named, or the first of its kind; or the first few.

    Raises:
        ValueError: if it is of another kind, not available, or one by its number for a cell that
            takes several.
    """
    compute = compute_of(device or cell.device)
    if compute.kind != cell.device:
        raise ValueError(
            f"device must be of the cell's kind, {cell.device}, got {device!r}"
        )
    if cell.devices > 1:
        check_several(compute.name, cell.devices)
    return replace(compute, devices=cell.devices) if cell.devices > 1 else compute


def check_several(name: str, devices: int) -> None:
    """Refuses a device with a number, or more of them than there are, for cells on several.

    Raises:
        ValueError: names what is wrong.
    """
    kind, colon, _ = name.partition(":")
    if colon:
        raise ValueError(f"device must be {kind} for {devices} devices, got {name!r}")
    if kind == CUDA:
        _check_available(f"{name}:{devices - 1}", devices - 1)


def _check_available(name: str, number: int) -> None:
    if not torch.cuda.is_available():
        raise ValueError(
            f"device must be available, got {name!r}: torch sees no CUDA device"
        )
    if number >= (count := torch.cuda.device_count()):
        devices = "device" if count == 1 else "devices"
        raise ValueError(
            f"device must be available, got {name!r}: torch sees {count} CUDA {devices}"
        )


def options_for(kind: str) -> dict[str, Any]:
    """The options of cells on a kind of device, those on the CPU being the defaults."""
    return {} if kind == CPU else {"device": kind} | FAST


def fits(tensors: list[Tensor], compute: Compute) -> bool:
    """Whether data may live on a device."""
    return SHARE * sum(tensor.nbytes for tensor in tensors) <= compute.free_memory()


def device_count() -> int:
    """CUDA devices that torch sees here."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
