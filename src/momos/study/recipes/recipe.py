"""What every recipe is: values that stand for cells."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from types import UnionType
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from momos.study.cells import OPTIONS, Cell, Keep, Precision
from momos.study.treatments import PUBLISHED


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """A study as a value: printable, saved with every run, and changed by `with_settings`.

    The first line of a recipe's docstring says what it asks. Settings from `validation` on are
    those of every cell, as `Cell` explains them.
    """

    name: ClassVar[str]
    least_seeds: ClassVar[int] = 1
    task: str = "digits"
    seeds: int = 5
    epochs: float | None = None
    validation: float = 0.0
    patience: int = 0
    keep: Keep = "last"
    precision: Precision = "float32"
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.seeds < self.least_seeds:
            raise ValueError(f"seeds must be at least {self.least_seeds}, got {self.seeds}")

    @abstractmethod
    def cells(self) -> list[Cell]:
        """What it asks for, without the settings that all cells share."""

    def runs(self) -> list[Cell]:
        """The cells that it consists of."""
        return [self.shared(cell) for cell in self.cells()]

    def shared(self, cell: Cell) -> Cell:
        """A cell with the settings that all share, and so those it needs.

        Of them, published networks have held-out samples only: nothing of them is trained.
        """
        needs = {"start": cell.start, "teacher": cell.teacher}
        found = {name: other and self.shared(other) for name, other in needs.items()}
        given = self._shared()
        if cell.treatment == PUBLISHED:
            given = {"validation": self.validation}
        return replace(cell, **found, **given)

    @property
    def is_plain(self) -> bool:
        """Whether it has none of the settings that all cells share."""
        return not self._shared()

    def _shared(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in OPTIONS}
        return {n: v for n, v in given.items() if v != getattr(Recipe, n)}

    def finish(self, root: Path) -> list[Path]:
        """What is to be made of the finished runs under `root`; the files written."""
        return []

    def __str__(self) -> str:
        names = [f.name for f in fields(self) if f.name not in OPTIONS]
        values = (f"{n}={getattr(self, n)!r}" for n in [*names, *self._shared()])
        return f"{self.name}({', '.join(values)})"

    @property
    def command(self) -> str:
        """What runs it from the shell."""
        own = [f for f in fields(self) if f.name != "task"]
        changed = [
            f"--set {quote(f'{f.name}={json.dumps(getattr(self, f.name))}')}"
            for f in own
            if getattr(self, f.name) != f.default
        ]
        return " ".join([f"momos study run {self.name} --task {self.task}", *changed])

    def with_settings(self, settings: Mapping[str, str]) -> Self:
        """The same recipe with other values, given as text: JSON, or a plain word.

        Raises:
            ValueError: if a setting is unknown (names those like it) or of a wrong kind.
        """
        own, hints = [f.name for f in fields(self)], get_type_hints(type(self))
        changed = {}
        for name, text in settings.items():
            if name not in own:
                near = get_close_matches(name, own, n=3, cutoff=0.5) or own
                raise ValueError(
                    f"settings of {self.name} must be its own, got {name!r} "
                    f"(near it: {', '.join(near)})"
                )
            changed[name] = _value(name, text, hints[name])
        return replace(self, **changed)


def _value(name: str, text: str, hint: Any) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if any(get_origin(kind) is tuple for kind in kinds) and value is not None:
        value = tuple(value) if isinstance(value, list) else (value,)
    if not _fits(value, hint):
        if get_origin(hint) is Literal:
            known = " or ".join(get_args(hint))
            raise ValueError(f"{name} must be {known}, got {text!r}")
        kind = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
        raise ValueError(f"{name} must be of type {kind}, got {text!r}")
    return value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type; whole numbers are numbers, truth values are not."""
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return isinstance(value, tuple) and all(_fits(item, kind) for item in value)
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(hint, UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else get_origin(hint) or hint)
