"""What a run is, once it is over: accuracy and lengths at the end of every epoch."""

from dataclasses import dataclass

from torch import nn

import momos
from momos.study.recipes import Recipe, Treatment


@dataclass(frozen=True)
class Lengths:
    """Bits that the weights take, and how many motifs there are and are used (none if dense)."""

    num_weights: int
    dense: int
    bound: int
    entropy: float
    num_motifs: int | None = None
    motifs_used: int | None = None

    @classmethod
    def of(cls, network: nn.Module, projection: momos.Projection | None) -> "Lengths":
        if projection is None:
            num_weights = sum(weight.numel() for weight in network.parameters())
            dense = 32 * num_weights
            return cls(num_weights, dense, bound=dense, entropy=float(dense))
        mosaic = projection.mosaic
        length = momos.description_length(mosaic)
        return cls(
            length.num_weights,
            length.dense,
            length.bound,
            length.entropy,
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
