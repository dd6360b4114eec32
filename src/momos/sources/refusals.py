"""Why torch refuses to unpickle a file, in one sentence that says what to do."""

import pickle
import re
import struct
from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint

from momos.errors import FormatError

REFUSED = re.compile(
    r"Unsupported global: GLOBAL (\S+) was not|unsupported GLOBAL (\S+) whose"
)
PROTOCOL = re.compile(r"Unsupported operand 1(?:2[89]|[34]\d|5[01])$", re.MULTILINE)
OF_MODULES = ("torch.nn.modules.", "torch.fx.")
NEVER = ("os", "posix", "nt", "sys", "subprocess", "builtins")
BROKEN = (
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError),
    *(ImportError, OverflowError, AssertionError, struct.error, pickle.UnpicklingError),
)
SAVE = "torch.save(model.state_dict(), 'state.pt')"


def refusal(path: Path, error: Exception) -> FormatError:
    """What to raise of the torch file at `path`, which could not be unpickled for `error`."""
    text = str(error)
    if names := _refused(path, text):
        return FormatError(path, "pickle", _about(names))
    if "torch.distributed.tensor" in text:
        problem = "must hold whole tensors, got DTensors: save their full_tensor()"
    elif PROTOCOL.search(text):
        problem = (
            "must be of pickle protocol 2, which torch.save writes unless told otherwise, got "
            "a later one: save it again without pickle_protocol"
        )
    else:
        problem = f"must be what torch.save writes: {_short(error)}"
    return FormatError(path, "pickle", problem)


def _refused(path: Path, text: str) -> list[str]:
    """The names that the file needs and torch does not allow: all, or the first."""
    found = REFUSED.search(text)
    if not found:
        return []
    first = found[1] or found[2]
    try:
        names = get_unsafe_globals_in_checkpoint(str(path))
    except BROKEN:
        names = []
    return sorted({*names, first} - {f"builtins.{first}"} if names else {first})


def _about(names: list[str]) -> str:
    listed = ", ".join(names[:5]) + ", …" * (len(names) > 5)
    if any(name.startswith(OF_MODULES) for name in names):
        return (
            f"must hold tensors and plain values only, got a whole module ({listed}), whose code "
            f"is never run: load it where its classes are defined and save its tensors, as {SAVE}"
        )
    problem = (
        f"must hold tensors and plain values only, but needs {listed}, and no code is run: save "
        f"the tensors alone, as {SAVE}"
    )
    if any(name.partition(".")[0] in NEVER or "." not in name for name in names):
        return problem
    return (
        f"{problem}, or call torch.serialization.add_safe_globals([{', '.join(names)}]) first if "
        "you trust what these names run"
    )


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
