"""The tensors of a TorchScript archive, without running its code.

Modules in it are objects of classes that only the archive defines. Torch's unpickler, which runs
nothing, makes them plain holders of their attributes; a tensor is named by the way to it.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch._weights_only_unpickler import get_globals_in_pkl
from torch.serialization import safe_globals

from momos.errors import FormatError

OF_ARCHIVE = "__torch__."  # the package of all classes that an archive defines
SAME = (  # functions that return their first argument, by name
    "restore_type_tag",
    *(f"build_{kind}list" for kind in ("int", "tensor", "double", "bool")),
)
MOST_DEEP, MOST_HELD = 100, 1 << 18


class _Module:
    """What an archive's code would make a module of, with its attributes and without the code."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def unpickle_modules(content: bytes, unpickle: Callable[[bytes], Any]) -> Any:
    """What `unpickle` makes of the pickle `content`, its own classes being mere holders."""
    names = get_globals_in_pkl(io.BytesIO(content))
    known: list[Any] = [(_Module, name) for name in names if name.startswith(OF_ARCHIVE)]
    known += [(_first, f"torch.jit._pickle.{name}") for name in SAME]
    with safe_globals(known):
        return unpickle(content)


def _first(value: Any, *_: Any) -> Any:
    return value


def state_of(path: Path, value: Any) -> dict[str, Any]:
    """The tensors by name in the modules of an archive, as its state_dict would have them.

    What modules keep packed is in it as it is stored.

    Raises:
        FormatError: if there are none, or modules lie too deep in each other.
    """
    state, todo, count = {}, [("", value, 0)], 0
    while todo:
        name, one, depth = todo.pop()
        own = getattr(one, "state", None)
        if not isinstance(own, dict):
            state[name] = one if isinstance(one, Tensor) else own
            continue
        inner = [
            (f"{name}.{key}" if name else str(key), child, depth + 1)
            for key, child in own.items()
            if isinstance(child, _Module | Tensor)  # no lists: they are no state
        ]
        count += len(inner)
        if count > MOST_HELD or depth > MOST_DEEP:
            raise FormatError(
                path,
                "pickle",
                f"must hold at most {MOST_HELD:,} modules and tensors, at most {MOST_DEEP} deep",
            )
        todo += reversed(inner)
    if not any(isinstance(one, Tensor) for one in state.values()):
        raise FormatError(
            path,
            "pickle",
            "must hold tensors in its modules, got none: a frozen TorchScript module keeps its "
            "weights in its code: use the checkpoint that it was made from",
        )
    return state
