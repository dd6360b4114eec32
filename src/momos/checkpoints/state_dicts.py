"""Finds the one state dict in a pickled checkpoint.

Nothing is guessed: if there are several, the error lists all. An optimizer's state is never one.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from momos.errors import FormatError

USUAL = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "module",
)  # usual names for weights
OF_OPTIMIZERS = ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "max_exp_avg_sq")
OF_TRAINING = re.compile(
    "optim(?!al)|callback|loops|scheduler"
)  # names for other things than weights
DEPTH = 4


@dataclass(frozen=True)
class State:
    """A state dict: its tensors, and what else the file holds, by name."""

    tensors: dict[str, Tensor]
    left_out: dict[str, str]


def find_state(path: Path, value: Any, key: str = "") -> State:
    """The state dict in `value`: the only one, the one under a usual name, or that at `key`.

    Raises:
        FormatError: if there is none, or there are several to choose from.
    """
    if not isinstance(value, Mapping):
        raise _nothing(path, f"a {type(value).__name__}")
    found = dict(_states(value, "", DEPTH))
    if key and key not in found:
        raise FormatError(
            path, "pickle", f"must hold a state dict at {key!r}, got {_listed(found)}"
        )
    chosen = key or _choose(path, value, found)
    state = found[chosen]
    left_out = dict(_beside(value, "", chosen, found))
    tensors = {}
    for name, one in state.items():
        if isinstance(one, Tensor) and isinstance(name, str):
            if not _is_text(name):
                raise FormatError(
                    path, f"tensor {name!r}", "must have a name of Unicode text"
                )
            tensors[name] = one
        else:
            left_out[str(name)] = type(one).__name__
    return State(tensors, left_out)


def _is_text(name: str) -> bool:
    """Whether a name has no lone surrogates, which pickles can hold and files cannot."""
    return all(not 0xD800 <= ord(letter) < 0xE000 for letter in name)


def _choose(path: Path, value: Mapping, found: dict[str, Mapping]) -> str:
    """The key of the state dict that is meant."""
    if not found:
        raise _nothing(path, ", ".join(map(repr, value))[:200] or "nothing")
    weighty = [key for key, state in found.items() if _num_arrays(state)] or list(found)
    usual = [key for key in weighty if key and set(key.split(".")) <= set(USUAL)]
    for keys in (weighty, usual):
        if len(keys) == 1:
            return keys[0]
    example = next(key for key in weighty if key)
    raise FormatError(
        path,
        "pickle",
        f"must hold one state dict, got {_listed({key: found[key] for key in weighty})}: name "
        f"the one you mean, as --key {shlex.quote(example)} (in Python key={example!r})",
    )


def _states(value: Mapping, key: str, depth: int) -> Iterator[tuple[str, Mapping]]:
    """All mappings of tensors by name in `value`, itself included, by their dotted keys."""
    if not depth or "param_groups" in value or _is_optimizer(value):
        return
    if any(isinstance(n, str) and isinstance(t, Tensor) for n, t in value.items()):
        yield key, value
    for name, one in value.items():
        if isinstance(one, Mapping) and isinstance(name, str) and not _is_training(name):
            yield from _states(one, f"{key}.{name}" if key else name, depth - 1)


def _is_training(name: str) -> bool:
    return name.endswith("_extra_state") or bool(OF_TRAINING.search(name.lower()))


def _is_optimizer(value: Mapping) -> bool:
    return any(str(name).rpartition(".")[2] in OF_OPTIMIZERS for name in value)


def _num_arrays(state: Mapping) -> int:
    """Tensors in a mapping that are more than single numbers."""
    return sum(isinstance(one, Tensor) and one.dim() > 0 for one in state.values())


def _beside(
    value: Mapping, key: str, chosen: str, found: dict[str, Mapping]
) -> Iterator[tuple[str, str]]:
    """Everything other than the state dict at `chosen`, and its type."""
    if key == chosen:
        return
    for name, one in value.items():
        own = f"{key}.{name}" if key else str(name)
        if own == chosen or (isinstance(one, Mapping) and chosen.startswith(f"{own}.")):
            if own != chosen:
                yield from _beside(one, own, chosen, found)
        elif own in found:
            yield own, f"dict of {_num_tensors(found[own])}"
        else:
            yield own, type(one).__name__


def _num_tensors(state: Mapping) -> str:
    count = sum(isinstance(one, Tensor) for one in state.values())
    return f"{count} tensor{'s' * (count != 1)}"


def _listed(found: dict[str, Mapping]) -> str:
    listed = [
        f"{repr(key) if key else 'the outermost'} ({_num_tensors(state)})"
        for key, state in found.items()
    ]
    return ", ".join(listed[:10]) + ", …" * (len(listed) > 10) or "none"


def _nothing(path: Path, found: str) -> FormatError:
    return FormatError(
        path,
        "pickle",
        "must hold a state dict (tensors by name, alone or in other dicts; not an optimizer's), "
        f"got {found}",
    )
