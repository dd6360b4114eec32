"""The metric against file length and against capacity."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from momos.study.analysis.cohort import (
    Cohort,
    Subject,
    plain,
    reference_of,
    seedless,
    seeds_of,
)
from momos.study.analysis.statistics import Estimate
from momos.study.report import figure

BITS = (0.1, 0.2, 0.5, 1, 2, 4, 8, 16, 32)  # ticks
PERCENTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
PLACED = ("block_size", "capacity", "num_motifs")  # settings that capacity is drawn over


def envelope(cohorts: Sequence[Cohort]) -> list[Cohort]:
    """Those that no other is as good as and smaller, or as small as and better; largest first."""

    def goodness(cohort: Cohort) -> float:
        return cohort.metric.goodness(cohort.mean)

    kept: list[Cohort] = []
    for each in sorted(cohorts, key=lambda cohort: (-cohort.factor, -goodness(cohort))):
        if not kept or goodness(each) > goodness(kept[-1]):
            kept.append(each)
    return kept[::-1]


def accuracy_against_length(subject: Subject) -> figure.Figure | None:
    """The metric over bits per weight of whole files; None without a finite metric."""
    cohorts = [cohort for cohort in subject.cohorts if cohort.score]
    if not cohorts:
        return None
    metric = subject.metric
    drawing, axes = figure.canvas(height=4.6)
    fronts: list[Cohort] = []
    for number, treatment in enumerate(subject.treatments):
        own = [cohort for cohort in cohorts if cohort.treatment == treatment]
        front = envelope(own)
        fronts += front
        _draw_lengths(axes, own, front, figure.look_of(treatment, number))
    axes.set_xlabel("whole file, bits per weight (logarithmic)")
    axes.set_ylabel(metric.label)
    axes.margins(x=0.12)
    figure.bound_(
        axes, [cohort.score for cohort in cohorts if cohort.score], best=metric.best
    )
    figure.logarithmic(axes, "x", BITS)
    above = axes.secondary_xaxis("top", functions=(_factor, _factor))
    above.set_xlabel("times smaller than 32 bits a weight")
    ticks = axes.get_xticks()
    above.set_ticks([32 / tick for tick in ticks], labels=[f"{32 / t:.3g}×" for t in ticks])
    above.minorticks_off()
    figure.legend(drawing, axes)
    return figure.Figure(
        name=figure.file_name("length", subject.task, subject.network, metric.label),
        **_texts("length", subject, cohorts),
        alt=_alt_of_lengths(subject, cohorts),
        drawing=drawing,
        rows=[_length_row(cohort, cohort in fronts) for cohort in cohorts],
    )


def _texts(kind: str, subject: Subject, cohorts: Sequence[Cohort]) -> dict[str, Any]:
    metric, seeds = subject.metric, seeds_of(cohorts)
    name, label = figure.sentence(metric.name), figure.sentence(metric.label)
    return figure.texts(kind, metric=name, label=label, subject=subject.title, seeds=seeds)


def _factor(values):  # times smaller from bits per weight, and back; an array or a number
    return 32 / (values + 1e-300)


def _draw_lengths(
    axes: Axes, cohorts: Sequence[Cohort], front: Sequence[Cohort], style: dict[str, Any]
) -> None:
    points = {"color": style["color"], "marker": style["marker"], "ms": 7}
    for cohort in cohorts:
        assert cohort.score
        alpha = 1.0 if cohort in front else 0.35
        place = (cohort.bits_per_weight, cohort.mean)
        axes.errorbar(*place, cohort.score.bars, capsize=3, lw=1.2, alpha=alpha, **points)
    if front:
        axes.plot(
            [cohort.bits_per_weight for cohort in front],
            [cohort.mean for cohort in front],
            ls=style["ls"],
            label=f"{plain(front[0].treatment)} ({seeds_of(cohorts)})",
            **points,
        )


def _length_row(cohort: Cohort, on_front: bool) -> tuple[Any, ...]:
    assert cohort.score
    length = (len(cohort.runs), cohort.bits_per_weight, cohort.factor)
    return (cohort.treatment, cohort.label, *length, *cohort.score.ends, on_front)


def _alt_of_lengths(subject: Subject, cohorts: Sequence[Cohort]) -> str:
    metric = subject.metric
    best = max(cohorts, key=lambda cohort: metric.goodness(cohort.mean))
    small = max(cohorts, key=lambda cohort: cohort.factor)
    said = [
        f"{what} is {cohort.label}: {metric.label} {metric.text(cohort.mean)} "
        f"at {cohort.bits_per_weight:.2f} bits per weight"
        for what, cohort in (("best", best), ("smallest", small))
    ]
    return (
        f"{len(cohorts)} points of {len(subject.treatments)} treatments; {'; '.join(said)}."
    )


class Point(NamedTuple):
    """Where a cohort of sampled motifs is."""

    block_size: int
    capacity: float
    cohort: Cohort
    score: Estimate


def accuracy_against_capacity(subject: Subject) -> list[figure.Figure]:
    """The paper's figure, for all that was trained alike and has two capacities."""
    families: dict[str, list[Point]] = {}
    for point in sorted(_points(subject), key=lambda point: point[:2]):
        cell = point.cohort.cell
        others = {name: v for name, v in cell.settings.items() if name not in PLACED}
        families.setdefault(seedless(replace(cell, settings=others)).key, []).append(point)
    return [
        _capacity_figure(subject, points)
        for points in families.values()
        if len({point.capacity for point in points}) > 1
    ]


