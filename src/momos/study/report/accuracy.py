"""The picture of accuracy against length, with the way there beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from momos.study.report.labels import Box, placed
from momos.study.report.names import by_treatment, mean_and_deviation
from momos.study.store import Finished

COLOURS = ("#4d4d4d", "#0b6fb8", "#d1495b", "#3a8f5c", "#8a5fb0", "#b7791f")
BOUND = {"marker": "o", "ms": 10}
ENTROPY = {"marker": "o", "ms": 10, "mfc": "white", "mew": 2}
FILE = {"marker": "s", "ms": 5, "zorder": 3}
LABEL = 40  # pixels that a label of two lines takes, with the space around it
GAP = 8  # pixels between a point and its label
NEAR = 30  # pixels from which a label needs a line to its point


@dataclass(frozen=True)
class Series:
    """One treatment: its colour, accuracies of the seeds in %, and bits per weight."""

    name: str
    runs: Sequence[Finished]
    colour: str

    @property
    def accuracies(self) -> list[float]:
        return [100 * run.metric for run in self.runs]

    def bits_per_weight(self, length: str) -> float:
        return mean(
            run.lengths.get(length, run.lengths["dense"]) / run.num_weights
            for run in self.runs
        )


def accuracy_against_length(runs: Sequence[Finished], *, title: str) -> Figure:
    """Test accuracy of every run over its bits per weight, and over its epochs.

    A treatment with a run that diverged has curves, but no accuracy to be drawn.
    """
    series = [
        Series(name, group, COLOURS[number % len(COLOURS)])
        for number, (name, group) in enumerate(by_treatment(runs).items())
    ]
    finite = [each for each in series if all(map(isfinite, each.accuracies))]
    height = 2 * LABEL * len(finite)
    figure = Figure(
        figsize=(12.8, max(6.6, 1.6 + height / 110)), dpi=110, layout="constrained"
    )
    lengths, epochs = figure.subplots(1, 2, width_ratios=(3, 2))
    for each in series:
        _draw_epochs(epochs, each)
    for each in finite:
        _draw_lengths(lengths, each)
    _finish_lengths(lengths)
    _finish_epochs(epochs, series)
    for axes in (lengths, epochs):
        axes.set_ylabel("test accuracy, %")
        axes.grid(alpha=0.25)
    figure.suptitle(title, fontsize=14)
    _label(figure, lengths, finite)
    return figure


def _draw_lengths(axes: Axes, series: Series) -> None:
    middle, deviation = mean_and_deviation(series.accuracies)
    bound, entropy, file = map(series.bits_per_weight, ("bound", "entropy", "file"))
    colour = series.colour
    axes.plot(file, middle, color=colour, **FILE)
    axes.plot([file, entropy, bound], [middle] * 3, color=colour)
    axes.plot(entropy, middle, color=colour, **ENTROPY)
    axes.errorbar(bound, middle, deviation, color=colour, capsize=6, **BOUND)
    seeds = [1.13 * bound] * len(series.runs)
    axes.plot(seeds, series.accuracies, ".", color=colour, ms=9, alpha=0.6)


def _finish_lengths(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.3, 80)
    ticks = [0.5, 1, 2, 4, 8, 16, 32, 64]
    axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.margins(y=0.25)
    axes.set_title("accuracy against length")
    axes.set_xlabel("bits per weight")
    handles = [
        Line2D([], [], color="black", label="by bound, mean ± deviation", **BOUND),
        Line2D([], [], color="black", label="by entropy of usage", **ENTROPY),
        Line2D([], [], color="black", ls="", label="the whole file", **FILE),
        Line2D([], [], color="black", marker=".", ms=9, ls="", alpha=0.6, label="one seed"),
    ]
    _legend(axes, handles)


def _legend(axes: Axes, handles: Sequence[Artist]) -> None:
    """Below the axes, where no data can be."""
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=2,
        frameon=False,
    )


def _label(figure: Figure, axes: Axes, series: Sequence[Series]) -> None:
    """Names at the files, with a line to those that had to be moved.

    Points and lines are kept free where there is room.
    """
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # from here on places in pixels are known
    wanted = []
    for each in series:
        text = _text(axes, each, (0, GAP))
        wanted.append(Box(*text.get_window_extent().extents))
        text.remove()
    taken = [box for each in series for box in _drawn(axes, each)]
    left, bottom, right, top = axes.get_window_extent().extents
    frame = Box(left + GAP, bottom + GAP, right - GAP, top - GAP)
    for each, before, after in zip(
        series, wanted, placed(wanted, frame, taken), strict=True
    ):
        up = after.bottom - before.bottom + GAP
        text = _text(axes, each, (after.left - before.left, up))
        if not 0 <= up <= NEAR:
            _lead(axes, text, up if up > 0 else up + after.height)


def _text(axes: Axes, series: Series, offset: tuple[float, float]) -> Annotation:
    """A label so many pixels above its file, on white, so that lines pass behind it."""
    file, middle = series.bits_per_weight("file"), mean(series.accuracies)
    text = axes.annotate(
        f"{series.name}\n{middle:.1f} %, file {32 / file:.1f} × smaller",
        (file, middle),
        xytext=offset,
        textcoords="offset pixels",
        ha="center",
        va="bottom",
        color=series.colour,
        fontsize=11,
        linespacing=1.1,
        bbox={"boxstyle": "square,pad=0", "fc": "white", "alpha": 0.8, "lw": 0},
        zorder=5,
    )
    text.set_in_layout(False)
    return text


def _lead(axes: Axes, text: Annotation, up: float) -> None:
    """A line from a file to its label, whose nearer edge is so many pixels above it."""
    line = {"arrowstyle": "-", "color": text.get_color(), "lw": 0.8, "shrinkA": 0}
    across, _ = text.get_position()
    axes.annotate(
        *("", text.xy, (across, up)),
        textcoords="offset pixels",
        arrowprops=line,
        zorder=1,
    ).set_in_layout(False)


def _drawn(axes: Axes, series: Series) -> list[Box]:
    """What the points and lines of a series cover: along its lengths, and up its seeds."""
    middle, deviation = mean_and_deviation(series.accuracies)
    file, bound = map(series.bits_per_weight, ("file", "bound"))
    spread = [*series.accuracies, middle - (deviation or 0), middle + (deviation or 0)]
    corners = [(file, middle), (bound, min(spread)), (1.13 * bound, max(spread))]
    (left, y), (middle_x, low), (right, high) = axes.transData.transform(corners)
    return [
        Box(min(left, middle_x) - GAP, y - GAP, max(left, middle_x) + GAP, y + GAP),
        Box(middle_x - GAP, low - GAP, right + GAP, high + GAP),
    ]


def _draw_epochs(axes: Axes, series: Series) -> None:
    seeds = list(zip(*_curves(series), strict=True))
    numbers = range(1, len(seeds) + 1)
    low, high = list(map(min, seeds)), list(map(max, seeds))
    axes.fill_between(numbers, low, high, color=series.colour, alpha=0.15, lw=0)
    axes.plot(numbers, list(map(mean, seeds)), color=series.colour, label=series.name)


def _curves(series: Series) -> list[list[float]]:
    return [[100 * line["metric"] for line in run.history[1:]] for run in series.runs]


def _finish_epochs(axes: Axes, series: Sequence[Series]) -> None:
    """Nothing leaves the frame but the first fifth of the epochs."""
    curves = [curve for each in series for curve in _curves(each)]
    shown = [v for curve in curves for v in curve[len(curve) // 5 :] if isfinite(v)]
    if shown:
        axes.set_ylim(min(shown) - 0.05 * (100 - min(shown)) - 0.1, 100)
    axes.set_title("the way there: mean and range over seeds")
    axes.set_xlabel("epoch")
    _legend(axes, axes.get_legend_handles_labels()[0])
