"""Cells: what one run of the study is, before it is run.

Equal cells are the same run, so each is run once, whichever recipes and sweeps it is part of. A
cell may start from the network of another, or have it as a teacher: that one is run first.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from math import inf
from typing import Any, Literal, get_args

Keep = Literal["last", "best"]
Precision = Literal["float32", "bfloat16"]
OPTIONS = ("validation", "patience", "keep", "precision", "channels_last")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network, one treatment, one seed.

    `network` names one of `networks.NETWORKS`, or is empty: the task's own. `settings` are those
    of the treatment. `epochs`, `learning_rate` and `weight_decay` are the task's own where None.
    Every `record_every` epochs the history gets a line and the run a checkpoint.
    With `measure_every`, complexity is measured at every so many epochs, and usage of motifs
    kept; `controls` are the shuffles that the finished network is compared with (0, or 2 and more). `start` and `teacher` are the cells whose trained networks those are.

    `validation` is the share of the training samples that is held out. On them, after `patience`
    lines of the history without a better network, training stops (0: never), and the network of
    the best line is kept, or of the last. `precision` is that of the forward pass in training,
    `channels_last` how weights and inputs of convolutions lie in memory there.
    """

    task: str
    treatment: str = "dense"
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    network: str = ""
    epochs: float | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    record_every: int = 1
    measure_every: int = 0
    controls: int = 10
    validation: float = 0.0
    patience: int = 0
    keep: Keep = "last"
    precision: Precision = "float32"
    channels_last: bool = False
    start: "Cell | None" = None
    teacher: "Cell | None" = None

    def __post_init__(self) -> None:
        self._check_types()
        for name in ("task", "treatment"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be named, got nothing")
        for name, least in (
            *(("seed", 0), ("record_every", 1), ("measure_every", 0)),
            ("patience", 0),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, got {value!r}"
                )
        if type(self.controls) is not int or self.controls < 0 or self.controls == 1:
            raise ValueError(f"controls must be 0, or at least 2, got {self.controls!r}")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise ValueError(f"{name} must be above 0 and finite, got {value}")
        self._check_options()

    def _check_types(self) -> None:
        for name in ("task", "treatment", "network"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, got {getattr(self, name)!r}")
        for name in ("epochs", "learning_rate", "weight_decay", "validation"):
            value = getattr(self, name)
            if value is not None and type(value) not in (int, float):
                raise ValueError(f"{name} must be a number, got {value!r}")
        if not isinstance(self.settings, dict):
            raise ValueError(f"settings must be names and values, got {self.settings!r}")

    def _check_options(self) -> None:
        for name, known in (("keep", get_args(Keep)), ("precision", get_args(Precision))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be {' or '.join(known)}, got {getattr(self, name)!r}"
                )
        if not isinstance(self.channels_last, bool):
            raise ValueError(
                f"channels_last must be true or false, got {self.channels_last!r}"
            )
        if not 0 <= self.validation < 1:
            raise ValueError(
                f"validation must be at least 0 and below 1, got {self.validation}"
            )
        for name in ("patience", "keep"):
            if not self.validation and name in self.options:
                raise ValueError(
                    f"validation must be above 0 for {name}={getattr(self, name)}, which "
                    f"goes by samples held out, got {self.validation}"
                )
        for name in ("start", "teacher"):
            other = getattr(self, name)
            if other and other.task == self.task and other.validation < self.validation:
                raise ValueError(
                    f"validation of the {name} must be at least the cell's, "
                    f"{self.validation}, got {other.validation}: it would have been trained "
                    "on samples held out"
                )

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Cell":
        """A cell from what `asdict` or a file of JSON made of it.

        Raises:
            TypeError: if a field is unknown or missing.
            ValueError: if a value is out of range.
        """
        found = dict(values)
        for name in ("start", "teacher"):
            if found.get(name) is not None:
                found[name] = cls.of(found[name])
        return cls(**found)

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that are the cell's own.

        What is as by default has no part in it, so that fields to come leave old keys alone.
        """
        text = json.dumps(_said(asdict(self)), sort_keys=True, ensure_ascii=True)
        return sha256(text.encode()).hexdigest()[:12]

    @property
    def options(self) -> dict[str, Any]:
        """How it is trained otherwise than by default, whatever the treatment."""
        found = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in found.items() if value != _DEFAULTS[name]}

    @property
    def option_words(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.options.items()]

    @property
    def label(self) -> str:
        """What makes the cell differ from others of its task, seed apart."""
        words = [self.network, self.treatment]
        words += [f"{name}={value}" for name, value in self.settings.items()]
        if self.weight_decay is not None:
            words.append(f"weight_decay={self.weight_decay:g}")
        words += self.option_words
        return " ".join(word for word in words if word)

    @property
    def folder(self) -> str:
        """The name of its folder."""
        words = [self.task, self.network, self.treatment, f"seed-{self.seed}", self.key]
        return "-".join(
            "".join(c if c.isalnum() else "-" for c in word) for word in words if word
        )

    @property
    def needs(self) -> tuple["Cell", ...]:
        """The cells that must have been run before."""
        return tuple(cell for cell in (self.start, self.teacher) if cell is not None)


def _said(values: dict[str, Any]) -> dict[str, Any]:
    """What a cell says otherwise than by default, and so the cells in it."""
    said = {name: value for name, value in values.items() if value != _DEFAULTS.get(name)}
    cells = {name: _said(said[name]) for name in ("start", "teacher") if name in said}
    return said | cells


_DEFAULTS = {
    known.name: {} if known.name == "settings" else known.default for known in fields(Cell)
}


def ordered(cells: Iterable[Cell]) -> list[Cell]:
    """`cells` and all that they need, each once and after those it needs."""
    found: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        for other in cell.needs:
            add(other)
        found.setdefault(cell.key, cell)

    for cell in cells:
        add(cell)
    return list(found.values())
