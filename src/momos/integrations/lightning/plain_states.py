"""Makes checkpoints of a network that learns its motifs loadable by ordinary networks.

The `state_dict` of a checkpoint has the names of the module without its parametrizations. What is
needed to continue learning is kept separately, under `KEY`.

Other callbacks average weights: Lightning's `WeightAveraging` swaps averages into the module for
validation and copies them there when training ends; `StochasticWeightAveraging` does only the
latter. Latent weights then no longer belong to the bank, which `Held` detects.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks

from momos.learning.bank import NAME, Bank
from momos.learning.states import learning_names, settle_, trace_of
from momos.shards import is_sharded

KEY = "momos"  # in a checkpoint, a mapping of
STATE, AVERAGE = (
    "state_dict",
    "average_model_state",
)  # of the module; of its SWA, if it has one
HOOK = "on_save_checkpoint"
# Lightning's WeightAveraging has the average as `state_dict`, and in addition:
CURRENT = "current_model_state"
AVERAGES = (
    "averaging_state"  # merged with the state of the average, names of which begin with
)
MODULE = "module."
# Lightning before 2.6 has no WeightAveraging.
SWAPPING: tuple[type[Callback], ...] = tuple(
    kind for kind in (getattr(callbacks, "WeightAveraging", None),) if kind is not None
)
AVERAGING = (*SWAPPING, callbacks.StochasticWeightAveraging)


def bank_within(module: LightningModule) -> Bank | None:
    """The bank of a module whose motifs are being learned."""
    bank = module._modules.get(NAME)
    return bank if isinstance(bank, Bank) else None


def save_plain_states(module: LightningModule, bank: Bank) -> None:
    """Makes the checkpoints of `module` plain.

    It wraps the hook of the module, which is called last, and is the only one called for
    checkpoints with weights only.
    """
    bank.plain = True
    hook = module.__dict__.get(HOOK)
    if not (isinstance(hook, partial) and hook.func is _save):
        module.__dict__[HOOK] = partial(_save, module, getattr(module, HOOK))


def save_as_before(module: LightningModule) -> None:
    """Undoes `save_plain_states`."""
    hook = module.__dict__.pop(HOOK)
    before = hook.args[1]
    if (
        getattr(module, HOOK) != before
    ):  # an attribute of the module, no method of its class
        module.__dict__[HOOK] = before


def load_learning_state(
    trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
) -> None:
    """Loads the part of the state that is not in the plain state of a checkpoint.

    Raises:
        ValueError: if the checkpoint does not have it either.
    """
    bank = bank_within(module)
    callbacks: list[Any] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    swapping = [other for other in callbacks if isinstance(other, SWAPPING)]
    averaged, strict = CURRENT in checkpoint, module.strict_loading
    if bank is None:
        if averaged and swapping:  # which have put the weights there that are not averaged
            module.load_state_dict(checkpoint["state_dict"], strict=strict)
        return
    if KEY not in checkpoint:
        if bank.awaiting:
            raise ValueError(
                "the checkpoint must be of a run with LearnedMosaicCallback, got one of dense "
                "weights (load them into the module, and fit without ckpt_path)"
            )
        return
    rest = checkpoint[KEY][STATE]
    for state in _stochastic(checkpoint):
        state[AVERAGE] = {**state[AVERAGE], **checkpoint[KEY][AVERAGE]}
    if averaged and swapping:
        module.load_state_dict({**checkpoint[CURRENT], **rest}, strict=strict)
        return
    if averaged:  # by a callback that is not used any more
        state = checkpoint[AVERAGES]
        rest = {n.removeprefix(MODULE): state[n] for n in state if n.startswith(MODULE)}
    checkpoint["state_dict"] = {**checkpoint["state_dict"], **rest}
    module.load_state_dict(checkpoint["state_dict"], strict=strict)
    for other in swapping:  # which have seen the plain state only
        other.on_load_checkpoint(trainer, module, checkpoint)


def _save(
    module: LightningModule,
    before: Callable[[dict[str, Any]], None],
    checkpoint: dict[str, Any],
) -> None:
    before(checkpoint)
    bank = bank_within(module)
    if bank is None or any(map(is_sharded, checkpoint["state_dict"].values())):
        return  # shards are saved as they are, by torch.distributed.checkpoint
    names = set(learning_names(bank, ""))
    checkpoint["state_dict"], rest = _parted(checkpoint["state_dict"], names)
    if "callbacks" not in checkpoint:
        return  # weights only
    checkpoint[KEY] = {STATE: rest}
    for state in _stochastic(checkpoint):
        state[AVERAGE], checkpoint[KEY][AVERAGE] = _parted(state[AVERAGE], names)
    if CURRENT in checkpoint:  # the state was that of the average
        checkpoint[AVERAGES] |= {MODULE + name: value for name, value in rest.items()}
        checkpoint[CURRENT], checkpoint[KEY][STATE] = _parted(checkpoint[CURRENT], names)


def _stochastic(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """The states of Lightning's StochasticWeightAveraging that hold an average."""
    states = (checkpoint.get("callbacks") or {}).values()
    return [s for s in states if isinstance(s, dict) and isinstance(s.get(AVERAGE), dict)]


def _parted(
    state: dict[str, Any], names: set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of a state that are not among `names`, and those that are."""
    plain = {name: value for name, value in state.items() if name not in names}
    return plain, {name: value for name, value in state.items() if name in names}


class Held:
    """A snapshot of a bank, to detect and undo changes that others make to its network."""

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
        """Undoes `settle_`, after others have restored the weights."""
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
    """Moves `callback`, which has changed the module, after the callbacks that average weights.

    Those that were set up before it have copied the old module, so they are set up again.
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
