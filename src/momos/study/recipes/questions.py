"""What the study asks: each question is a recipe."""

from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar

from momos.study.cell import PUBLISHED, Cell
from momos.study.plane import Wanted
from momos.study.recipes.recipe import (
    Recipe,
    Several,
    Variation,
    dense_start,
    each,
    is_given,
)
from momos.study.schema import Count, Fact, Name, Number, Positive, Size, Text, value

# docs/study.md says how these settings were found, on training samples alone.
SHOWN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dense", {}),
    ("sampled", {"block_size": 2, "capacity": 0.05, "bits": 32}),
    ("sampled", {"block_size": 4, "num_motifs": 256, "bits": 32}),
    ("learned", {"rate_weight": 0.72, "every": 2, "dense": 0.4, "ramp": 0.8}),
)


@value
class Demo(Recipe):
    """What do mosaics cost, and save? One network dense, as two mosaics, with learned motifs."""

    name: ClassVar[str] = "demo"
    seeds: Size = 3
    epochs: Positive | None = 25

    def cells(self) -> list[Cell]:
        return [
            self.cell(seed, treatment=treatment, settings=settings, controls=2)
            for seed in range(self.seeds)
            for treatment, settings in SHOWN
        ]


@value
class Simplify(Recipe):
    """Does training simplify? Start against trained network, with and without weight decay.

    With `published`, and for a task whose network is published, nothing is trained: starts from
    the seeds against the weights that the network's authors published.
    """

    name: ClassVar[str] = "simplify"
    network: Text = ""
    published: Fact = False
    weight_decays: Several[Number] = (0.0, 0.01)
    measure_every: Count = 10

    def __post_init__(self) -> None:
        if self.published and self.epochs is not None:
            raise ValueError(
                f"epochs must not be given for published weights, got {self.epochs}"
            )

    def cells(self) -> list[Cell]:
        if self.published or is_given(self.task, self.network, self.epochs):
            return [
                Cell(task=self.task, network=self.network, treatment=PUBLISHED, seed=seed)
                for seed in range(self.seeds)
            ]
        measured = {"network": self.network, "measure_every": self.measure_every}
        return [
            self.cell(seed, weight_decay=weight_decay, **measured)
            for seed in range(self.seeds)
            for weight_decay in self.weight_decays
        ]


@value
class Compressors(Recipe):
    """Do pruning, quantization, distillation and MoMos simplify? All from one dense start.

    Every treatment, and the dense network that they are compared with, starts from the dense
    network of its seed (or, with `published`, its authors' weights) and has it as a teacher, for
    `tuning` epochs. Pruning is gradual to `sparsities` and at once to `one_shot`; `levels` are
    those of MoMos + QAT. The `student` starts afresh.
    """

    name: ClassVar[str] = "compressors"
    network: Text = ""
    published: Fact = False
    tuning: Positive | None = None
    sparsities: Several[Number] = (0.5, 0.9)
    one_shot: Several[Number] = (0.5,)
    bits: Several[Size] = (2, 4, 8)
    capacities: Several[Positive] = (0.05,)
    levels: Several[Size] = (15,)
    rate_weights: Several[Number] = (0.3, 1.2, 3.0)
    student: Text = "mlp:64-64"

    def cells(self) -> list[Cell]:
        return [cell for seed in range(self.seeds) for cell in self._of(seed)]

    def _of(self, seed: int) -> list[Cell]:
        dense = dense_start(self.task, seed, self.epochs, self.network, self.published)
        treated = [variation.of(dense, self.tuning) for variation in self._variations()]
        if self.student:
            treated.append(self.cell(seed, network=self.student, teacher=dense))
        return [dense, *treated]

    def _variations(self) -> list[Variation]:
        pairs = {"block_size": 2}
        return [
            Variation(treatment="dense"),
            *each("prune", "sparsity", self.sparsities),
            *each("prune", "sparsity", self.one_shot, schedule="one-shot"),
            *each("quantize_aware", "bits", self.bits),
            *each("sampled", "capacity", self.capacities, **pairs),
            *chain.from_iterable(
                each("sampled", "capacity", self.capacities, **pairs, levels=levels)
                for levels in self.levels
            ),
            *each("learned", "rate_weight", self.rate_weights, sensitive=True),
        ]


