"""What each ingredient of learned motifs is worth."""

from dataclasses import dataclass, replace
from typing import ClassVar

from momos.study.cells import Cell
from momos.study.recipes.presets import ABLATIONS, Ablating
from momos.study.recipes.recipe import Recipe
from momos.study.recipes.variations import Variation, dense_start

REFERENCE = "reference"  # the row that the others are compared with


@dataclass(frozen=True, kw_only=True)
class Ablations(Recipe):
    """What is each ingredient of learned motifs worth? A reference, and one change to it at a time.

    All start from one dense network of their seed, trained for `epochs` or as published, for
    `tuning` epochs. `ingredients` are the rows wanted beside the reference. What is None, or 0
    seeds, is as the task's preset says.
    """

    name: ClassVar[str] = "ablations"
    least_seeds: ClassVar[int] = 0
    seeds: int = 0
    tuning: float | None = None
    rate_weight: float | None = None
    ingredients: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self._variations()
        for name in self.ingredients or ():
            if name not in known:
                raise ValueError(
                    f"ingredients must be among {'; '.join(known)}, got {name!r}"
                )

    def cells(self) -> list[Cell]:
        rows = self.rows()
        return [cell for seed in zip(*rows.values(), strict=True) for cell in seed]

    def rows(self) -> dict[str, list[Cell]]:
        """The cells of each row of the table, one a seed."""
        preset = self._preset
        epochs = preset.epochs if self.epochs is None else self.epochs
        tuning = preset.tuning if self.tuning is None else self.tuning
        seeds = range(self.seeds or preset.seeds)
        starts = [dense_start(self.task, seed, epochs) for seed in seeds]
        return {
            name: [variation.of(dense, tuning) for dense in starts]
            for name, variation in self._variations().items()
            if self.ingredients is None or name in (REFERENCE, *self.ingredients)
        }

    @property
    def _preset(self) -> Ablating:
        return ABLATIONS.get(self.task, Ablating())

    def _variations(self) -> dict[str, Variation]:
        preset = self._preset
        rate_weight = preset.rate_weight if self.rate_weight is None else self.rate_weight
        settings = {"rate_weight": rate_weight} | preset.reference
        reference = Variation(treatment="learned", settings=settings)
        return {
            REFERENCE: reference,
            "no teacher": replace(reference, taught=False),
        } | {
            name: replace(reference, settings=settings | change)
            for name, change in preset.changes.items()
        }
