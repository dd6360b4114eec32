"""What a run is, once it is over: accuracy and lengths at the end of every epoch."""

from dataclasses import dataclass

import torch
from torch import nn

import momos
from momos.study.recipes.demo import Recipe, Treatment


@dataclass(frozen=True)
class Lengths:
    """Bits that all parameters take, and how many motifs there are and are used (none if dense).

    `bound` and `entropy` are those of the mosaic, and with them the parameters that are no
    blocks, in the dtype that they are stored in.
    """

    num_weights: int
    dense: int
    bound: int
    entropy: float
    num_motifs: int | None = None
    motifs_used: int | None = None

    @classmethod
    def of(cls, num_weights: int, mosaic: momos.Mosaic | None) -> "Lengths":
        """Those of a network of `num_weights` float32 parameters, as `mosaic` or dense."""
        dense = 32 * num_weights
        if mosaic is None:
            return cls(num_weights, dense, bound=dense, entropy=float(dense))
        length = momos.description_length(mosaic)
        dtype = mosaic.config.dense_dtype if mosaic.config else "float32"
        bits = torch.finfo(getattr(torch, dtype)).bits
        others = bits * (num_weights - length.num_weights)
        return cls(
            num_weights,
            dense,
            length.bound + others,
            length.entropy + others,
            mosaic.num_motifs,
            int((mosaic.usage() > 0).sum()),
        )

    @property
    def factor(self) -> float:
        """How many times shorter than dense the bound is."""
        return self.dense / self.bound


@dataclass(frozen=True)
class Epoch:
    """Where a run stood at the end of an epoch; accuracy on the test split, from 0 to 1."""

    epoch: int
    train_loss: float
    accuracy: float
    lengths: Lengths


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its last epoch is its result, none is selected.

    `file_bytes` is the size of the file that the mosaic was saved as, if it was.
    """

    recipe: Recipe
    treatment: Treatment
    data: str
    seed: int
    seconds: float
    epochs: tuple[Epoch, ...]
    network: nn.Module
    file_bytes: int | None = None

    @property
    def accuracy(self) -> float:
        return self.epochs[-1].accuracy

    @property
    def lengths(self) -> Lengths:
        return self.epochs[-1].lengths

    @property
    def file_factor(self) -> float | None:
        """How many times smaller than dense the whole file is, if there is one."""
        return self.lengths.dense / (8 * self.file_bytes) if self.file_bytes else None
