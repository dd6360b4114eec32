"""What every recipe is: values that stand for cells."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, ClassVar, Self

from momos.study.cells import Cell


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A study as a value: printable, saved with every run, and changed by `with_settings`.

    The first line of a recipe's docstring says what it asks.
    """

    name: ClassVar[str]
    task: str = "digits"
    seeds: int = 5
    epochs: float | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")

    def cells(self) -> list[Cell]:
        """The runs that it consists of."""
        raise NotImplementedError

    def __str__(self) -> str:
        values = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{self.name}({', '.join(values)})"

    def with_settings(self, settings: Mapping[str, str]) -> Self:
        """The same recipe with other values, given as text: JSON, or a plain word.

        Raises:
            ValueError: if a setting is unknown (names those like it) or of a wrong kind.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {}
        for name, text in settings.items():
            if name not in own:
                near = get_close_matches(name, own, n=3, cutoff=0.5) or list(own)
                raise ValueError(
                    f"settings of {self.name} must be its own, got {name!r} "
                    f"(near it: {', '.join(near)})"
                )
            changed[name] = _value(name, text, own[name])
        return replace(self, **changed)


def _value(name: str, text: str, own: Any) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    if isinstance(own, tuple):
        value = tuple(value) if isinstance(value, list) else (value,)
        wanted = {float if isinstance(v, int | float) else type(v) for v in own}
        right = all(any(_is(v, kind) for kind in wanted) for v in value) or not wanted
    else:
        kinds = (float, type(None)) if own is None else (type(own),)
        right = any(_is(value, kind) for kind in kinds)
    if not right:
        raise ValueError(f"{name} must be like {own!r}, got {text!r}")
    return value


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)
