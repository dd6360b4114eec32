"""Does training simplify?"""

from dataclasses import dataclass
from typing import ClassVar

from momos.study.cells import Cell
from momos.study.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Simplify(Recipe):
    """Does training simplify? Start against trained network, with and without weight decay."""

    name: ClassVar[str] = "simplify"
    weight_decays: tuple[float, ...] = (0.0, 0.01)
    measure_every: int = 10

    def cells(self) -> list[Cell]:
        return [
            Cell(
                task=self.task,
                seed=seed,
                epochs=self.epochs,
                weight_decay=weight_decay,
                measure_every=self.measure_every,
            )
            for seed in range(self.seeds)
            for weight_decay in self.weight_decays
        ]
