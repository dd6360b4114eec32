"""Accuracy against file size."""

from dataclasses import dataclass
from typing import Any, ClassVar

from momos.study.cells import Cell
from momos.study.recipes.presets import SIZES, Sizing
from momos.study.recipes.recipe import Recipe
from momos.study.recipes.variations import Variation, dense_start, each


@dataclass(frozen=True, kw_only=True)
class Sizes(Recipe):
    """How accurate are files of each size? Learned motifs, QAT, pruning, sampling, from one start.

    For each seed one dense network is trained for `epochs`, or taken as published. Everything
    else starts from it and has it as a teacher, for `tuning` epochs: learned motifs of each rate
    weight, quantization to each of `bits`, pruning to each of `sparsities`, sampled motifs with
    each of `sampled` as settings, and with `more` what else the task's preset names. What is
    None, or 0 seeds, is as the preset says.
    """

    name: ClassVar[str] = "sizes"
    least_seeds: ClassVar[int] = 0
    seeds: int = 0
    tuning: float | None = None
    rate_weights: tuple[float, ...] | None = None
    bits: tuple[int, ...] | None = None
    sparsities: tuple[float, ...] | None = None
    sampled: tuple[dict[str, Any], ...] | None = None
    more: bool = True

    def cells(self) -> list[Cell]:
        preset = SIZES.get(self.task, Sizing())
        epochs = preset.epochs if self.epochs is None else self.epochs
        tuning = preset.tuning if self.tuning is None else self.tuning
        variations, cells = self._variations(preset), []
        for seed in range(self.seeds or preset.seeds):
            dense = dense_start(self.task, seed, epochs)
            cells.append(dense)
            cells += [v.of(dense, tuning) for v in variations if not (v.once and seed)]
        return cells

    def _variations(self, preset: Sizing) -> list[Variation]:
        def chosen(name: str) -> tuple[Any, ...]:
            own = getattr(self, name)
            return getattr(preset, name) if own is None else own

        return [
            *each(
                "learned",
                "rate_weight",
                chosen("rate_weights"),
                learning_rate=preset.learning_rate,
                **preset.learned,
            ),
            *each("quantize_aware", "bits", chosen("bits"), **preset.quantized),
            *each("prune", "sparsity", chosen("sparsities")),
            *(Variation(treatment="sampled", settings=pair) for pair in chosen("sampled")),
            *(preset.more if self.more else ()),
        ]
