"""Training towards a file of a given size: `Shrink` chooses the rate weight by the file itself."""

import copy
import warnings
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import nn

from momos.config import check_whole
from momos.files.contents import Contents
from momos.files.writer import write
from momos.learning import Reassign, Reassignment, freeze_
from momos.learning.parametrize import bank_of
from momos.learning.replicas import by_first
from momos.shards import without_replicas

LOOKS = 50  # how often the size is measured during training
GAIN = 0.7  # power of the ratio of sizes by which each look changes the rate weight
MOST_CHANGE = 2.0  # of the rate weight at one look
# The plan of sizes is what fixed rate weights gave on LeNet-300-100, but done by `LANDED`: small
# learning rates then leave a rate weight little time to act.
SURPLUS, BEND, LANDED = 0.9, 2.5, 0.9
AIM = 0.985  # share of the target that the plan ends with
WIDER = 1.01  # first factor of the threshold in the end; each further is the square
TRIALS = 6  # thresholds tried after that


class Shrink(Reassign):
    """A `Reassign` that ends with a file of `target_bytes`, whatever the rate weight.

    For a model parametrized with `selection="whole"`. Add `penalty()` to the loss of each step,
    and call `step` after the optimizer's. At `looks` steps the file is written to a temporary
    place and measured (`num_bytes`), and the rate weight, which starts as that of the config,
    grows if the file is larger than planned for this part of the training, and shrinks if it is
    smaller. If it is still larger than `target_bytes` at the last step, the threshold up to which
    weights become 0 grows until it is not. A file that is smaller is left alone: many latent
    weights lie close to the threshold, where 0 is too small and 1 too large, and to move all of
    them at once ruins a network (LeNet-300-100: from 98.2 to 93.8 %).

    The learning rate should fall towards the end, as on a cosine: the plan supposes so.

    Raises:
        ValueError: if motifs of `model` are not the whole numbers, the rate weight of the config
            is 0, or `target_bytes` is less than the size of the file with all blocks zero. That
            also depends on tensors that stay dense, so `step` looks at it again at the end, and
            leaves the network as it was trained.

    Example:
        >>> model = nn.Linear(64, 256)
        >>> config = momos.MosaicConfig.learned(selection="whole")
        >>> _ = momos.parametrize_(model, config, learn="weights")
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        >>> schedule = momos.Shrink(model, total_steps=20, target_bytes=5000)
        >>> for step in range(20):
        ...     loss = model(torch.randn(8, 64)).square().mean() + schedule.penalty()
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        ...     _ = schedule.step()
        >>> _ = momos.freeze_(model)
        >>> momos.save(model, "net.momos").num_bytes <= 5000
        True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        total_steps: int,
        target_bytes: int,
        every: int = 1,
        dense: float = 0.0,
        ramp: float = 0.2,
        looks: int = LOOKS,
    ) -> None:
        check_whole("target_bytes", target_bytes, least=1)
        check_whole("looks", looks, least=1)
        if not bank_of(model).whole:
            raise ValueError(
                "selection must be 'whole' for a target in bytes, got "
                f"{bank_of(model).config.selection!r}"
            )
        if not bank_of(model).config.rate_weight:
            raise ValueError("rate_weight must be above 0 for a target in bytes, got 0")
        super().__init__(
            model, total_steps=total_steps, every=every, dense=dense, ramp=ramp, fixed=0.0
        )
        self.model, self.target_bytes, self.looks = (
            without_replicas(model),
            target_bytes,
            looks,
        )
        self.factor = 1.0  # of the rate weight of the config
        self.num_bytes: int | None = None  # of the file when last measured
        self._check_target()

    PLAN = (*Reassign.PLAN, "target_bytes", "looks", "factor")

    @property
    def rate_weight(self) -> float:
        return super().rate_weight * self.factor

    @torch.no_grad()
    def step(self) -> Reassignment | None:
        done = super().step()
        if done is None:
            return done
        if self.steps >= self.total_steps:
            return self._meet(done)
        part = self.steps / self.total_steps
        period = max(1, self.total_steps // self.looks)
        if part > self.ramp and self.steps // period > (self.steps - self.every) // period:
            self.num_bytes = self._measured()
            ratio = self.num_bytes / self.planned(part)
            self.factor *= min(MOST_CHANGE, max(1 / MOST_CHANGE, ratio**GAIN))
        return done

    def planned(self, part: float) -> float:
        """Size that the file should have after a part of the training."""
        begun = min(self.ramp, LANDED)
        left = min(1.0, max(0.0, LANDED - part) / max(LANDED - begun, 1e-9))
        return AIM * self.target_bytes * (1 + SURPLUS * left**BEND)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"factor": self.factor, "num_bytes": self.num_bytes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.factor, self.num_bytes = state["factor"], state["num_bytes"]

    def _meet(self, done: Reassignment) -> Reassignment:
        """Raises the threshold, as little as it takes, until the file is small enough."""
        self.num_bytes = self._measured()
        if self.num_bytes <= self.target_bytes:
            return done
        self._check_target()
        low = high = float(self.bank.threshold)
        factor = WIDER
        while self.num_bytes > self.target_bytes:  # in the end all blocks are zero
            low, high, factor = high, high * factor, factor**2
            done = self._cut(high, done)
        for _ in range(TRIALS):
            middle = (low + high) / 2
            done = self._cut(middle, done)
            if self.num_bytes > self.target_bytes:
                low = middle
            else:
                high = middle
        return done if self.num_bytes <= self.target_bytes else self._cut(high, done)

    def _measured(self) -> int:
        """Size of the file; only the first of several replicas writes it."""
        return by_first(self.bank, lambda: file_bytes(self.model))

    def _check_target(self) -> None:
        least = file_bytes(self.model, zero=True)
        if self.target_bytes < least:
            raise ValueError(
                f"target_bytes must be at least {least}, the size of the file with all blocks "
                f"zero, got {self.target_bytes}"
            )

    def _cut(self, threshold: float, before: Reassignment) -> Reassignment:
        bank = self.bank
        bank.threshold.fill_(threshold)
        changed, used = bank.round_latent_(self.rate_weight)
        self.num_bytes = self._measured()
        return Reassignment(before.changed + changed, used, before.rate_weight)


def file_bytes(model: nn.Module, *, zero: bool = False) -> int:
    """Size of the file of a parametrized model if it were frozen now; or with all blocks zero."""
    other = copy.deepcopy(model)
    bank = bank_of(other)
    if zero:
        bank.indices.zero_()
        bank.start_(learning=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that indices never followed: this is only a copy
        freeze_(other)
    with NamedTemporaryFile(suffix=".momos") as file, torch.device("cpu"):
        write(file, Contents.of_model(other))  # type: ignore[arg-type]
        return file.seek(0, 2)
