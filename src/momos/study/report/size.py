"""The picture of a metric against file size: one line for each treatment."""

from collections.abc import Sequence
from math import log

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from momos.study.report.goals import GOALS
from momos.study.report.metric import number
from momos.study.report.points import Point, reference_of, seeds_of
from momos.study.report.series import Series, series_of
from momos.study.report.table import grouped

LOOKS = {  # colour and marker
    "dense": ("#4d4d4d", "*"),
    "quantize_aware": ("#0b6fb8", "s"),
    "prune": ("#3a8f5c", "^"),
    "sampled": ("#8a5fb0", "D"),
    "learned": ("#d1495b", "o"),
}
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
LEAST, MOST = 2.0, 6.0  # so many times the allowed loss is in sight
USUAL = {"points": 0.5, "%": 2.0}  # losses that are allowed where there is no goal
GREY = "#4d4d4d"
NEAR = 0.12  # difference of logarithms at which labels would overlap


def metric_against_size(points: Sequence[Point]) -> Figure:
    """All points of a task, means over seeds with bars from the lowest to the highest."""
    reference = reference_of(points)
    every = series_of(points)
    usual = min((each.epochs for each in every if each.treatment != "dense"), default=None)
    figure = Figure(figsize=(9, 6.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    _frame(axes, points, reference)
    _levels(axes, reference)
    for each in every:
        _draw(axes, each, plain=each.treatment == "dense" or each.epochs == usual)
    hidden = [p for p in points if p.metric.gain(p.mean, axes.get_ylim()[0]) < 0]
    _mark_hidden(axes, hidden)
    notes = ["means over n seeds; bars from the lowest to the highest"]
    if seeds_of(points) == "1":
        notes = ["one seed"]
    if any(each.competing for each in every):
        notes.append("faint: beaten by another setting")
    if hidden:
        notes.append("arrowheads: below the picture")
    axes.set_title(_title(reference, usual) + "\n", fontsize=12)
    _write_above(axes, "; ".join(notes))
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside lower center", ncols=3, frameon=False
    )
    return figure


def _frame(axes: Axes, points: Sequence[Point], reference: Point) -> None:
    metric = reference.metric
    right = max(100.0, 1.2 * max(point.factor for point in points))
    axes.set_xscale("log")
    axes.set_xlim(1, right)
    ticks = [tick for tick in TICKS if tick <= right]
    axes.set_xticks(ticks, labels=[f"{tick}×" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("file, times smaller than all weights in float32")
    bottom = metric.at_gain(-_loss_in_sight(points, reference), reference.mean)
    best = max if metric.higher_is_better else min
    top = best(value for point in points for value in point.values.values())
    axes.set_ylim(bottom, top + 0.05 * (top - bottom))
    axes.set_ylabel(metric.label + ("" if metric.higher_is_better else ", fewer upwards"))
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _loss_in_sight(points: Sequence[Point], reference: Point) -> float:
    """So much that as many points as can be are in sight."""
    allowed = _allowed_loss(reference) or USUAL[reference.metric.difference_unit]
    losses = [
        -1.1 * point.metric.gain(value, reference.mean)
        for point in points
        for value in (point.mean, *point.values.values())
    ]
    return max(loss for loss in (LEAST * allowed, *losses) if loss <= MOST * allowed)


def _allowed_loss(reference: Point) -> float | None:
    goals = GOALS.get(reference.lines[0].task)
    return goals[0].loss if goals else None


def _levels(axes: Axes, reference: Point) -> None:
    """The dense level, and the one that must be held."""
    metric = reference.metric
    texts = {reference.mean: f"dense {metric.text(reference.mean)}{metric.unit}"}
    loss = _allowed_loss(reference)
    if loss is not None:
        sign = "−" if metric.higher_is_better else "+"
        level = metric.at_gain(-loss, reference.mean)
        texts[level] = f"dense {sign} {metric.amount(loss)}"
    for level, text in texts.items():
        style = "-" if level == reference.mean else "--"
        axes.axhline(level, color=GREY, lw=0.8, ls=style, zorder=1)
        axes.annotate(
            text,
            (1.1 * reference.factor, level),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=GREY,
        )


def _draw(axes: Axes, series: Series, *, plain: bool) -> None:
    """A line through its points; hollow and dashed if it was trained for longer."""
    colour, marker = LOOKS[series.treatment]
    main = series.treatment == "learned"
    look = {
        "color": colour,
        "marker": marker,
        "markersize": 7 if main else 6,
        "markerfacecolor": colour if plain else "white",
    }
    for point in series.points:
        alpha = 1.0 if point in series.line else 0.3
        axes.plot(point.factor, point.mean, alpha=alpha, zorder=3, **look)
        if len(point.lines) > 1:
            ends = [abs(end(point.values.values()) - point.mean) for end in (min, max)]
            bar = [[end] for end in ends]
            axes.errorbar(
                point.factor, point.mean, bar, color=colour, capsize=2.5, lw=1, alpha=alpha
            )
    epochs = "" if plain else f", {series.epochs:g} epochs"
    axes.plot(
        [point.factor for point in series.line],
        [point.mean for point in series.line],
        lw=2.4 if main else 1.6,
        ls="-" if plain else "--",
        label=f"{series.points[0].label}{epochs} (n = {seeds_of(series.points)})",
        zorder=4 if main else 3,
        **look,
    )


def _mark_hidden(axes: Axes, points: Sequence[Point]) -> None:
    """An arrowhead and the metric at the lower edge, for each point below it."""
    bottom = axes.get_ylim()[0]
    last, row = 0.0, 0
    for point in sorted(points, key=lambda point: point.factor):
        row = row + 1 if log(point.factor) - last < NEAR else 0
        last = log(point.factor)
        colour, _ = LOOKS[point.treatment]
        axes.plot(point.factor, bottom, "v", color=colour, ms=6, clip_on=False, zorder=5)
        axes.annotate(
            number(point.mean, 1),
            (point.factor, bottom),
            xytext=(0, 7 + 10 * row),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            zorder=5,
        )


def _title(reference: Point, usual: float | None) -> str:
    line = reference.lines[0]
    start = "published network" if reference.given else f"dense {line.epochs:g} epochs"
    further = "" if usual is None else f", then {usual:g} more for each treatment"
    return f"{line.task}, {grouped(line.dense_bytes / 4)} weights: {start}{further}"


def _write_above(axes: Axes, note: str) -> None:
    style = {"ha": "center", "fontsize": 9, "color": GREY}
    axes.text(0.5, 1.015, note, transform=axes.transAxes, **style)
