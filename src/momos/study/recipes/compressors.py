"""Do compressors simplify, and does MoMos?"""

from dataclasses import dataclass
from typing import ClassVar

from momos.study.cells import Cell
from momos.study.recipes.recipe import Recipe
from momos.study.recipes.variations import Variation, dense_start, each


@dataclass(frozen=True, kw_only=True)
class Compressors(Recipe):
    """Do pruning, quantization, distillation and MoMos simplify? All from one dense start.

    Every treatment starts from the dense network of its seed (or, with `published`, from the
    weights that its authors published) and has it as a teacher, for `tuning` epochs; so has the dense network that they are compared with. Pruning is gradual to
    `sparsities` and at once to `one_shot`; `levels` are those of MoMos + QAT. The student, of the
    hidden widths `student`, starts afresh.
    """

    name: ClassVar[str] = "compressors"
    network: str = ""
    published: bool = False
    tuning: float | None = None
    sparsities: tuple[float, ...] = (0.5, 0.9)
    one_shot: tuple[float, ...] = (0.5,)
    bits: tuple[int, ...] = (2, 4, 8)
    capacities: tuple[float, ...] = (0.05,)
    levels: tuple[int, ...] = (15,)
    rate_weights: tuple[float, ...] = (0.3, 1.2, 3.0)
    student: str = "mlp:64-64"

    def cells(self) -> list[Cell]:
        return [cell for seed in range(self.seeds) for cell in self._of(seed)]

    def _of(self, seed: int) -> list[Cell]:
        dense = dense_start(
            self.task, seed, self.epochs, network=self.network, published=self.published
        )
        treated = [v.of(dense, self.tuning) for v in self._variations()]
        student = Cell(
            task=self.task,
            network=self.student,
            seed=seed,
            epochs=self.epochs,
            teacher=dense,
        )
        return [dense, *treated, *([student] if self.student else [])]

    def _variations(self) -> list[Variation]:
        return [
            Variation(treatment="dense"),
            *each("prune", "sparsity", self.sparsities),
            *each("prune", "sparsity", self.one_shot, schedule="one-shot"),
            *each("quantize_aware", "bits", self.bits),
            *each("sampled", "capacity", self.capacities, block_size=2),
            *(
                variation
                for levels in self.levels
                for variation in each(
                    "sampled", "capacity", self.capacities, block_size=2, levels=levels
                )
            ),
            *each("learned", "rate_weight", self.rate_weights, sensitive=True),
        ]
