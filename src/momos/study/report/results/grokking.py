"""Complexity while a network generalizes late: when each measure falls, and when accuracy rises."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.page.courses import (
    complexity_through_training,
    metric_through_training,
)
from momos.study.report.page.groups import subjects_of
from momos.study.report.results.part import NONE, Part, of_recipe, title, trained_as
from momos.study.store import Finished

GENERALIZES = 0.95  # of the held-out sums
FALLEN = 0.99  # of its value at the start
DRAWN = ("signs, order 4", "4-bit codes", "8-bit codes")
HEADER = (
    *("measure", "seed", "start", "at 95 %", "end", "end / start", "shuffled end / start"),
    *("least / start", "below 99 % of the start from step"),
)


def grokking_part(runs: Sequence[Finished]) -> Part:
    """When held-out accuracy comes, and every measure before, then and at the end."""
    own = of_recipe(runs, "grokking")
    texts = [_table(run) for run in own if run.history]
    pictures = []
    for subject in subjects_of(own):
        pictures += metric_through_training(subject)
        for picture in complexity_through_training(subject):
            if picture.title.lower().startswith(tuple(f"{name} through" for name in DRAWN)):
                pictures.append(picture)
    return Part("\n".join(texts), pictures)


def _table(run: Finished) -> str:
    lines = [line for line in run.history if line.get("measures")]
    reached = next((n["epoch"] for n in run.history if n["metric"] >= GENERALIZES), None)
    last = lines[-1]["measures"] if lines else {}
    names = [name for name in last if all(_has(line, name) for line in lines)]
    rows = [_row(name, run, lines, reached) for name in names]
    when = "never" if reached is None else f"at step {reached:g}"
    told = (
        f"{title(run.cell.network, '')}, seed {run.cell.seed}, {trained_as(run.cell)}: "
        f"held-out accuracy reaches {100 * GENERALIZES:g} % {when}, and ends at {100 * run.metric:.1f} % after "
        f"{run.history[-1]['epoch']:g} steps.\n"
    )
    return f"{told}\n{markdown(HEADER, rows, left=1)}"


def _row(
    name: str, run: Finished, lines: Sequence[dict[str, Any]], reached: float | None
) -> tuple[str, ...]:
    values = {line["epoch"]: _value(line, name) for line in lines}
    start, end = values[lines[0]["epoch"]], values[lines[-1]["epoch"]]
    then = next(
        (v for e, v in values.items() if reached is not None and e >= reached), None
    )
    controls = [
        line["measures"][name].get("shuffled_mean") for line in (lines[0], lines[-1])
    ]
    fallen = [epoch for epoch, value in values.items() if value < FALLEN * start]
    return (
        name,
        str(run.cell.seed),
        _level(start),
        NONE if then is None else _level(then),
        _level(end),
        number(end / start, 4),
        number(controls[1] / controls[0], 4) if all(controls) else NONE,
        number(min(values.values()) / start, 4),
        f"{fallen[0]:g}" if fallen else "never",
    )


def _has(line: dict[str, Any], name: str) -> bool:
    """Whether a measure was taken then, with a value that others can be divided by."""
    if (line["measures"].get(name) or {}).get("value") is None:
        return False
    value = _value(line, name)
    return isfinite(value) and value > 0


def _value(line: dict[str, Any], name: str) -> float:
    """Bits per weight, or the score."""
    row = line["measures"][name]
    return row["value"] if row.get("bits_per_weight") is None else row["bits_per_weight"]


def _level(value: float) -> str:
    return number(value, 4) if value < 100 else f"{value:.0f}"
