"""What learned motifs are compared with, on equal terms.

Every treatment meets the same network, the same batches and the same optimizer. All keep
parameters of one dimension and buffers, and round them to bfloat16 in the end, so that files
differ by the treatment alone.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrize import register_parametrization

from momos.study.quantization import FakeQuantizer, settle_
from momos.study.sampling import Sampled as Sampled
from momos.study.sizes import Levels, write

Weight = tuple[nn.Module, str]


class Treatment(Protocol):
    """A way to train a network. `start` comes before the optimizer is made.

    `finish` may be called at any time from `settled` on.
    """

    @property
    def settled(self) -> float:
        """The share of all steps from which on a network is all that the settings ask for.

        No network of an earlier step is chosen, and training does not stop earlier.
        """
        ...

    def start(
        self, network: nn.Module, total_steps: int, *, epochs: float, seed: int
    ) -> None:
        """Prepares the network for so many steps, in so many epochs of equal length."""

    def after_step(self) -> None:
        """To be called after each step of the optimizer."""

    def finish(self) -> None:
        """Leaves an ordinary network, which is what the file will hold."""

    def file_bytes(self, network: nn.Module, folder: Path) -> int:
        """Writes the finished network into the folder; the size of the file in bytes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the network."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there, after `start` on a network like the first."""


def weights_of(network: nn.Module) -> dict[str, Weight]:
    """Weights of two dimensions or more, by name: what treatments are about."""
    return {
        f"{prefix}.{name}".lstrip("."): (module, name)
        for prefix, module in network.named_modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim >= 2
    }


def round_leftovers_(network: nn.Module) -> None:
    """Rounds parameters of one dimension and buffers to bfloat16, in place."""
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point() and tensor.ndim < 2:
                tensor.copy_(tensor.bfloat16())


@dataclass
class Dense:
    """Nothing but training; weights as they are, or rounded to bfloat16."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    _network: nn.Module = field(init=False, repr=False)

    @property
    def settled(self) -> float:
        return 0.0

    def start(
        self, network: nn.Module, total_steps: int, *, epochs: float, seed: int
    ) -> None:
        self._network = network

    def after_step(self) -> None:
        pass

    def finish(self) -> None:
        round_leftovers_(self._network)
        if self.dtype == "bfloat16":
            with torch.no_grad():
                for weight in self._network.parameters():
                    weight.copy_(weight.bfloat16())

    def file_bytes(self, network: nn.Module, folder: Path) -> int:
        return write(folder / "dense.bin", network)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@dataclass
class Published(Dense):
    """No training: the weights as their authors published them."""

    def finish(self) -> None:
        pass


@dataclass
class QuantizeAware:
    """Quantization-aware training of weights: symmetric levels, straight-through.

    `bits` give 2^bits − 1 levels, zero among them. A scale per output channel or per tensor is
    the greatest weight's, or learned as in LSQ (Esser et al. 2020) from the scale of least
    squared error. At 2 bits the greatest weight's did better from scratch: digits, 10 epochs,
    3 seeds, 97.0 % in 27.6 kB against 96.6 % in 44 kB; Fashion-MNIST, 1 epoch, 85.1 % in 52 kB
    against 82.5 % in 80 kB. torchao was tried: its intx fake quantizers train linear layers and embeddings
    only, which leaves out ResNet-20, and its 2 bits are the levels −2..1.
    """

    bits: int = 4
    scale: Literal["max", "learned"] = "max"
    per: Literal["channel", "tensor"] = "channel"
    _network: nn.Module = field(init=False, repr=False)
    levels: dict[str, Levels] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be 2 to 8, got {self.bits}")

    @property
    def settled(self) -> float:
        return 0.0

    def start(
        self, network: nn.Module, total_steps: int, *, epochs: float, seed: int
    ) -> None:
        self._network = network
        for module, name in weights_of(network).values():
            weight = getattr(module, name).detach()
            rows = len(weight) if self.per == "channel" else 1
            quantizer = FakeQuantizer(
                weight, rows, self.bits, learned=self.scale == "learned"
            )
            register_parametrization(module, name, quantizer)

    def after_step(self) -> None:
        pass

    def finish(self) -> None:
        self.levels = settle_(self._network)
        round_leftovers_(self._network)

    def file_bytes(self, network: nn.Module, folder: Path) -> int:
        return write(folder / "quantized.bin", network, self.levels)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@dataclass
class Prune:
    """Magnitude pruning over the whole network.

    Gradually, on the cubic schedule of Zhu and Gupta (2017): sparsity grows in about 100 steps
    between those shares of the training. Or in one shot at `begin`; what follows is fine-tuning.
    """

    sparsity: float = 0.9
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    begin: float = 0.1
    end: float = 0.7
    schedule: Literal["gradual", "one-shot"] = "gradual"
    _network: nn.Module = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity must be above 0 and below 1, got {self.sparsity}")
        if self.schedule not in ("gradual", "one-shot"):
            raise ValueError(f"schedule must be gradual or one-shot, got {self.schedule!r}")
        last = self.begin if self.schedule == "one-shot" else self.end
        if not 0 <= self.begin <= last <= 1:
            raise ValueError(
                f"begin and end must be from 0 to 1 in this order, got {self.begin} and "
                f"{self.end}"
            )

    @property
    def settled(self) -> float:
        """Before its last pruning a network is too dense."""
        return self.begin if self.schedule == "one-shot" else self.end

    def start(
        self, network: nn.Module, total_steps: int, *, epochs: float, seed: int
    ) -> None:
        self._network = network
        self._weights = list(weights_of(network).values())
        self._num_weights = sum(getattr(*weight).numel() for weight in self._weights)
        self._pruned = self._step = 0
        self._first, self._last = int(self.begin * total_steps), int(self.end * total_steps)
        self._every = max(1, (self._last - self._first) // 100)
        for module, name in self._weights:
            prune.identity(module, name)
            mask = f"{name}_mask"
            setattr(module, mask, getattr(module, mask).contiguous())
        self._prune_to(self._wanted())

    def after_step(self) -> None:
        self._step += 1
        self._prune_to(self._wanted())

    def finish(self) -> None:
        self._prune_to(self.sparsity)
        for module, name in self._weights:
            prune.remove(module, name)
        if self.dtype == "bfloat16":
            with torch.no_grad():
                for weight in self._network.parameters():
                    weight.copy_(weight.bfloat16())
        round_leftovers_(self._network)

    def file_bytes(self, network: nn.Module, folder: Path) -> int:
        return write(folder / "pruned.bin", network)

    def state_dict(self) -> dict[str, Any]:
        return {"pruned": self._pruned, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._pruned, self._step = state["pruned"], state["step"]

    def _wanted(self) -> float:
        """The sparsity that this step asks for, 0 where it is none to prune at."""
        since = self._step - self._first
        if self.schedule == "one-shot":
            return self.sparsity if since >= 0 else 0.0
        if since <= 0 or self._step > self._last or since % self._every:
            return 0.0
        return self.sparsity * (1 - (1 - since / (self._last - self._first)) ** 3)

    def _prune_to(self, sparsity: float) -> None:
        more = round(sparsity * self._num_weights) - self._pruned
        if more > 0:  # torch's pruning takes views, which weights in channels-last have not
            prune.global_unstructured(
                self._weights,
                pruning_method=prune.L1Unstructured,
                importance_scores={w: getattr(*w).contiguous() for w in self._weights},
                amount=more,
            )
            self._pruned += more
