"""Cells: what one run of the study is, before it is run.

Equal cells are the same run, so each is run once, whichever recipes and sweeps it is part of. A
cell may start from the network of another, or have it as a teacher: that one is run first.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network, one treatment, one seed.

    `network` names one of `networks.NETWORKS`, or is empty: the task's own. `settings` are those
    of the treatment. `epochs`, `learning_rate` and `weight_decay` are the task's own where None.
    Every `record_every` epochs the history gets a line and the run a checkpoint.
    With `measure_every`, complexity is measured at every so many epochs, and usage of motifs
    kept; `controls` are the shuffles that the finished network is compared with (0, or 2 and more). `start` and `teacher` are the cells whose trained networks those are.
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
    start: "Cell | None" = None
    teacher: "Cell | None" = None

    def __post_init__(self) -> None:
        for name in ("task", "treatment"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be named, got nothing")
        for name, least in (("seed", 0), ("record_every", 1), ("measure_every", 0)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.controls < 0 or self.controls == 1:
            raise ValueError(f"controls must be 0, or at least 2, got {self.controls}")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")

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
    def label(self) -> str:
        """What makes the cell differ from others of its task, seed apart."""
        words = [self.network, self.treatment]
        words += [f"{name}={value}" for name, value in self.settings.items()]
        if self.weight_decay is not None:
            words.append(f"weight_decay={self.weight_decay:g}")
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
