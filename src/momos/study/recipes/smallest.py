"""The smallest files at a given accuracy, held against published ones."""

from dataclasses import field, replace
from typing import ClassVar

from momos.study import schema
from momos.study.cell import DENSE, Cell
from momos.study.recipes.recipe import Recipe, Several, Variation, dense_start, each
from momos.study.recipes.sizes import filled, presets
from momos.study.schema import checked, value


@value
class Recording:
    """Settings of `records`, named like its fields.

    `learned` are those of learned motifs beside the target. With `further` the dense network is
    also trained on for `tuning` epochs, which is what others are then held against.
    """

    seeds: schema.Size = 3
    epochs: schema.Positive | None = None
    tuning: schema.Positive | None = None
    targets: Several[schema.Size] = (8000, 4000)
    learned: schema.Object = field(
        default_factory=lambda: {"ramp": 0.2, "rate_weight": 1e-6}
    )
    learning_rate: schema.Positive | None = None
    bits: Several[schema.Size] = ()
    sparsities: Several[schema.Number] = ()
    further: schema.Fact = False


@value
class Records(Recipe):
    """How small can a file be? Motifs that are whole numbers, trained towards sizes in bytes.

    For each seed one dense network is trained for `epochs`. From it, with it as a teacher, files
    of each of `targets` are trained for `tuning` epochs; so are, with `others`, pruning and
    quantization as the task's preset says. What is None, or 0 seeds, is as the preset says.
    """

    name: ClassVar[str] = "records"
    seeds: schema.Count = 0
    tuning: schema.Positive | None = None
    targets: Several[schema.Size] | None = None
    others: schema.Fact = True

    def cells(self) -> list[Cell]:
        preset = filled(checked(Recording, presets("records").get(self.task, {})), self)
        variations, cells = self._variations(preset), []
        for seed in range(preset.seeds):
            dense = replace(dense_start(self.task, seed, preset.epochs), controls=0)
            cells += [dense, *(each.of(dense, preset.tuning) for each in variations)]
        return cells

    def _variations(self, preset: Recording) -> list[Variation]:
        learned = preset.learned | {"whole": True, "learning_rate": preset.learning_rate}
        found = each("learned", "target_bytes", preset.targets, **learned)
        if preset.further:
            found.append(Variation(treatment=DENSE, learning_rate=preset.learning_rate))
        if self.others:
            found += each("prune", "sparsity", preset.sparsities)
            found += each("quantize_aware", "bits", preset.bits)
        return found