def _points(subject: Subject) -> Iterator[Point]:
    for cohort in subject.cohorts:
        size = cohort.settings.get("block_size")
        if cohort.treatment == "sampled" and size and cohort.score:
            blocks = ceil(cohort.first.num_weights / size)  # a few more, by ends of tensors
            motifs = cohort.settings.get("num_motifs")
            capacity = cohort.settings.get("capacity") or (motifs and motifs / blocks)
            if capacity:
                yield Point(size, float(capacity), cohort, cohort.score)


def _capacity_figure(subject: Subject, points: Sequence[Point]) -> figure.Figure:
    metric = subject.metric
    dense = reference_of(points[0].cohort, subject.cohorts)[0] or subject.dense
    level = dense.score if dense else None
    sizes = {size: [p for p in points if p.block_size == size] for size, *_ in points}
    drawing, axes = figure.canvas(height=4.4)
    for number, (size, own) in enumerate(sizes.items(), start=1):
        label = f"s = {size} ({seeds_of(point.cohort for point in own)})"
        across, scores = [100 * p.capacity for p in own], [p.score for p in own]
        figure.draw_band(axes, across, scores, figure.look(number), label=label, ms=6)
    if dense and level:
        label = f"{dense.label} ({seeds_of([dense])})"
        axes.axhline(level.mean, color=figure.INK, lw=1.4, ls="--", label=label)
        axes.axhspan(level.low, level.high, color=figure.INK, alpha=0.15, lw=0)
    shown = [point.score for point in points]
    figure.bound_(axes, [*shown, level] if level else shown, best=metric.best)
    axes.margins(x=0.1)
    figure.logarithmic(axes, "x", PERCENTS)
    axes.set_xlabel("capacity c = motifs / blocks, % (logarithmic)")
    axes.set_ylabel(metric.label)
    figure.legend(drawing, axes)
    rows = [(p.block_size, p.capacity, len(p.cohort.runs), p.score) for p in points]
    last = [("dense", None, len(dense.runs), level)] if dense and level else []
    return figure.Figure(
        name=figure.file_name("capacity", subject.task, subject.network, metric.label),
        **_texts("capacity", subject, [point.cohort for point in points]),
        alt=_alt_of_capacities(subject, sizes, level),
        drawing=drawing,
        rows=[(*row, *score.ends) for *row, score in (*rows, *last)],
    )


def _alt_of_capacities(
    subject: Subject, sizes: dict[int, list[Point]], level: Estimate | None
) -> str:
    metric, words = subject.metric, []
    for size, own in sizes.items():
        ends = " to ".join(metric.text(own[end].score.mean) for end in (0, -1))
        across = " to ".join(f"{100 * own[end].capacity:g}" for end in (0, -1))
        words.append(f"at s = {size}, {ends} from capacity {across} %")
    dense = f"; dense {metric.text(level.mean)}" if level else ""
    return f"{metric.label}: {'; '.join(words)}{dense}."
