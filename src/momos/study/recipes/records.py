"""The smallest files at a given accuracy, held against published ones."""

from dataclasses import field, replace
from typing import ClassVar

from momos.study.cell import Cell
from momos.study.recipes.recipe import Recipe, Several, Variation, dense_start, each
from momos.study.recipes.sizes import presets
from momos.study.schema import (
    Count,
    Fact,
    Number,
    Object,
    Positive,
    Size,
    checked,
    value,
)


@value
class Recording:
    """Settings of `records`, named like its fields.

    `learned` are those of learned motifs beside the target.
    """

    seeds: Size = 3
    epochs: Positive | None = None
    tuning: Positive | None = None
    targets: Several[Size] = (8000, 4000)
    learned: Object = field(default_factory=lambda: {"ramp": 0.2, "rate_weight": 1e-6})
    learning_rate: Positive | None = None
    bits: Several[Size] = ()
    sparsities: Several[Number] = ()


@value
class Records(Recipe):
    """How small can a file be? Motifs that are whole numbers, trained towards sizes in bytes.

    For each seed one dense network is trained for `epochs`. From it, with it as a teacher, files
    of each of `targets` are trained for `tuning` epochs; so are, with `others`, pruning and
    quantization as the task's preset says. What is None, or 0 seeds, is as the preset says.
    """

    name: ClassVar[str] = "records"
    seeds: Count = 0
    tuning: Positive | None = None
    targets: Several[Size] | None = None
    others: Fact = True

    def cells(self) -> list[Cell]:
        preset = checked(Recording, presets("records").get(self.task, {}))
        epochs = preset.epochs if self.epochs is None else self.epochs
        tuning = preset.tuning if self.tuning is None else self.tuning
        cells = []
        for seed in range(self.seeds or preset.seeds):
            dense = replace(dense_start(self.task, seed, epochs), controls=0)
            cells.append(dense)
            cells += [each.of(dense, tuning) for each in self._variations(preset)]
        return cells

    def _variations(self, preset: Recording) -> list[Variation]:
        targets = preset.targets if self.targets is None else self.targets
        learned = preset.learned | {"whole": True, "learning_rate": preset.learning_rate}
        found = each("learned", "target_bytes", targets, **learned)
        if self.others:
            found += each("prune", "sparsity", preset.sparsities)
            found += each("quantize_aware", "bits", preset.bits)
        return found
