"""Weights that other callbacks average while a network learns its motifs.

Lightning's `WeightAveraging` swaps averages into the module while it is validated and copies them
there when training ends; `StochasticWeightAveraging` does the latter. Latent weights then no longer
belong to the bank, which `Held` notices whoever has written them.
"""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks

from momos.learning.averaging import settle_, trace_of
from momos.learning.bank import Bank

# Lightning before 2.6 has no WeightAveraging.
SWAPPING: tuple[type[Callback], ...] = tuple(
    kind for kind in (getattr(callbacks, "WeightAveraging", None),) if kind is not None
)
AVERAGING = (*SWAPPING, callbacks.StochasticWeightAveraging)


class Held:
    """A bank as it is now: whether others wrote into its network since, and the way back."""

    @torch.no_grad()
    def __init__(self, bank: Bank) -> None:
        self.bank, self.learning = bank, bank.learning
        self.trace = trace_of(bank)
        self.buffers = {name: buffer.clone() for name, buffer in bank.named_buffers()}
        self.settled = False

    @torch.no_grad()
    def settle_(self) -> None:
        """Makes the network a mosaic again if others wrote into it."""
        bank = self.bank
        if not self.learning or not self._differs():
            return
        if bank.learn == "motifs":
            bank.origin = {name: self.buffers[name] for name in bank.constants()}
        settle_(bank)
        bank.origin = None
        self.settled = True

    @torch.no_grad()
    def restore_(self) -> None:
        """Undoes `settle_`, once others have put back what they took away."""
        if not self.settled:
            return
        for name, buffer in self.bank.named_buffers():
            buffer.copy_(self.buffers[name])
        self.bank.learning = self.learning
        self.bank.update_tiles_()

    def _differs(self) -> bool:
        if self.bank.learn == "weights":
            return not torch.equal(trace_of(self.bank), self.trace)
        constants = self.bank.constants().items()
        return any(not torch.equal(value, self.buffers[name]) for name, value in constants)


def come_after_averaging(
    callback: Callback, trainer: Trainer, module: LightningModule
) -> None:
    """Lets `callback`, which has changed the module, run after those that average its weights.

    Those that were set up before have copied the module as it was, so they do it once more.
    """
    order: list[Any] = list(trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]
    place = order.index(callback)
    last = max(
        (i for i, other in enumerate(order) if isinstance(other, AVERAGING)), default=-1
    )
    for other in order[:place]:
        if isinstance(other, AVERAGING):
            other.setup(trainer, module, "fit")
    if last > place:
        order.insert(last, order.pop(place))
        # A new list: Lightning is going through the old one.
        trainer.callbacks = order  # pyright: ignore[reportAttributeAccessIssue]
