"""Accuracy against capacity: the paper's figure."""

from dataclasses import dataclass
from typing import ClassVar

from momos.study.cells import Cell
from momos.study.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Capacity(Recipe):
    """How accurate are mosaics of each capacity and block size? From scratch, motifs sampled."""

    name: ClassVar[str] = "capacity"
    network: str = ""
    block_sizes: tuple[int, ...] = (2, 4, 8)
    capacities: tuple[float, ...] = (0.005, 0.01, 0.05, 0.1, 0.2)
    every: int = 0  # steps between projections; 0: one epoch

    def cells(self) -> list[Cell]:
        every = {"every": self.every} if self.every else {}
        cells = []
        for seed in range(self.seeds):
            cells.append(
                Cell(task=self.task, network=self.network, seed=seed, epochs=self.epochs)
            )
            cells += [
                Cell(
                    task=self.task,
                    network=self.network,
                    treatment="sampled",
                    settings={"block_size": size, "capacity": capacity} | every,
                    seed=seed,
                    epochs=self.epochs,
                )
                for size in self.block_sizes
                for capacity in self.capacities
            ]
        return cells
