"""Cells: what one run of the study is, before it is run.

Equal cells are the same run, so each is run once, whichever recipes and sweeps it is part of. A
cell may start from the network of another, or have it as a teacher: that one is run first.
"""

import json
from collections.abc import Iterable
from dataclasses import MISSING, asdict, field, fields
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import AfterValidator
from typing_extensions import TypedDict

from momos.study import schema
from momos.study.schema import checked, value

DENSE = "dense"
PUBLISHED = "published"  # the treatment that trains nothing
PLAIN = (DENSE, PUBLISHED)  # treatments that make nothing simpler but by training
Keep = Literal["last", "best"]
Precision = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]
Compiled = Literal["no", "yes", "graphs"]
OPTIONS = (
    *("validation", "patience", "keep", "precision", "channels_last"),
    *("device", "compiled", "devices"),
)
Controls = Annotated[
    int, schema.kind("0, or at least 2", lambda v: type(v) is int and v >= 0 and v != 1)
]
Share = Annotated[
    float,
    schema.kind("at least 0 and below 1", lambda v: type(v) in (int, float) and 0 <= v < 1),
]


class Plotted(TypedDict, total=False):
    """Settings that reports reckon with."""

    block_size: schema.Size
    num_motifs: schema.Size
    capacity: schema.Positive


def _with_plotted(settings: dict[str, Any]) -> dict[str, Any]:
    names = settings.keys() & Plotted.__annotations__
    checked(Plotted, {name: settings[name] for name in names})
    return settings


Settings = Annotated[schema.Object, AfterValidator(_with_plotted)]


@value
class Cell:
    """One network, one treatment, one seed.

    `network` names one of `tasks.zoo.NETWORKS`; empty, or None for `epochs`, `learning_rate` and
    `weight_decay`, is the task's own. Every `record_every` epochs the history gets a line and the
    run a checkpoint; every `measure_every` (0: never) complexity and usage of motifs as well.
    `controls` are the shuffles that the finished network is compared with. `start` and `teacher`
    are cells whose trained networks those are.

    `validation` is the share of the training samples that is held out. After `patience` lines
    without a better network on them (0: never), training stops. `precision` is that of the
    forward pass in training, `channels_last` the memory format there, `device` the kind of device,
    and `compiled` whether by torch.compile, or also with CUDA graphs. Batches are split over
    `devices`, which is how many of that kind train it together.
    """

    task: schema.Name
    treatment: schema.Name = DENSE
    settings: Settings = field(default_factory=dict)
    seed: schema.Count = 0
    network: schema.Text = ""
    epochs: schema.Positive | None = None
    learning_rate: schema.Positive | None = None
    weight_decay: schema.Number | None = None
    record_every: schema.Size = 1
    measure_every: schema.Count = 0
    controls: Controls = 10
    validation: Share = 0.0
    patience: schema.Count = 0
    keep: Keep = "last"
    precision: Precision = "float32"
    channels_last: schema.Fact = False
    device: Device = "cpu"
    compiled: Compiled = "no"
    devices: schema.Size = 1
    start: "Cell | None" = None
    teacher: "Cell | None" = None

    def __post_init__(self) -> None:
        for name in ("patience", "keep"):
            if not self.validation and name in self.options:
                raise ValueError(
                    f"validation must be above 0 for {name}={getattr(self, name)}, which "
                    f"goes by samples held out, got {self.validation}"
                )
        for name in ("start", "teacher"):
            other = getattr(self, name)
            if other and other.task == self.task and other.validation < self.validation:
                raise ValueError(
                    f"validation of the {name} must be at least the cell's, "
                    f"{self.validation}, got {other.validation}: it would have been trained "
                    "on samples held out"
                )

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that identify the cell.

        Defaults have no part in it, so that fields to come leave old keys alone.
        """
        text = json.dumps(_given(asdict(self)), sort_keys=True, ensure_ascii=True)
        return sha256(text.encode()).hexdigest()[:12]

    @property
    def options(self) -> dict[str, Any]:
        """How it is trained otherwise than by default, whatever the treatment."""
        found = {name: getattr(self, name) for name in OPTIONS}
        return {name: given for name, given in found.items() if given != _DEFAULTS[name]}

    @property
    def option_words(self) -> list[str]:
        return [f"{name}={given}" for name, given in self.options.items()]

    @property
    def label(self) -> str:
        """What makes the cell differ from others of its task, seed apart."""
        words = [self.network, self.treatment]
        words += [f"{name}={given}" for name, given in self.settings.items()]
        if self.weight_decay is not None:
            words.append(f"weight_decay={self.weight_decay:g}")
        words += self.option_words
        return " ".join(word for word in words if word)

    @property
    def folder(self) -> str:
        """The name of its folder."""
        words = [self.task, self.network, self.treatment, f"seed-{self.seed}", self.key]
        return "-".join(
            "".join(c if c.isalnum() else "-" for c in word) for word in words if word
        )

    @property
    def needs(self) -> tuple["Cell", ...]:
        """The cells that must have been run before."""
        return tuple(cell for cell in (self.start, self.teacher) if cell is not None)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """What differs from the defaults in a cell, and in the cells inside it."""
    given = {name: each for name, each in values.items() if each != _DEFAULTS.get(name)}
    cells = {name: _given(given[name]) for name in ("start", "teacher") if name in given}
    return given | cells


_DEFAULTS: dict[str, Any] = {
    known.name: {} if known.name == "settings" else known.default
    for known in fields(Cell)  # type: ignore[arg-type]
    if known.name == "settings" or known.default is not MISSING
}


def ordered(cells: Iterable[Cell]) -> list[Cell]:
    """`cells` and all that they need, each once and after those it needs."""
    found: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        for other in cell.needs:
            add(other)
        found.setdefault(cell.key, cell)

    for cell in cells:
        add(cell)
    return list(found.values())
