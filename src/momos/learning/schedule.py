"""Schedule of updating motifs and indices from the weights: `Reassign`."""

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from momos.config import check_whole
from momos.learning.capturing import Capturable
from momos.learning.fitting import scales_of
from momos.learning.following import CHECK_EVERY, Following
from momos.learning.parametrize import bank_of
from momos.learning.rate import code_length_of
from momos.learning.replicas import by_first
from momos.learning.states import refresh_
from momos.projection import KeepsGenerator


@dataclass(frozen=True)
class Reassignment:
    """Result of one re-assignment: how many blocks changed their motif, how many motifs are used,
    and the rate weight λ of code lengths.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> config = momos.MosaicConfig.learned(num_motifs=16)
        >>> bank = momos.parametrize_(model, config, learn="weights")
        >>> reassignment = momos.Reassign(model, total_steps=10).step()
        >>> reassignment.motifs_used <= 16
        True
    """

    changed: int
    motifs_used: int
    rate_weight: float


class _Later(Reassignment):
    """The same, of counts that are still being made on a device: they are waited for when read."""

    def __init__(self, counts: Int[Tensor, "2"], rate_weight: float) -> None:
        vars(self).update(counts=counts, rate_weight=rate_weight)

    def __getattr__(self, name: str) -> int:
        if name not in ("changed", "motifs_used"):
            raise AttributeError(name)
        changed, used = vars(self)["counts"].tolist()
        vars(self).update(changed=changed, motifs_used=used)
        return vars(self)[name]


