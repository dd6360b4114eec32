"""Finished runs that nobody ran."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from momos.study.cell import Cell
from momos.study.store import NOBODY, Finished

DENSE_BITS = 32 * 1000


def row(name: str, value: float | None, **others: Any) -> dict[str, Any]:
    """The row of a code whose shuffles measure 10, against an initialization of 20."""
    whole = {
        "name": name,
        "kind": "code",
        "unit": "bits",
        "view": "signs",
        "tensor": "",
        "ordered": True,
        "num_weights": 1000,
        "value": value,
        "unavailable": "" if value is not None else "too few weights",
        "shuffled_mean": 10.0,
        "init_value": 20.0,
        "arrangement": None if value is None else value / 10.0,
        "value_distribution": 0.5,
        "ratio": None if value is None else value / 20.0,
    }
    return whole | others


def finished(
    treatment: str = "dense",
    seed: int = 0,
    *,
    metric: float = 0.9,
    file: float = 26_000.0,
    measures: Mapping[str, float | None] | tuple[dict[str, Any], ...] = (),
    task: str = "digits",
    higher_is_better: bool = True,
    num_weights: int = 1000,
    mosaic: bool | None = None,
    **cell: Any,
) -> Finished:
    """A run; measures are rows, or values by name."""
    if isinstance(measures, Mapping):
        measures = tuple(row(name, value) for name, value in measures.items())
    mosaic = treatment in ("sampled", "learned") if mosaic is None else mosaic
    lengths = {"dense": 32.0 * num_weights, "file": file}
    return Finished(
        folder=Path(f"{task}-{treatment}-{seed}"),
        cell=Cell(task=task, treatment=treatment, seed=seed, **cell),
        recipe=NOBODY,
        metric_name="accuracy" if higher_is_better else "bits per character",
        metric=metric,
        higher_is_better=higher_is_better,
        num_weights=num_weights,
        file="network.bin",
        lengths=lengths | ({"bound": 1.0, "entropy": 1.0} if mosaic else {}),
        measures=measures,
        history=(),
        seconds=1.0,
        environment={},
    )
