"""Checkpoints of a network that learns its motifs, as networks that do not learn load them.

The `state_dict` of a checkpoint has the names of the module without its parametrizations. What is
needed to go on learning is kept beside it, under `KEY`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from momos.integrations.lightning.averages import SWAPPING
from momos.learning.bank import NAME, Bank
from momos.learning.states import learning_names

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


def bank_within(module: LightningModule) -> Bank | None:
    """The bank of a module whose motifs are being learned."""
    bank = module._modules.get(NAME)
    return bank if isinstance(bank, Bank) else None


def save_plain_states(module: LightningModule, bank: Bank) -> None:
    """Lets the checkpoints of `module` be plain.

    By the hook of the module: it is the last of all, and the only one called where a checkpoint is
    to have weights only.
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
    """Loads what the plain state of a checkpoint does not have.

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
    if averaged:  # by a callback that is no longer there
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
    if bank is None:
        return
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
    """What of a state is not among `names`, and what is."""
    plain = {name: value for name, value in state.items() if name not in names}
    return plain, {name: value for name, value in state.items() if name in names}
