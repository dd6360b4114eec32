"""Pruning: the smallest weights become zeros."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.nn.utils import prune

from momos.study.treatments.packing import write
from momos.study.treatments.treatment import Treatment, round_, weights_of


@dataclass
class Prune(Treatment):
    """Magnitude pruning over the whole network.

    Gradually, on the cubic schedule of Zhu and Gupta (2017): sparsity grows in about 100 steps
    between those shares of the training. Or in one shot at `begin`; what follows is fine-tuning.
    """

    sparsity: float = 0.9
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    begin: float = 0.1
    end: float = 0.7
    schedule: Literal["gradual", "one-shot"] = "gradual"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity must be above 0 and below 1, got {self.sparsity}")
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

    def start(self, network: nn.Module, steps: int, *, epochs: float, seed: int) -> None:
        super().start(network, steps, epochs=epochs, seed=seed)
        self._weights = list(weights_of(network).values())
        self._num_weights = sum(getattr(*weight).numel() for weight in self._weights)
        self._pruned = self._step = 0
        self._first, self._last = int(self.begin * steps), int(self.end * steps)
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
        round_(self._network, everything=self.dtype == "bfloat16")

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
