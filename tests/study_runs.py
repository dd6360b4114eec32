"""Run folders that nobody ran: every recipe, with numbers that follow from the cells' keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

import momos
from momos.study.cell import Cell, ordered
from momos.study.recipes.questions import Capacity, Compressors, Grokking, Simplify, Usage
from momos.study.recipes.recipe import Recipe
from momos.study.recipes.sizes import Ablations, Sizes
from momos.study.store import HISTORY, NOBODY, RESULT, begin, write_json, write_lines
from networks import projected

NUM_WEIGHTS = 2410
ENVIRONMENT = {
    "versions": {"momos": "0.1.0", "torch": "2.13.0"},
    "commit": "abc1234",
    "machine": {"processor": "made up", "cores": 2, "threads": 1},
    "when": "2026-11-26T00:00:00+00:00",
}
MEASURES = {
    "signs, order 4": ("code", 1.0),
    "4-bit codes": ("code", 4.1),
    "BDM": ("score", 6.4),
}
RECIPES: tuple[Recipe, ...] = (
    Simplify(seeds=3, epochs=4),
    Simplify(seeds=3, published=True),
    Compressors(seeds=3, tuning=2, sparsities=(0.5,), bits=(2,), rate_weights=(0.3,)),
    Capacity(seeds=3, block_sizes=(2, 8), capacities=(0.01, 0.1)),
    Usage(seeds=3, rate_weights=(0.8,)),
    Grokking(epochs=8, record_every=1, measure_every=2),
    Sizes(seeds=3, rate_weights=(0.7, 3.0), bits=(2, 3), sparsities=(0.9,), more=False),
    Ablations(seeds=3, tuning=20, ingredients=("no scales",)),
)


def share(cell: Cell, place: int) -> float:
    """A number from 0 to 1 of the cell's own."""
    return int(cell.key[place : place + 3], 16) / 4095


def row(name: str, part: float, *, seed: int) -> dict[str, Any]:
    """A row of a measure, as `momos.measure` gives it, `part` of it at initialization."""
    kind, level = MEASURES[name]
    initial = level * NUM_WEIGHTS * (1 + 0.002 * seed)
    value = part * initial
    ordered_ = name != "4-bit codes"
    return {
        "name": name,
        "kind": kind,
        "view": "{−, 0, +}",
        "unit": "bits" if kind == "code" else "score",
        "about": "made up",
        "num_weights": NUM_WEIGHTS,
        "raw_bits": 32 * NUM_WEIGHTS,
        "value": value,
        "unavailable": "",
        "ordered": ordered_,
        "init_value": initial,
        "tensor": "",
        "bits_per_weight": value / NUM_WEIGHTS if kind == "code" else None,
        "shuffled_mean": 1.04 * value if ordered_ else None,
        "shuffled_deviation": 0.01 * value if ordered_ else None,
        "shuffled_z": -4.0 if ordered_ else None,
        "shuffled_repeats": 10 if ordered_ else None,
        "arrangement": part**0.25,
        "value_distribution": part**0.75,
        "ratio": part,
    }


def history(cell: Cell, metric: float, part: float) -> list[dict[str, Any]]:
    lines = []
    for epoch in (0, 1, 2, 4, 8):
        progress = 1 - 0.4**epoch
        line: dict[str, Any] = {"epoch": epoch, "train_loss": 2.3 * 0.8**epoch or None}
        line["metric"] = 0.1 + (metric - 0.1) * progress
        if cell.measure_every:
            rows = [
                row(name, 1 - (1 - part) * progress, seed=cell.seed) for name in MEASURES
            ]
            kept = ("value", "bits_per_weight", "shuffled_mean", "shuffled_deviation")
            line["measures"] = {r["name"]: {k: r[k] for k in kept} for r in rows}
            if cell.treatment in ("sampled", "learned"):
                usage = [900, 400, 120, 60, 30, 9, 3, 0]
                line["usage"] = [round(count ** (0.8 + epoch / 40)) for count in usage]
        lines.append(line)
    return lines


def write_made_up(
    place: Path, cell: Cell, recipe: Any, others: Mapping[str, Any] | None = None
) -> Path:
    """A finished run of a cell."""
    folder = place / cell.folder
    begin(folder, cell, recipe=recipe, environment=ENVIRONMENT)
    part = 0.4 + 0.6 * share(cell, 0) if cell.settings else 0.9 + 0.05 * share(cell, 0)
    metric = 0.94 + 0.05 * share(cell, 3)
    mosaic = cell.treatment in ("sampled", "learned")
    bits = {"dense": 30, "published": 30, "learned": 2}.get(cell.treatment, 4)
    length = bits * NUM_WEIGHTS * (0.5 + share(cell, 6) / 2)
    if cell.treatment == "learned" and cell.measure_every:
        network = projected(
            lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
            seed=cell.seed,
            num_motifs=40,
        )
        length = 8 * momos.save(network, folder / "network.momos").num_bytes
    name = "network.momos" if (folder / "network.momos").exists() else "network.bin"
    bound = {"bound": 1.1 * length, "entropy": 1.05 * length} if mosaic else {}
    write_lines(folder / HISTORY, history(cell, metric, part))
    result = {
        "metric_name": "accuracy",
        "metric": metric,
        "higher_is_better": True,
        "num_weights": NUM_WEIGHTS,
        "file": name,
        "lengths": {"dense": 32 * NUM_WEIGHTS, "file": length} | bound,
        "measures": [row(name, part, seed=cell.seed) for name in MEASURES],
        "seconds": 12.5 + cell.seed,
    }
    write_json(folder / RESULT, result | dict(others or {}))
    return folder


def write_plane(place: Path) -> None:
    ends = [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    plane = {
        "title": "digits, seed 0: training loss around dense network and mosaic",
        "x": ends,
        "y": ends[1:],
        "loss": [[0.05 + x * x * (x - 1) ** 2 + y * y for x in ends] for y in ends[1:]],
        "points": {"start": [0.4, 1.2], "dense": [0.0, 0.0], "mosaic": [1.0, 0.0]},
        "lines": [
            {"from": "dense", "to": "mosaic", "loss": [0.05, 0.1125, 0.05]},
            {"from": "start", "to": "mosaic", "loss": [1.5, 0.7, 0.05]},
        ],
        "unit": "nats",
    }
    (place / "plane").mkdir(parents=True)
    write_json(place / "plane" / "plane.json", plane)


def write_everything(place: Path) -> Path:
    """Runs of every recipe, a plane, and a run that failed."""
    for recipe in RECIPES:
        for cell in ordered(recipe.runs()):
            if not (place / cell.folder).exists():
                write_made_up(place, cell, recipe.asked)
    write_plane(place)
    failed = Cell(task="digits", seed=90)
    begin(place / failed.folder, failed, recipe=NOBODY, environment=ENVIRONMENT)
    (place / failed.folder / "failure.txt").write_text("MemoryError: no memory")
    return place
