"""Accuracy against capacity, a line for each block size, and the dense level: the paper's figure."""

from collections.abc import Iterator
from math import ceil
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from momos.study.report.page.estimate import Estimate
from momos.study.report.page.groups import Group, Subject, seeds_of
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


class Place(NamedTuple):
    block_size: int
    capacity: float
    group: Group
    score: Estimate


def accuracy_against_capacity(subject: Subject) -> Picture | None:
    """None where fewer than two capacities were run."""
    places = sorted(_places(subject), key=lambda place: place[:2])
    if len({place.capacity for place in places}) < 2:
        return None
    metric = subject.metric
    figure, axes = canvas(height=4.4)
    for number, size in enumerate(sorted({place.block_size for place in places}), start=1):
        _draw(axes, [place for place in places if place.block_size == size], look(number))
    dense = subject.dense
    if dense and dense.score:
        label = f"dense ({seeds_of([dense])})"
        axes.axhline(dense.score.mean, color=INK, lw=1.4, ls="--", label=label)
        axes.axhspan(dense.score.low, dense.score.high, color=INK, alpha=0.15, lw=0)
    shown = [place.score for place in places]
    in_sight(axes, [*shown, dense.score] if dense and dense.score else shown)
    axes.margins(x=0.1)
    logarithmic(axes, "x", TICKS)
    axes.set_xlabel("capacity c = motifs / blocks, % (logarithmic)")
    axes.set_ylabel(metric.label)
    legend(figure, axes)
    return Picture(
        name=file_name("capacity", subject.task, subject.network, metric.label),
        title=f"{sentence(metric.label.split(',')[0])} against capacity: {subject.title}",
        caption=(
            f"{sentence(metric.label)} with sampled motifs, against capacity in %, for each block size s in "
            f"weights. Means over seeds, {seeds_of(place.group for place in places)} a point; "
            "bands: bootstrap 95 % intervals of the mean; dashed: dense networks, with theirs."
        ),
        alt=_alt(places, subject),
        figure=figure,
        header=("block size", "capacity", "seeds", "metric, mean", "low", "high"),
        rows=_rows(places, dense),
    )


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


def _rows(places: list[Place], dense: Group | None) -> list[tuple]:
    found: list[tuple[int | str, float | None, int, Estimate]] = [
        (place.block_size, place.capacity, len(place.group.runs), place.score)
        for place in places
    ]
    if dense and dense.score:
        found.append(("dense", None, len(dense.runs), dense.score))
    return [(*row, score.mean, score.low, score.high) for *row, score in found]


def _alt(places: list[Place], subject: Subject) -> str:
    metric = subject.metric
    sizes = []
    for size in sorted({place.block_size for place in places}):
        own = [place for place in places if place.block_size == size]
        ends = " to ".join(metric.text(own[end].score.mean) for end in (0, -1))
        across = " to ".join(f"{100 * own[end].capacity:g}" for end in (0, -1))
        sizes.append(f"at s = {size}, {ends} from capacity {across} %")
    dense = subject.dense
    level = f"; dense {metric.text(dense.mean)}" if dense and dense.score else ""
    return f"{metric.label}: {'; '.join(sizes)}{level}."
