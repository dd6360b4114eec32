"""One tensor as the instruments see it, each view worked out once and only if it is asked for."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from momos.complexity import shuffled, ternary


class View:
    """A tensor, its name, and what is derived from it."""

    def __init__(self, name: str, weight: Tensor) -> None:
        if weight.is_meta:
            raise ValueError(f"weights must hold values, got a meta tensor {name!r}")
        weight = weight.resolve_neg()
        low, high = weight.aminmax()
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise ValueError(
                f"weights must be finite, got NaN or infinite values in tensor {name!r}"
            )
        self.name = name
        self.weight = weight

    @cached_property
    def signs(self) -> np.ndarray:
        """0, 1, 2 for negative, zero, positive weights, row-major."""
        return ternary(self.weight).cpu().contiguous().view(-1).numpy()

    @cached_property
    def positive(self) -> np.ndarray:
        """1 for positive weights and 0 for others, as bytes."""
        return (self.signs == 2).view(np.uint8)

    def shuffled(self, seed: int) -> "Shuffled":
        return Shuffled(self, seed)


class Shuffled(View):
    """The same values in places that a seed gives. Each view is shuffled when it is asked for."""

    def __init__(self, of: View, seed: int) -> None:
        self.name = of.name
        self.of = of
        self.seed = seed

    @cached_property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        generator = torch.Generator().manual_seed(self.seed)
        return shuffled(self.of.weight, generator)

    @cached_property
    def signs(self) -> np.ndarray:
        signs = self.of.signs.copy()
        np.random.default_rng(self.seed).shuffle(signs)
        return signs
