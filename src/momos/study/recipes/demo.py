"""The demo: one MLP dense, as two mosaics of the paper, and with learned motifs."""

from dataclasses import dataclass
from typing import Any, ClassVar

from momos.study.cells import Cell
from momos.study.recipes.recipe import Recipe

# The task's learning rate and batches were tried on 287 of the 1437 training digits, never on the
# test digits; accuracy in %, mean of 12 seeds (of 4 for the batches). Dense: learning rate 2e-3
# 98.0, 4e-3 98.0, 6e-3 97.7, 8e-3 97.5, 12e-3 97.3; at 4e-3 batches of 32 97.8, of 64 97.9. Dense
# being indifferent, the larger rate and the smaller batch were taken: mosaics gain where weights
# move far between two projections (s=4, k=256: 95.8 at 2e-3, 97.0 at 4e-3, 95.9 with batches of
# 64).
#
# At s=4, k=256 the three selections were equal, on the same 287 digits over 12 seeds: "sample"
# 97.0 ± 0.7 with 226 motifs used, "distinct" 97.1 ± 0.8 with 256, "kmeans" 97.0 ± 0.7 with 256
# and twice the time. So it is the paper's own.
#
# Learned motifs, on 287 of the training digits, 3 seeds, dense 98.1 %: rate weight 0.8, dense for
# the first quarter, 97.9 % and a file 41 times smaller; dense for the first half 97.9 % and 47
# times, the same at every other step, in less time; rate weight 0.7 98.0 % and 38 times, 97.4 %
# and 43 times. All that with 40 epochs; the demo has 25, to be quick.
#
# With 25 epochs (3 seeds: mean at the end, times smaller, and the lowest that each seed fell to
# after motifs started): rate weight 0.8, dense for 0.5 of the steps and the whole rate from 0.6 on
# 97.2 %, 45, 92.0, 86.1, 96.2; the whole rate from 0.8 on 97.6 %, 54, 95.5, 94.4, 96.5. Dense for
# 0.4, whole from 0.8 on: rate weight 0.75 97.6 %, 49, 96.5, 95.8, 96.9; 0.72 97.8 %, 47, 96.9,
# 96.5, 96.2; 0.7 97.9 %, 46, 96.9, 96.2, 96.5. So what fell was not k-means' doing, but that of a rate
# that grew faster than weights follow; whole from 0.85 on it is late, where they move no more
# (rate weight 0.7, dense for 0.5: 97.1 %, 50).
TREATMENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dense", {}),
    ("sampled", {"block_size": 2, "capacity": 0.05, "bits": 32}),
    ("sampled", {"block_size": 4, "num_motifs": 256, "bits": 32}),
    ("learned", {"rate_weight": 0.72, "every": 2, "dense": 0.4, "ramp": 0.8}),
)


@dataclass(frozen=True, kw_only=True)
class Demo(Recipe):
    """What do mosaics cost, and save? One network dense, as two mosaics, with learned motifs."""

    name: ClassVar[str] = "demo"
    seeds: int = 3
    epochs: float | None = 25

    def cells(self) -> list[Cell]:
        """Seeds outside, so that early results compare all treatments."""
        return [
            Cell(
                task=self.task,
                treatment=treatment,
                settings=settings,
                seed=seed,
                epochs=self.epochs,
                controls=2,
            )
            for seed in range(self.seeds)
            for treatment, settings in TREATMENTS
        ]
