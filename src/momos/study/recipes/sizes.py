"""Accuracy against file size, and what each ingredient of learned motifs is worth.

Presets say what both recipes run on a task where nothing else is given. A task that has none
gets the defaults.
"""

import tomllib
from dataclasses import field, replace
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from momos.study import schema
from momos.study.cell import Cell
from momos.study.recipes.recipe import (
    Recipe,
    Settings,
    Several,
    Variation,
    dense_start,
    each,
)
from momos.study.schema import checked, value

REFERENCE = "reference"  # the row of ablations that the others are compared with
PAIRS: tuple[Settings, ...] = (  # block size and number of motifs
    {"block_size": 2, "capacity": 0.05},
    *({"block_size": size, "num_motifs": 256} for size in (2, 4, 8)),
)


@value
class Sizing:
    """Settings of `sizes`, named like its fields.

    `learned` are those of learned motifs beside the rate weight, which train at `learning_rate`;
    `quantized` those of quantization beside the bits. `more` is trained as well. Epochs and
    rates are the task's own where None.
    """

    seeds: schema.Size = 3
    epochs: schema.Positive | None = None
    tuning: schema.Positive | None = None
    learned: schema.Object = field(default_factory=lambda: {"sensitive": True})
    learning_rate: schema.Positive | None = None
    rate_weights: Several[schema.Number] = (0.05, 0.3, 0.7, 1.2, 2.0, 3.0, 5.0, 8.0)
    bits: Several[schema.Size] = (2, 3, 4, 8)
    quantized: schema.Object = field(default_factory=dict)
    sparsities: Several[schema.Number] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
    sampled: Several[schema.Object] = (*PAIRS, {"block_size": 8, "num_motifs": 32})
    more: tuple[Variation, ...] = ()


@value
class Ablating:
    """Settings of `ablations`, named like its fields.

    `reference` is what learned motifs have, beside the rate weight, and `changes` what is
    otherwise in each row; with `only`, these rows are run.
    """

    seeds: schema.Size = 3
    epochs: schema.Positive | None = None
    tuning: schema.Positive | None = None
    rate_weight: schema.Number = 1.2
    reference: schema.Object = field(default_factory=lambda: {"sensitive": True})
    changes: schema.Object = field(default_factory=dict)
    only: Several[schema.Name] | None = None


@cache
def presets(recipe: str) -> dict[str, dict[str, Any]]:
    """What the file of presets has for a recipe, by task."""
    text = files("momos.study.recipes").joinpath("presets.toml").read_text("utf-8")
    return tomllib.loads(text)[recipe]


def sizing(task: str) -> Sizing:
    """The preset of `sizes` for a task."""
    return checked(Sizing, presets("sizes").get(task, {}))


def ablating(task: str) -> Ablating:
    """The preset of `ablations` for a task; changes of any task come first."""
    known = presets("ablations")
    own = checked(Ablating, known.get(task, {}))
    changes = known["any"]["changes"] | own.changes
    names = changes if own.only is None else own.only
    return replace(own, changes={name: changes[name] for name in names})


@value
class Sizes(Recipe):
    """How accurate are files of each size? Learned motifs, QAT, pruning, sampling, from one start.

    For each seed one dense network is trained for `epochs`, or taken as published. Everything
    else starts from it and has it as a teacher, for `tuning` epochs: learned motifs of each rate
    weight, quantization to each of `bits`, pruning to each of `sparsities`, sampled motifs with
    each of `sampled` as settings, and with `more` what else the task's preset names. What is
    None, or 0 seeds, is as the preset says.
    """

    name: ClassVar[str] = "sizes"
    seeds: schema.Count = 0
    tuning: schema.Positive | None = None
    rate_weights: Several[schema.Number] | None = None
    bits: Several[schema.Size] | None = None
    sparsities: Several[schema.Number] | None = None
    sampled: Several[schema.Object] | None = None
    more: schema.Fact = True

    def cells(self) -> list[Cell]:
        preset = sizing(self.task)
        epochs, tuning = self._or("epochs", preset), self._or("tuning", preset)
        variations, cells = self._variations(preset), []
        for seed in range(self.seeds or preset.seeds):
            dense = dense_start(self.task, seed, epochs)
            cells.append(dense)
            cells += [v.of(dense, tuning) for v in variations if not (v.once and seed)]
        return cells

    def _or(self, name: str, preset: Sizing) -> Any:
        own = getattr(self, name)
        return getattr(preset, name) if own is None else own

    def _variations(self, preset: Sizing) -> list[Variation]:
        rates = self._or("rate_weights", preset)
        learned = preset.learned | {"learning_rate": preset.learning_rate}
        sampled = self._or("sampled", preset)
        return [
            *each("learned", "rate_weight", rates, **learned),
            *each("quantize_aware", "bits", self._or("bits", preset), **preset.quantized),
            *each("prune", "sparsity", self._or("sparsities", preset)),
            *(Variation(treatment="sampled", settings=pair) for pair in sampled),
            *(preset.more if self.more else ()),
        ]


@value
class Ablations(Recipe):
    """What is each ingredient of learned motifs worth? A reference, and one change to it at a time.

    All start from one dense network of their seed, trained for `epochs` or as published, for
    `tuning` epochs. `ingredients` are the rows wanted in addition to the reference. What is None,
    or 0 seeds, is as the task's preset says.
    """

    name: ClassVar[str] = "ablations"
    seeds: schema.Count = 0
    tuning: schema.Positive | None = None
    rate_weight: schema.Number | None = None
    ingredients: Several[schema.Name] | None = None

    def __post_init__(self) -> None:
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
        return ablating(self.task)

    def _variations(self) -> dict[str, Variation]:
        preset = self._preset
        rate_weight = preset.rate_weight if self.rate_weight is None else self.rate_weight
        settings = {"rate_weight": rate_weight} | preset.reference
        reference = Variation(treatment="learned", settings=settings)
        changed = {
            name: replace(reference, settings=settings | change)
            for name, change in preset.changes.items()
        }
        return {
            REFERENCE: reference,
            "no teacher": replace(reference, taught=False),
        } | changed
