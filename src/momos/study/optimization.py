"""How a task is optimized: values, and the optimizer and learning rates they stand for."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """AdamW or SGD with momentum; the rate rises linearly, then falls on a cosine to zero.

    Weight decay is on parameters of two dimensions or more: biases, norms and learned scales
    have none.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float
    weight_decay: float = 1e-2
    momentum: float = 0.9
    beta2: float = 0.999
    batch_size: int
    epochs: int
    warmup: float = 0.0  # share of the steps
    clip: float | None = None  # norm of the gradient

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be at least 0 and below 1, got {self.warmup}")

    def optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        groups = [
            {"params": [weight for weight in trained if weight.ndim >= 2]},
            {
                "params": [weight for weight in trained if weight.ndim < 2],
                "weight_decay": 0.0,
            },
        ]
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                groups,
                lr=self.learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                nesterov=True,
            )
        return torch.optim.AdamW(
            groups,
            lr=self.learning_rate,
            betas=(self.momentum, self.beta2),
            weight_decay=self.weight_decay,
            fused=True,
        )

    def rate_at(self, step: int, total_steps: int) -> float:
        """Share of the learning rate at a step, counted from 0."""
        rising = round(self.warmup * total_steps)
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(1, total_steps - rising)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True, kw_only=True)
class Steady(Optimization):
    """The rate stays where the warm-up leaves it: what is understood late is learned at it."""

    def rate_at(self, step: int, total_steps: int) -> float:
        rising = round(self.warmup * total_steps)
        return min(1.0, (step + 1) / rising) if rising else 1.0
