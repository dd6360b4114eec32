"""Parametrizations: what a module sees in place of a weight whose motifs are learned."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from momos.blocks import Placement
from momos.learning.averaging import refresh_
from momos.learning.bank import Bank
from momos.vq.gather import straight_through


class Tile(nn.Module):
    """One parameter as part of the bank; the same for every module that shares the parameter.

    The bank is not registered here: it belongs to the root of the network alone.
    """

    bank: Bank
    holder: ParametrizationList
    names: tuple[str, ...]  # all that the parameter has in the network

    def __init__(self, bank: Bank, place: Placement) -> None:
        super().__init__()
        self.place = place
        self.names = (place.name,)
        self.__dict__["bank"] = bank
        self.__dict__["holder"] = None

    def installed(self, holder: ParametrizationList) -> None:
        """Told which list of parametrizations the tile is in (one of them, if tied)."""
        self.__dict__["holder"] = holder

    def update_(self, stored: Tensor) -> None:
        """Takes over the motifs that the bank has `stored`, where the tile keeps a copy."""

    def extra_repr(self) -> str:
        return repr(self.place.name)


class MotifTile(Tile):
    """The weight is motifs[indices]: the gradient of a motif is the sum over its blocks."""

    def forward(self) -> Tensor:
        if not torch.compiler.is_compiling():
            refresh_(self.bank)
        return self.bank.weight(self.place)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Nothing of the weight is kept beside the bank."""
        return ()


class WeightTile(Tile):
    """A latent weight is trained; the forward pass sees the mosaic (Bengio et al. 2013).

    `value` is the mosaic of the latent weight, made anew by `update_` only.
    """

    value: Tensor

    def __init__(self, bank: Bank, place: Placement) -> None:
        super().__init__(bank, place)
        self.register_buffer("value", bank.weight(place).detach(), persistent=False)

    @property
    def latent(self) -> nn.Parameter:
        """The weight that is trained."""
        return self.holder.original  # type: ignore[return-value]

    @torch.no_grad()
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WeightTile":
        super()._apply(fn, recurse)
        # A part of the network that was rounded and came back is what the bank says again.
        place, motifs = self.place, self.bank.motifs
        if (self.value.dtype, self.value.device) == (place.dtype, motifs.device):
            self.update_(self.bank.stored())
        return self

    @torch.no_grad()
    def update_(self, stored: Tensor) -> None:
        """Takes over the motifs that the bank has `stored`."""
        self.bank.write_(self.value, self.place, stored)

    def forward(self, latent: Tensor) -> Tensor:
        refresh_(self.bank)
        if not self.bank.learning:
            return latent
        return straight_through(latent, self.value)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight
