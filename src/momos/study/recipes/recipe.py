"""What every recipe is: a question as a value that stands for cells."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, field, fields, replace
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BeforeValidator

from momos.study import schema
from momos.study.cell import (
    OPTIONS,
    PUBLISHED,
    Cell,
    Compiled,
    Device,
    Keep,
    Precision,
    Share,
)
from momos.study.plane import Wanted
from momos.study.schema import checked, got, value
from momos.study.store import Asked

T = TypeVar("T")
Several = Annotated[  # one value stands for a tuple of it
    tuple[T, ...], BeforeValidator(lambda v: v if isinstance(v, list | tuple) else (v,))
]
Settings = dict[str, Any]
GIVEN = ("resnet20",)  # tasks whose network is trained already


@value
class Recipe(ABC):
    """A study as a value: saved with every run, and changed by `with_settings`.

    The first line of a recipe's docstring says what it asks. Settings from `validation` on are
    those of every cell, as `Cell` explains them.
    """

    name: ClassVar[str]
    task: schema.Name = "digits"
    seeds: schema.Size = 5
    epochs: schema.Positive | None = None
    validation: Share = 0.0
    patience: schema.Count = 0
    keep: Keep = "last"
    precision: Precision = "float32"
    channels_last: schema.Fact = False
    device: Device = "cpu"
    compiled: Compiled = "no"
    devices: schema.Size = 1

    @abstractmethod
    def cells(self) -> list[Cell]:
        """What it asks for, without the settings that all cells share."""

    def cell(self, seed: int, **others: Any) -> Cell:
        """A cell of the recipe's task and epochs."""
        return Cell(task=self.task, seed=seed, epochs=self.epochs, **others)

    def planes(self) -> list[Wanted]:
        """The loss planes to be computed from the finished runs."""
        return []

    def runs(self) -> list[Cell]:
        """The cells that it consists of."""
        return [self.shared(cell) for cell in self.cells()]

    def shared(self, cell: Cell) -> Cell:
        """A cell with the settings that all share, and so those it needs.

        Of them, published networks have held-out samples only: nothing of them is trained.
        """
        found: dict[str, Any] = {"validation": self.validation}
        if cell.treatment != PUBLISHED:
            found = self._shared()
        for name in ("start", "teacher"):
            other = getattr(cell, name)
            found[name] = other and self.shared(other)
        return replace(cell, **found)

    def _shared(self) -> Settings:
        given = {name: getattr(self, name) for name in OPTIONS}
        return {n: v for n, v in given.items() if v != getattr(Recipe, n)}

    @property
    def settings(self) -> Settings:
        """Its own settings, and those of all cells that are not as by default."""
        own = {n: v for n, v in asdict(self).items() if n not in OPTIONS}
        return own | self._shared()

    @property
    def asked(self) -> Asked:
        """As it is saved with its runs."""
        return {"name": self.name, "settings": self.settings}

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{n}={v!r}' for n, v in self.settings.items())})"

    def with_settings(self, settings: Mapping[str, str]) -> Self:
        """The same recipe with other values, given as text: JSON, or a plain word.

        Raises:
            ValueError: if a setting is unknown (names those like it) or of a wrong kind.
        """
        own = [f.name for f in fields(self)]
        for name in settings:
            if name not in own:
                raise ValueError(
                    f"settings of {self.name} must be its own, {got(name, own)}"
                )
        given = {name: _value(text) for name, text in settings.items()}
        return checked(type(self), asdict(self) | given)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def is_given(task: str, network: str, epochs: float | None) -> bool:
    """Whether the network is there before anything is trained."""
    return task in GIVEN and not network and epochs is None


def dense_start(
    task: str, seed: int, epochs: float | None, network: str = "", published: bool = False
) -> Cell:
    """The dense network of a seed that others start from: trained, or as it was published."""
    if published or is_given(task, network, epochs):
        return Cell(task=task, network=network, treatment=PUBLISHED, seed=seed)
    return Cell(task=task, network=network, seed=seed, epochs=epochs)


@value
class Variation:
    """A treatment of a dense network that is trained further; `once` is of the first seed only."""

    treatment: schema.Name
    settings: schema.Object = field(default_factory=dict)
    epochs: schema.Positive | None = None
    learning_rate: schema.Positive | None = None
    taught: schema.Fact = True
    once: schema.Fact = False

    def of(self, dense: Cell, epochs: schema.Number | None) -> Cell:
        """The cell that goes on from a dense one, with it as the teacher."""
        return replace(
            dense,
            treatment=self.treatment,
            settings=self.settings,
            epochs=epochs if self.epochs is None else self.epochs,
            learning_rate=self.learning_rate,
            start=dense,
            teacher=dense if self.taught else None,
        )


def each(
    treatment: str,
    name: str,
    values: Iterable[Any],
    *,
    learning_rate: float | None = None,
    **others: Any,
) -> list[Variation]:
    """One variation for each value of one setting; the others are the same for all."""
    about: dict[str, Any] = {"treatment": treatment, "learning_rate": learning_rate}
    return [Variation(settings={name: value} | others, **about) for value in values]
