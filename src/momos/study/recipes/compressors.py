"""Do compressors simplify, and does MoMos?"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from momos.study.cells import Cell
from momos.study.recipes.recipe import Recipe
from momos.study.treatments import PUBLISHED


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
        scratch = Cell(task=self.task, network=self.network, seed=seed, epochs=self.epochs)
        dense = scratch
        if self.published:
            dense = replace(scratch, treatment=PUBLISHED, epochs=None)
        tuned = replace(scratch, epochs=self.tuning, start=dense, teacher=dense)
        treated = [
            replace(tuned, treatment=name, settings=settings)
            for name, settings in self._treatments()
        ]
        student = [replace(scratch, network=self.student, teacher=dense)]
        return [dense, tuned, *treated, *(student if self.student else [])]

    def _treatments(self) -> list[tuple[str, dict[str, Any]]]:
        learned = {"sensitive": True}
        return [
            *(("prune", {"sparsity": sparsity}) for sparsity in self.sparsities),
            *(
                ("prune", {"sparsity": sparsity, "schedule": "one-shot"})
                for sparsity in self.one_shot
            ),
            *(("quantize_aware", {"bits": bits}) for bits in self.bits),
            *(
                ("sampled", {"block_size": 2, "capacity": capacity})
                for capacity in self.capacities
            ),
            *(
                ("sampled", {"block_size": 2, "capacity": capacity, "levels": levels})
                for capacity in self.capacities
                for levels in self.levels
            ),
            *(
                ("learned", {"rate_weight": rate_weight} | learned)
                for rate_weight in self.rate_weights
            ),
        ]