@value
class Capacity(Recipe):
    """How accurate are mosaics of each capacity and block size? From scratch, motifs sampled."""

    name: ClassVar[str] = "capacity"
    network: Text = ""
    block_sizes: Several[Size] = (2, 4, 8)
    capacities: Several[Positive] = (0.005, 0.01, 0.05, 0.1, 0.2)
    every: Count = 0  # steps between projections; 0: one epoch

    def cells(self) -> list[Cell]:
        every = {"every": self.every} if self.every else {}
        settings = [
            {"block_size": size, "capacity": capacity} | every
            for size in self.block_sizes
            for capacity in self.capacities
        ]
        starts = [self.cell(seed, network=self.network) for seed in range(self.seeds)]
        return [
            replace(dense, **treated)
            for dense in starts
            for treated in (
                {},
                *({"treatment": "sampled", "settings": s} for s in settings),
            )
        ]


@value
class Usage(Recipe):
    """How are motifs used through training? Sampled as in the paper, and learned."""

    name: ClassVar[str] = "usage"
    network: Text = ""
    seeds: Size = 3
    block_size: Size = 2
    capacity: Positive = 0.05
    rate_weights: Several[Number] = (0.0, 0.8)
    measure_every: Count = 5

    def cells(self) -> list[Cell]:
        sampled = {"block_size": self.block_size, "capacity": self.capacity}
        learned = [{"rate_weight": rate, "dense": 0.25} for rate in self.rate_weights]
        treated = [("sampled", sampled), *(("learned", own) for own in learned)]
        measured = {"network": self.network, "measure_every": self.measure_every}
        return [
            self.cell(seed, treatment=treatment, settings=settings, **measured)
            for seed in range(self.seeds)
            for treatment, settings in treated
        ]


@value
class Plane(Recipe):
    """Are dense network and mosaic in one basin? The loss on the plane through both and their start.

    `batches` of the training data give the loss, at `size` × `size` places; one plane a seed.
    """

    name: ClassVar[str] = "plane"
    network: Text = ""
    seeds: Size = 1
    tuning: Positive | None = None
    rate_weight: Number = 1.2
    size: Size = 21
    batches: Size = 8

    def cells(self) -> list[Cell]:
        return [cell for seed in range(self.seeds) for cell in self._of(seed).values()]

    def planes(self) -> list[Wanted]:
        cells = [
            {name: self.shared(cell) for name, cell in self._of(seed).items()}
            for seed in range(self.seeds)
        ]
        return [Wanted(own, self.size, self.batches) for own in cells]

    def _of(self, seed: int) -> dict[str, Cell]:
        start = self.cell(seed, network=self.network)
        dense = replace(start, epochs=self.tuning, start=start, teacher=start)
        settings = {"rate_weight": self.rate_weight, "sensitive": True}
        mosaic = replace(dense, treatment="learned", settings=settings)
        return {"start": start, "dense": dense, "mosaic": mosaic}


@value
class Grokking(Recipe):
    """Does complexity fall when a network generalizes late? (a + b) mod 97, arXiv 2605.15551.

    Width 256 is for a CPU; the paper's is 512, for a GPU.
    """

    name: ClassVar[str] = "grokking"
    task: Name = "mod97"
    seeds: Size = 1
    epochs: Positive | None = 5000
    width: Size = 256
    weight_decays: Several[Number] = (1.0,)
    record_every: Size = 50
    measure_every: Count = 250

    def cells(self) -> list[Cell]:
        kept = {"record_every": self.record_every, "measure_every": self.measure_every}
        network = f"grokking:{self.width}"
        return [
            self.cell(seed, network=network, weight_decay=weight_decay, **kept)
            for seed in range(self.seeds)
            for weight_decay in self.weight_decays
        ]
