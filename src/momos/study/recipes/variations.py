"""Dense networks, and what is made of each by training it further."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from momos.study.cells import Cell
from momos.study.treatments import PUBLISHED

Settings = dict[str, Any]
GIVEN = ("resnet20",)  # tasks whose network is trained already


def dense_start(
    task: str,
    seed: int,
    epochs: float | None,
    *,
    network: str = "",
    published: bool = False,
) -> Cell:
    """The dense network of a seed that others start from: trained, or as it was published.

    A network that a task has trained already is taken as it is, unless epochs are given.
    """
    if published or is_given(task, network, epochs):
        return Cell(task=task, network=network, treatment=PUBLISHED, seed=seed)
    return Cell(task=task, network=network, seed=seed, epochs=epochs)


def is_given(task: str, network: str, epochs: float | None) -> bool:
    """Whether the network is there before anything is trained."""
    return task in GIVEN and not network and epochs is None


@dataclass(frozen=True, kw_only=True)
class Variation:
    """A treatment of a dense network that is trained further.

    `epochs` are those that the recipe has for all, and `learning_rate` is the task's own, where
    None. With `once` only the first seed is treated so.
    """

    treatment: str
    settings: Settings = field(default_factory=dict)
    epochs: float | None = None
    learning_rate: float | None = None
    taught: bool = True
    once: bool = False

    def of(self, dense: Cell, epochs: float | None) -> Cell:
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
    return [
        Variation(
            treatment=treatment,
            settings={name: value} | others,
            learning_rate=learning_rate,
        )
        for value in values
    ]
