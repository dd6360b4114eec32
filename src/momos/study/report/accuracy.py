"""The picture of accuracy against length, with the way there beside it."""

from collections.abc import Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from momos.study.report.names import by_treatment, mean_and_deviation
from momos.study.store import Finished

COLOURS = ("#4d4d4d", "#0b6fb8", "#d1495b", "#3a8f5c", "#8a5fb0", "#b7791f")
BOUND = {"marker": "o", "ms": 10}
ENTROPY = {"marker": "o", "ms": 10, "mfc": "white", "mew": 2}
FILE = {"marker": "s", "ms": 5, "zorder": 3}


def accuracy_against_length(runs: Sequence[Finished], *, title: str) -> Figure:
    """Test accuracy of every run over its bits per weight, and over its epochs."""
    figure = Figure(figsize=(12.8, 6.6), dpi=110, layout="constrained")
    lengths, epochs = figure.subplots(1, 2, width_ratios=(3, 2))
    groups = list(zip(COLOURS, by_treatment(runs).items(), strict=False))
    for colour, (name, group) in groups:
        _draw_lengths(lengths, name, group, colour)
        _draw_epochs(epochs, name, group, colour)
    _finish_lengths(lengths)
    worst = min(mean(100 * run.metric for run in group) for _, (_, group) in groups)
    epochs.set_ylim(100 - 3 * (100 - worst) - 1, 100)  # the first epochs may lie below
    epochs.set_title("the way there: mean and range over seeds")
    epochs.set_xlabel("epoch")
    epochs.legend(loc="lower right", frameon=False)
    for axes in (lengths, epochs):
        axes.set_ylabel("test accuracy, %")
        axes.grid(alpha=0.25)
    figure.suptitle(title, fontsize=14)
    return figure


def _draw_lengths(axes: Axes, name: str, group: Sequence[Finished], colour: str) -> None:
    accuracies = [100 * run.metric for run in group]
    middle, deviation = mean_and_deviation(accuracies)
    bound, entropy, file = (
        mean(run.lengths.get(name, run.lengths["dense"]) / run.num_weights for run in group)
        for name in ("bound", "entropy", "file")
    )
    axes.plot(file, middle, color=colour, **FILE)
    axes.plot([file, entropy, bound], [middle] * 3, color=colour)
    axes.plot(entropy, middle, color=colour, **ENTROPY)
    axes.errorbar(bound, middle, deviation, color=colour, capsize=6, **BOUND)
    axes.plot([1.13 * bound] * len(group), accuracies, ".", color=colour, ms=9, alpha=0.6)
    axes.annotate(
        f"{name}\n{middle:.1f} %, file {32 / file:.1f} × smaller",
        (file, max(*accuracies, middle + (deviation or 0))),
        xytext=(0, 10),
        textcoords="offset points",
        ha="center",
        color=colour,
        fontsize=11,
    )


def _finish_lengths(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.3, 80)
    ticks = [0.5, 1, 2, 4, 8, 16, 32, 64]
    axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.margins(y=0.25)
    axes.set_title("accuracy against length")
    axes.set_xlabel("bits per weight")
    axes.legend(
        handles=[
            Line2D([], [], color="black", label="by bound, mean ± deviation", **BOUND),
            Line2D([], [], color="black", label="by entropy of usage", **ENTROPY),
            Line2D([], [], color="black", ls="", label="the whole file", **FILE),
            Line2D(
                [], [], color="black", marker=".", ms=9, ls="", alpha=0.6, label="one seed"
            ),
        ],
        loc="lower right",
        frameon=False,
    )


def _draw_epochs(axes: Axes, name: str, group: Sequence[Finished], colour: str) -> None:
    curves = [[100 * line["metric"] for line in run.history[1:]] for run in group]
    seeds = list(zip(*curves, strict=True))
    numbers = range(1, len(seeds) + 1)
    low, high = list(map(min, seeds)), list(map(max, seeds))
    axes.fill_between(numbers, low, high, color=colour, alpha=0.15, lw=0)
    axes.plot(numbers, list(map(mean, seeds)), color=colour, label=name)
