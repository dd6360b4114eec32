"""Does training simplify?"""

from dataclasses import dataclass
from typing import ClassVar

from momos.study.cells import Cell
from momos.study.recipes.recipe import Recipe
from momos.study.recipes.variations import is_given
from momos.study.treatments import PUBLISHED


@dataclass(frozen=True, kw_only=True)
class Simplify(Recipe):
    """Does training simplify? Start against trained network, with and without weight decay.

    With `published`, and for a task whose network is published, nothing is trained: starts from
    the seeds against the weights that the network's authors published.
    """

    name: ClassVar[str] = "simplify"
    network: str = ""
    published: bool = False
    weight_decays: tuple[float, ...] = (0.0, 0.01)
    measure_every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.published and self.epochs is not None:
            raise ValueError(
                f"epochs must not be given for published weights, got {self.epochs}"
            )

    def cells(self) -> list[Cell]:
        if self.published or is_given(self.task, self.network, self.epochs):
            return [
                Cell(task=self.task, network=self.network, treatment=PUBLISHED, seed=seed)
                for seed in range(self.seeds)
            ]
        return [
            Cell(
                task=self.task,
                network=self.network,
                seed=seed,
                epochs=self.epochs,
                weight_decay=weight_decay,
                measure_every=self.measure_every,
            )
            for seed in range(self.seeds)
            for weight_decay in self.weight_decays
        ]