class Reassign(KeepsGenerator):
    """Updates motifs and indices from the weights of a model parametrized with `learn="weights"`.

    Call `step` after the optimizer's, every step. The forward pass changes only here, so an
    optimizer that evaluates the loss several times a step (SAM, L-BFGS with a line search) sees
    a constant. Over `total_steps`:

    - during the first `dense` part the network is trained dense; k-means then starts the motifs;
    - at every `every`-th step blocks are re-assigned and motifs move to the mean of their blocks.
      The rate weight grows linearly to that of the config, which it reaches at `ramp`. While it
      is 0, unused motifs move to the blocks farthest from their own; with a rate weight, a motif
      less is a gain;
    - during the last `fixed` part indices stay, and only motifs move.

    With `selection="whole"` motifs stay as they are and indices follow to the end, whatever
    `fixed`; add `penalty()` to the loss, so that training makes the file smaller. Scales are
    parameters then: a warning says so, after 64 steps or at the last, if the optimizer has them not.

    On CUDA a step does not wait for the device. Whether weights are finite is looked at every 64
    steps and at the last; until then a step whose weights are not leaves motifs and indices as
    they are. While unused motifs are moved, with an importance for each weight, and with
    `selection="whole"`, each step waits.

    Under `DistributedDataParallel` each rank calls `step`; the plan is that of the first one.

    With `capturable`, `step` is one operator that torch.compile takes as it is and a CUDA graph can
    capture (call it a few times before, as all of the training step): its count is on the device, and
    it returns None. `every` is 1 then and `dense` 0, unused motifs stay where they are, and weights
    that are not finite are refused by `check`, which waits for the device.

    `state_dict` belongs in the checkpoint, with the model's and the optimizer's: a resumed run is
    then, on the CPU, the same bit for bit.

    Raises:
        ValueError: if a part is out of order, or `model` was not parametrized with `learn="weights"`.

    Example:
        >>> model = nn.Linear(64, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> config = momos.MosaicConfig.learned(rate_weight=0.5)
        >>> bank = momos.parametrize_(model, config, learn="weights")
        >>> schedule = momos.Reassign(model, total_steps=20)
        >>> for step in range(20):
        ...     model(torch.randn(16, 64)).square().mean().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     reassignment = schedule.step()
        >>> reassignment.motifs_used <= config.num_motifs
        True
        >>> mosaic = momos.freeze_(model)
    """

    PLAN: ClassVar[tuple[str, ...]] = (
        "total_steps", "every", "dense", "ramp", "fixed", "steps",
    )  # fmt: skip

    def __init__(
        self,
        model: nn.Module,
        *,
        total_steps: int,
        every: int = 1,
        dense: float = 0.0,
        ramp: float = 0.6,
        fixed: float = 0.15,
        capturable: bool = False,
    ) -> None:
        check_whole("total_steps", total_steps, least=1)
        check_parts(every=every, dense=dense, ramp=ramp, fixed=fixed)
        self.bank = bank_of(model)
        if self.bank.learn != "weights":
            raise ValueError(
                "weights must be learned for motifs to follow them, but parametrize_ was "
                "called with learn='motifs': their indices stay as they are"
            )
        self.total_steps, self.every = total_steps, every
        self.dense, self.ramp, self.fixed = dense, ramp, fixed
        self.captured: Capturable | None = Capturable(self) if capturable else None
        self.steps = 0
        self.generator = torch.Generator().manual_seed(self.bank.config.seed)
        self._following: Following | None = None
        self._versions: list[int] | None = self._written() if self.bank.whole else None
        self._agreed = False  # whether replicas follow one plan
        refresh_(self.bank)
        self.bank.copied = False
        if dense > 0:
            self.bank.start_(learning=False)

    @property
    def steps(self) -> int:
        """How many steps were counted; with `capturable` this waits for the device."""
        return self._steps if self.captured is None else int(self.captured.clock)

    @steps.setter
    def steps(self, count: int) -> None:
        self._steps = count
        if self.captured is not None:
            self.captured.clock.fill_(count)

    @property
    def rate_weight(self) -> float:
        """λ at the current step."""
        part = self.steps / self.total_steps
        if self.ramp <= self.dense:
            grown = 1.0
        else:
            grown = min(1.0, max(0.0, (part - self.dense) / (self.ramp - self.dense)))
        return self.bank.config.rate_weight * grown

    def penalty(self) -> Tensor:
        """The rate weight times `code_length`: what to add to the loss of one step.

        A constant 0 where motifs are not whole numbers (re-assignment weighs their code lengths),
        and as long as the rate weight is 0.
        """
        if not (self.bank.whole and self.bank.learning and self.rate_weight):
            return torch.zeros((), device=self.bank.motifs.device)
        return self.rate_weight * code_length_of(self.bank)

    def pull_(self, factor: float = 1.0) -> None:
        """Adds the gradient of `penalty` times `factor` to those of the loss, after its backward.

        For loops that cannot change the loss. No hook of a gradient runs, since the pull is the
        same in all processes.
        """
        penalty = self.penalty()
        if not penalty.requires_grad:
            return
        pulled = [tile.latent for tile in self.bank.tiles] + [self.bank.stretch]
        pulled = [tensor for tensor in pulled if tensor.requires_grad]
        for tensor, own in zip(
            pulled, torch.autograd.grad(penalty * factor, pulled), strict=True
        ):
            tensor.grad = own if tensor.grad is None else tensor.grad.add_(own)

    @torch.no_grad()
    def step(self) -> Reassignment | None:
        """Counts one step, and re-assigns if it is due.

        Raises:
            ValueError: if a weight is not finite (names the parameter; on CUDA up to 64 steps
                later). Motifs, indices and the count are then as before.
        """
        if self.captured is not None:
            self.captured.step()
            return None
        self._agree()
        before, self.steps = self.steps, self.steps + 1
        with ExitStack() as undo:
            undo.callback(setattr, self, "steps", before)
            done = self._step()
            undo.pop_all()
        if self._versions and self.steps in (CHECK_EVERY, self.total_steps):
            self._warn_of_fixed_scales(self._versions)
            self._versions = None
        return done

    def _agree(self) -> None:
        """Makes the plan that of the first rank, once, where there are several replicas."""
        if self._agreed or self.bank.wrapper() is None:
            return
        plan, state = by_first(
            self.bank,
            lambda: (
                {name: getattr(self, name) for name in self.PLAN},
                self.generator.get_state(),
            ),
        )
        vars(self).update(plan)
        self.generator.set_state(state)
        self._agreed = True

    def advance_(self) -> None:
        """What a step does once it is counted, with `capturable`."""
        captured, bank = self.captured, self.bank
        assert captured is not None
        following = captured.prepared()
        if following is None:
            part = self.steps / self.total_steps
            self._follow(move_only=part > 1 - self.fixed and not bank.whole, revive=False)
            return
        rate_weight, fixed = captured.rate_and_phase(self)
        following.follow_(
            rate_weight=rate_weight, move_only=fixed, revive=False, check=False
        )

    def check(self) -> None:
        """Waits for the device and refuses weights that were not finite in a step since the last check.

        Raises:
            ValueError: if there were any; names the parameter.
        """
        following = self._following if self.captured is None else self.captured.following
        if following is not None:
            following.check()

    def _step(self) -> Reassignment | None:
        part = self.steps / self.total_steps
        if part < self.dense:
            return None
        if not self.bank.learning:
            return self._start()
        if self.steps % self.every and self.steps != self.total_steps:
            return None
        return self._follow(move_only=part > 1 - self.fixed and not self.bank.whole)

    def _written(self) -> list[int]:
        """How often scales and each latent weight were written in place; optimizers do that."""
        tensors = (self.bank.stretch, *(tile.latent for tile in self.bank.tiles))
        return [tensor._version for tensor in tensors]

    def _warn_of_fixed_scales(self, before: list[int]) -> None:
        now = self._written()
        if not self.bank.stretch.requires_grad or now[0] > before[0] or now == before:
            return
        warnings.warn(
            f"in {self.steps} steps the optimizer wrote latent weights but never the scales "
            "(momos.stretch), so they stay fixed: make the optimizer after parametrize_, or "
            "call bank.stretch.requires_grad_(False) if that is meant",
            UserWarning,
            stacklevel=4,  # the caller of step and its decorator
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.captured is not None:
            self.captured.belong_to(self)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue as if never interrupted."""
        return {
            "steps": self.steps,
            "learning": self.bank.learning,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned."""
        self.steps = state["steps"]
        self._agreed = False
        self.bank.start_(learning=state["learning"])
        self.generator.set_state(state["generator"].cpu())

    def _start(self) -> Reassignment:
        bank = self.bank
        if bank.shards is None:
            scales = scales_of([tile.latent for tile in bank.tiles], bank.config.scales)
        else:
            scales = bank.shards.roots(bank)
        blocks = bank.blocks(scales)
        motifs, indices = bank.fitting.start(blocks, generator=self.generator)
        if scales is not None:
            bank.scales.copy_(torch.cat(scales))
        if bank.whole:
            bank.base.copy_(bank.scales)
            bank.stretch.zero_()
        bank.motifs.copy_(motifs)
        bank.indices.copy_(indices)
        bank.rate_weight.zero_()
        bank.followed = True
        bank.start_(learning=True)
        return Reassignment(bank.layout.num_blocks, int((bank.usage() > 0).sum()), 0.0)

    def _follow(self, *, move_only: bool, revive: bool = True) -> Reassignment:
        bank, rate_weight = self.bank, self.rate_weight
        revive = revive and not rate_weight and not move_only
        following = Following.of(bank, self._following)
        if following is not None:
            self._following = following
            counts = following.follow_(
                rate_weight=rate_weight,
                move_only=move_only,
                revive=revive,
                check=self.steps % CHECK_EVERY == 0 or self.steps == self.total_steps,
            )
            return _Later(counts, rate_weight)
        with ExitStack() as undo:
            undo.callback(bank.update_tiles_)  # tiles stay consistent with the bank
            changed, used = bank.follow_(
                bank.usage(),
                rate_weight=rate_weight,
                move_only=move_only,
                revive=revive,
            )
            undo.pop_all()
        return Reassignment(changed, used, rate_weight)


# The settings of a schedule and their defaults.
PARTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in signature(Reassign).parameters.items()
    if parameter.default is not parameter.empty and name != "capturable"
}


def schedule_settings(learn: str | None, given: Mapping[str, float]) -> dict[str, Any]:
    """All settings of a schedule, those that are not `given` by default.

    Raises:
        TypeError: if one is unknown.
        ValueError: if one is out of order, or there are any but `learn` is not "weights".
    """
    if unknown := sorted(given.keys() - PARTS.keys()):
        raise TypeError(
            f"settings of the schedule must be among {', '.join(PARTS)}, got "
            f"{', '.join(unknown)}"
        )
    if given and learn != "weights":
        raise ValueError(
            f"learn must be 'weights' for a schedule, got {learn!r} and {dict(given)}"
        )
    settings: dict[str, Any] = {**PARTS, **given}
    check_parts(**settings)
    return settings


def check_parts(*, every: int, dense: float, ramp: float, fixed: float) -> None:
    """Refuses a schedule whose parts are out of order.

    Raises:
        ValueError: as `Reassign` does.
    """
    check_whole("every", every, least=1)
    if not 0 <= dense <= ramp <= 1 - fixed <= 1:
        raise ValueError(
            f"dense, ramp and 1 - fixed must be parts of the whole in this order, got "
            f"{dense}, {ramp} and {1 - fixed}"
        )
