"""How motifs are used through training."""

from dataclasses import dataclass
from typing import ClassVar

from momos.study.cells import Cell
from momos.study.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Usage(Recipe):
    """How are motifs used through training? Sampled as in the paper, and learned."""

    name: ClassVar[str] = "usage"
    network: str = ""
    seeds: int = 3
    block_size: int = 2
    capacity: float = 0.05
    rate_weights: tuple[float, ...] = (0.0, 0.8)
    measure_every: int = 5

    def cells(self) -> list[Cell]:
        settings = [
            ("sampled", {"block_size": self.block_size, "capacity": self.capacity}),
            *(
                ("learned", {"rate_weight": rate_weight, "dense": 0.25})
                for rate_weight in self.rate_weights
            ),
        ]
        return [
            Cell(
                task=self.task,
                network=self.network,
                treatment=treatment,
                settings=values,
                seed=seed,
                epochs=self.epochs,
                measure_every=self.measure_every,
            )
            for seed in range(self.seeds)
            for treatment, values in settings
        ]
