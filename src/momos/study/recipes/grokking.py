"""Grokking: does complexity fall when generalization comes late?"""

from dataclasses import dataclass
from typing import ClassVar

from momos.study.cells import Cell
from momos.study.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Grokking(Recipe):
    """Does complexity fall when a network generalizes late? (a + b) mod 97, arXiv 2605.15551.

    Width 256 is for a CPU; the paper's is 512, for a GPU.
    """

    name: ClassVar[str] = "grokking"
    task: str = "mod97"
    seeds: int = 1
    epochs: float | None = 5000
    width: int = 256
    weight_decays: tuple[float, ...] = (1.0,)
    record_every: int = 50
    measure_every: int = 250

    def cells(self) -> list[Cell]:
        return [
            Cell(
                task=self.task,
                network=f"grokking:{self.width}",
                seed=seed,
                epochs=self.epochs,
                weight_decay=weight_decay,
                record_every=self.record_every,
                measure_every=self.measure_every,
            )
            for seed in range(self.seeds)
            for weight_decay in self.weight_decays
        ]
