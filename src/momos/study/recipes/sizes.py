"""Accuracy against file size, and what each ingredient of learned motifs is worth.

Presets say what both recipes run on a task where nothing else is given. A task that has none
gets the defaults.
"""

import tomllib
from dataclasses import field, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar, TypeVar

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

P = TypeVar("P")
REFERENCE = "reference"  # the row of ablations that the others are compared with
PAIRS: tuple[Settings, ...] = (  # block size and number of motifs
    {"block_size": 2, "capacity": 0.05},
    *({"block_size": size, "num_motifs": 256} for size in (2, 4, 8)),
)


@value
class Sizing:
    """Settings of `sizes`, named like its fields.

    `learned` are those of learned motifs, which train at `learning_rate`, and `quantized` those
    of quantization, apart from what is varied. `more` is trained as well.
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


def filled(preset: P, recipe: Recipe) -> P:
    """A preset, with what a recipe says otherwise: whatever is not None, nor 0 seeds."""
    shared = {f.name for f in fields(recipe)} & vars(preset).keys() - {"more"}  # type: ignore[arg-type]
    given = {name: getattr(recipe, name) for name in shared}
    said = {name: own for name, own in given.items() if own is not None}
    said = {name: own for name, own in said.items() if (name, own) != ("seeds", 0)}
    return replace(preset, **said)  # type: ignore[type-var]


@value
class Sizes(Recipe):
    """How accurate are files of each size? Learned motifs, QAT, pruning, sampling, from one start.

    For each seed one dense network is trained for `epochs`, or taken as published. All else starts
    from it and has it as a teacher, for `tuning` epochs; `sampled` are settings, and `more` is
    what else the task's preset names. What is None, or 0 seeds, is as the preset says.
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
        preset = filled(sizing(self.task), self)
        variations, cells = self._variations(preset), []
        for seed in range(preset.seeds):
            dense = dense_start(self.task, seed, preset.epochs)
            own = [v.of(dense, preset.tuning) for v in variations if not (v.once and seed)]
            cells += [dense, *own]
        return cells

    def _variations(self, preset: Sizing) -> list[Variation]:
        learned = preset.learned | {"learning_rate": preset.learning_rate}
        return [
            *each("learned", "rate_weight", preset.rate_weights, **learned),
            *each("quantize_aware", "bits", preset.bits, **preset.quantized),
            *each("prune", "sparsity", preset.sparsities),
            *(Variation(treatment="sampled", settings=pair) for pair in preset.sampled),
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
        preset = filled(ablating(self.task), self)
        seeds = range(preset.seeds)
        starts = [dense_start(self.task, seed, preset.epochs) for seed in seeds]
        return {
            name: [variation.of(dense, preset.tuning) for dense in starts]
            for name, variation in self._variations().items()
            if self.ingredients is None or name in (REFERENCE, *self.ingredients)
        }

    def _variations(self) -> dict[str, Variation]:
        preset = filled(ablating(self.task), self)
        settings = {"rate_weight": preset.rate_weight} | preset.reference
        reference = Variation(treatment="learned", settings=settings)
        changed = {
            name: replace(reference, settings=settings | change)
            for name, change in preset.changes.items()
        }
        untaught = replace(reference, taught=False)
        return {REFERENCE: reference, "no teacher": untaught} | changed
