"""How figures look, on paper and on a page whose colours change with the reader's.

Every colour here is a variable of the page's style sheet, by the same name: `themed` puts it in.
"""

from collections.abc import Sequence
from math import inf
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from momos._util.escaping import visible
from momos.study.report.page.estimate import Estimate

INK, PAPER, GRID = "#1c2126", "#fffffe", "#c9ced5"
SERIES = (
    "#4d545c",
    "#0b6fb8",
    "#c43d52",
    "#2f8554",
    "#8456ad",
    "#a8690f",
    "#0f7f86",
    "#b04a92",
)
STEPS = ("#6797c4", "#4a86bd", "#2f73ac", "#15568d", "#07345e")  # one after another
MARKERS = ("*", "o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
WIDTH, HEIGHT = 5.6, 4.0  # inches: so small that words can be read on a phone
FEW = 300  # as many times its start an axis ends for 2 and 5 to be written beside 1
LETTERS = 52  # of a line of a legend
SANS = "var(--sans)"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "momos",
    "text.parse_math": False,  # words are those of users
    "font.size": 11,
    "axes.titlesize": 11,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "savefig.dpi": 160,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def canvas(*, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty figure and its axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def legend(figure: Figure, axes: Axes) -> None:
    """What the lines are, below them: two columns where the words are short."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 2 if max(map(len, labels)) < 32 else 1
        labels = ["\n".join(wrap(label, LETTERS)) for label in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def logarithmic(axes: Axes, direction: str, ticks: Sequence[float] = ()) -> None:
    """A logarithmic axis whose numbers are written out."""
    axis = axes.xaxis if direction == "x" else axes.yaxis
    (axes.set_xscale if direction == "x" else axes.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axes.get_xlim() if direction == "x" else axes.get_ylim()
    if ticks:
        found = [tick for tick in ticks if low <= tick <= high]
        within = [float(f"{low + part * (high - low):.2g}") for part in (0.1, 0.9)]
        axis.set_ticks(found if len(found) > 1 else sorted({*found, *within}))
    elif high / low < FEW:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def in_sight(axes: Axes, estimates: Sequence[Estimate], *, most: float = inf) -> None:
    """Bounds the upright axis: wide intervals of few seeds may leave it, means do not.

    It ends a little above `most`, which no value exceeds.
    """
    means = [estimate.mean for estimate in estimates]
    span = max(means) - min(means) or 0.1 * abs(means[0]) or 1.0
    low = max(min(estimate.low for estimate in estimates), min(means) - 0.6 * span)
    high = max(estimate.high for estimate in estimates)
    high = min(high, max(means) + 0.6 * span, most)
    axes.set_ylim(low - 0.06 * span, high + 0.06 * span)


def colour(number: int) -> str:
    return SERIES[number % len(SERIES)]


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of one of many lines: no two of the first 32 are the same."""
    return {
        "color": colour(number),
        "marker": MARKERS[number % len(MARKERS)],
        "ls": DASHES[number // len(SERIES) % len(DASHES)],
    }


def sentence(text: str) -> str:
    """The same, with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def plain(text: str) -> str:
    """Words that a figure can show: hidden characters are escaped, and no legend hides them."""
    seen = visible(text)
    return f" {seen}" if seen.startswith("_") else seen


def themed(svg: str) -> str:
    """The same drawing in the page's own colours."""
    for hexadecimal, variable in VARIABLES.items():
        svg = svg.replace(hexadecimal, variable)
    return svg


VARIABLES = {INK: "currentColor", PAPER: "var(--paper)", GRID: "var(--grid)"} | {
    hexadecimal: f"var(--{name}-{number})"
    for name, colours in (("series", SERIES), ("step", STEPS))
    for number, hexadecimal in enumerate(colours)
}
