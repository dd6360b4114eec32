"""A step of `Reassign` as one operator whose state is on the device, for CUDA graphs and torch.compile.

The step counts in a tensor, and what is due by that count is computed from it, so a replayed graph
needs no Python. What the operator writes is declared; torch.compile may hand it copies, which are
brought in line with the tensors of the bank before and after.
"""

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from momos.learning.following import Following, runs_on, supported

if TYPE_CHECKING:
    from momos.learning.schedule import Reassign

_SCHEDULES: "WeakValueDictionary[int, Reassign]" = WeakValueDictionary()
_LIBRARY = torch.library.Library("momos", "FRAGMENT")  # what it registers lives as long
_LIBRARY.define("reassign(Tensor(a!)[] written, Tensor[] latents, int schedule) -> ()")


class Capturable:
    """The clock of a schedule, and its step as one operator."""

    clock: Int64[Tensor, ""]

    def __init__(self, schedule: "Reassign") -> None:
        bank = schedule.bank
        if schedule.every != 1:
            raise ValueError(
                f"every must be 1 for capturable, whose steps all do the same work, got "
                f"{schedule.every}"
            )
        if schedule.dense > 0:
            raise ValueError(
                f"dense must be 0 for capturable, since k-means cannot be captured, got "
                f"{schedule.dense}"
            )
        if runs_on(bank.motifs.device) and not supported(bank):
            raise ValueError(
                "capturable must have kernels for the bank: not with selection='whole', an "
                "importance for each weight, float64 weights, or a rate_weight without scales"
            )
        self.bank = bank
        self.clock = torch.zeros((), dtype=torch.int64, device=bank.motifs.device)
        self.following: Following | None = None
        self.belong_to(schedule)

    def belong_to(self, schedule: "Reassign") -> None:
        """The operator finds the schedule by this number."""
        self.number = id(schedule)
        _SCHEDULES[self.number] = schedule

    def written(self) -> list[Tensor]:
        """Every tensor that a step writes."""
        bank = self.bank
        own = [bank.motifs, bank.indices, bank.counts, bank.step, bank.rate_weight]
        return [*own, self.clock, *(tile.value for tile in bank.tiles)]

    def latents(self) -> list[Tensor]:
        """Every tensor that a step reads and others write."""
        return [tile.latent for tile in self.bank.tiles]

    def step(self) -> None:
        """One step; traced as one operator."""
        torch.ops.momos.reassign(self.written(), self.latents(), self.number)

    def prepared(self) -> Following | None:
        """The tables of the bank, made before a graph is captured."""
        if not runs_on(self.bank.motifs.device):
            return None
        self.following = Following.of(self.bank, self.following)
        return self.following

    def rate_and_phase(
        self, schedule: "Reassign"
    ) -> tuple[Float64[Tensor, ""], Bool[Tensor, ""]]:
        """λ and whether only motifs move at the present count, without waiting for it."""
        part = self.clock.double() / schedule.total_steps
        grown = torch.ones_like(part)
        if schedule.ramp > 0:
            grown = (part / schedule.ramp).clamp(max=1.0)
        return schedule.bank.config.rate_weight * grown, part > 1 - schedule.fixed


def _reassign(written: list[Tensor], latents: list[Tensor], number: int) -> None:
    schedule = _SCHEDULES[number]
    captured = schedule.captured
    assert captured is not None
    own = captured.written()
    for mine, given in (*zip(own, written, strict=True), *_pairs(captured, latents)):
        if given.data_ptr() != mine.data_ptr():
            mine.detach().copy_(given)
    captured.clock.add_(1)
    schedule.advance_()
    for mine, given in zip(own, written, strict=True):
        if given.data_ptr() != mine.data_ptr():
            given.copy_(mine)


def _pairs(captured: Capturable, latents: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(captured.latents(), latents, strict=True))


def _reassign_fake(written: list[Tensor], latents: list[Tensor], number: int) -> None:
    """Nothing is made."""


_LIBRARY.impl("reassign", _reassign, "CompositeExplicitAutograd")
torch.library.register_fake("momos::reassign", _reassign_fake, lib=_LIBRARY)
