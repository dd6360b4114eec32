"""Accuracy against capacity, a line for each block size, and the dense level: the paper's figure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from momos.study.cells import Cell
from momos.study.cohorts import seedless
from momos.study.report.metric import Metric
from momos.study.report.page.estimate import Estimate
from momos.study.report.page.groups import Group, Subject, most_of, seeds_of
from momos.study.report.page.looks import (
    INK,
    canvas,
    in_sight,
    legend,
    logarithmic,
    look,
    sentence,
)
from momos.study.report.page.picture import Picture, file_name

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


AXES = ("block_size", "capacity", "num_motifs")  # settings that the picture is over


class Place(NamedTuple):
    block_size: int
    capacity: float
    group: Group
    score: Estimate


def accuracy_against_capacity(subject: Subject) -> list[Picture]:
    """A picture for all that was trained alike, where there are two capacities of it."""
    families: dict[str, list[Place]] = {}
    for place in sorted(_places(subject), key=lambda place: place[:2]):
        cell = place.group.first.cell
        others = {name: v for name, v in cell.settings.items() if name not in AXES}
        families.setdefault(seedless(replace(cell, settings=others)).key, []).append(place)
    return [
        _picture(subject, places)
        for places in families.values()
        if len({place.capacity for place in places}) > 1
    ]


def _picture(subject: Subject, places: Sequence[Place]) -> Picture:
    metric = subject.metric
    figure, axes = canvas(height=4.4)
    for number, size in enumerate(sorted({place.block_size for place in places}), start=1):
        _draw(axes, [place for place in places if place.block_size == size], look(number))
    dense = _dense(subject, places[0].group.first.cell)
    if dense and dense.score:
        label = f"{dense.label} ({seeds_of([dense])})"
        axes.axhline(dense.score.mean, color=INK, lw=1.4, ls="--", label=label)
        axes.axhspan(dense.score.low, dense.score.high, color=INK, alpha=0.15, lw=0)
    shown = [place.score for place in places]
    within = [*shown, dense.score] if dense and dense.score else shown
    in_sight(axes, within, most=most_of(metric))
    axes.margins(x=0.1)
    logarithmic(axes, "x", TICKS)
    axes.set_xlabel("capacity c = motifs / blocks, % (logarithmic)")
    axes.set_ylabel(metric.label)
    legend(figure, axes)
    return Picture(
        name=file_name("capacity", subject.task, subject.network, metric.label),
        title=f"{sentence(metric.label.split(',')[0])} against capacity: {subject.title}",
        caption=(
            f"{sentence(metric.label)} with sampled motifs, against capacity in %, for each "
            "block size s in weights. Means over seeds, "
            f"{seeds_of(place.group for place in places)} a point; bands: bootstrap 95 % "
            "intervals of the mean, cut off where wider than the picture; dashed: dense "
            "networks, with theirs."
        ),
        alt=_alt(places, metric, dense),
        figure=figure,
        header=("block size", "capacity", "seeds", "metric, mean", "low", "high"),
        rows=_rows(places, dense),
    )


def _dense(subject: Subject, cell: Cell) -> Group | None:
    """The dense networks that were trained likewise; if there are none, the usual ones."""
    twin = seedless(replace(cell, treatment="dense", settings={}))
    likewise = [g for g in subject.groups if seedless(g.first.cell) == twin]
    return likewise[0] if likewise else subject.dense


def _places(subject: Subject) -> Iterator[Place]:
    for group in subject.groups:
        size = group.settings.get("block_size")
        if group.treatment == "sampled" and isinstance(size, int) and group.score:
            blocks = ceil(group.first.num_weights / size)  # a few more, by ends of tensors
            motifs = group.settings.get("num_motifs")
            capacity = group.settings.get("capacity") or (motifs and motifs / blocks)
            if capacity:
                yield Place(size, float(capacity), group, group.score)


def _draw(axes: Axes, places: list[Place], style: dict[str, Any]) -> None:
    across = [100 * place.capacity for place in places]
    scores = [place.score for place in places]
    label = f"s = {places[0].block_size} ({seeds_of(place.group for place in places)})"
    axes.plot(across, [score.mean for score in scores], label=label, ms=6, **style)
    low, high = [score.low for score in scores], [score.high for score in scores]
    axes.fill_between(across, low, high, color=style["color"], alpha=0.18, lw=0)


def _rows(places: Sequence[Place], dense: Group | None) -> list[tuple]:
    found: list[tuple[int | str, float | None, int, Estimate]] = [
        (place.block_size, place.capacity, len(place.group.runs), place.score)
        for place in places
    ]
    if dense and dense.score:
        found.append(("dense", None, len(dense.runs), dense.score))
    return [(*row, score.mean, score.low, score.high) for *row, score in found]


def _alt(places: Sequence[Place], metric: Metric, dense: Group | None) -> str:
    sizes = []
    for size in sorted({place.block_size for place in places}):
        own = [place for place in places if place.block_size == size]
        ends = " to ".join(metric.text(own[end].score.mean) for end in (0, -1))
        across = " to ".join(f"{100 * own[end].capacity:g}" for end in (0, -1))
        sizes.append(f"at s = {size}, {ends} from capacity {across} %")
    level = f"; dense {metric.text(dense.mean)}" if dense and dense.score else ""
    return f"{metric.label}: {'; '.join(sizes)}{level}."
