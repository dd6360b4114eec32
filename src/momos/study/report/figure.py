"""Figures of the report: how they look, what is written of each, and the numbers in it.

Every colour here is a variable of the page's style sheet, by the same name: a drawing on the page
has the reader's colours, its PNG and SVG have those of paper.
"""

import csv
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import as_file, files
from io import StringIO
from math import inf
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator

from momos._util.escaping import csv_cell
from momos.study.analysis.statistics import Estimate
from momos.study.treatments import TREATMENTS

PACKAGE, TEMPLATES = "momos.study.report", "templates"
with as_file(files(PACKAGE) / TEMPLATES / "figures.mplstyle") as path:
    STYLE = rc_params_from_file(path, use_default_template=False)
INK, PAPER, GRID = (STYLE[n] for n in ("text.color", "figure.facecolor", "grid.color"))
SERIES = (
    *("#4d545c", "#0b6fb8", "#c43d52", "#2f8554"),
    *("#8456ad", "#a8690f", "#0f7f86", "#b04a92"),
)
STEPS = ("#6797c4", "#4a86bd", "#2f73ac", "#15568d", "#07345e")  # one after another
MARKERS = ("*", "o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
VARIABLES = {INK: "currentColor", PAPER: "var(--paper)", GRID: "var(--grid)"} | {
    hexadecimal: f"var(--{name}-{number})"
    for name, colours in (("series", SERIES), ("step", STEPS))
    for number, hexadecimal in enumerate(colours)
}
WIDTH, HEIGHT = 5.6, 4.0  # inches: so small that words can be read on a phone
FEW = 300  # as many times its start an axis ends for 2 and 5 to be written beside 1
LETTERS = 52  # of a line of a legend
SANS = "var(--sans)"
CUT = re.compile(  # what a drawing needs by itself, but not inside a page
    r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL
)
SIZE = re.compile(r' (width|height)="[^"]*"')
FONT = re.compile(r"(font: [^'\";]*?)'[^\";]*")
NAMES = re.compile(r'(\bid="|href="#|url\(#)')


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure, and the numbers in it.

    `name` is that of its files. `about` tells it from others of its kind. `caption` says units
    and n, `alt` what a reader who cannot see it should know.
    """

    name: str
    title: str
    caption: str
    alt: str
    drawing: Canvas
    header: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    about: str = ""
    zoomable: bool = False

    def write(self, folder: Path) -> None:
        """As SVG, PNG and CSV."""
        (folder / f"{self.name}.svg").write_text(self._svg, "utf-8")
        self.write_png(folder / f"{self.name}.png")
        write_csv(folder / f"{self.name}.csv", self.header, self.rows)

    def write_png(self, path: Path) -> None:
        self.drawing.savefig(path, metadata={"Software": None})

    def inline(self) -> str:
        """The drawing as part of a page: in its colours and letters, with names of its own."""
        svg = CUT.sub("", self._svg)
        head, end, rest = svg.partition(">")
        svg = SIZE.sub("", head) + end + rest
        svg = FONT.sub(rf"\g<1>{SANS}", svg)
        svg = NAMES.sub(rf"\g<1>{self.name}-", svg)
        described = f'<svg role="img" aria-labelledby="{self.name}-alt" '
        svg = svg.replace("<svg ", described, 1)
        for hexadecimal, variable in VARIABLES.items():
            svg = svg.replace(hexadecimal, variable)
        return svg

    @cached_property
    def _svg(self) -> str:
        drawn = StringIO()
        self.drawing.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        self.drawing.set_layout_engine("none")  # it is laid out now, and once is enough
        return drawn.getvalue()


def texts(kind: str, **values: Any) -> dict[str, Any]:
    """Title, caption and columns of a kind of figure or table, with values filled in."""
    return {
        name: text.format(**values)
        if isinstance(text, str)
        else tuple(each.format(**values) for each in text)
        for name, text in _texts()[kind].items()
    }


@cache
def _texts() -> dict[str, Any]:
    return tomllib.loads((files(PACKAGE) / TEMPLATES / "texts.toml").read_text("utf-8"))


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table as a spreadsheet reads it, without formulas; nothing is an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, header))
        writer.writerows(map(csv_cell, row) for row in rows)


def file_name(*words: str) -> str:
    """A name of a file, and of a place in the page, made of words."""
    joined = "-".join(word for word in words if word)
    return re.sub(r"[^a-z0-9]+", "-", joined.lower()).strip("-")


def sentence(text: str) -> str:
    """The same, with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def canvas(*, height: float = HEIGHT) -> tuple[Canvas, Axes]:
    """An empty figure and its axes."""
    drawing = Canvas(figsize=(WIDTH, height), layout="constrained")
    return drawing, drawing.subplots()


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of one of many lines: no two of the first 32 are the same."""
    return {
        "color": SERIES[number % len(SERIES)],
        "marker": MARKERS[number % len(MARKERS)],
        "ls": DASHES[number // len(SERIES) % len(DASHES)],
    }


def look_of(treatment: str, number: int) -> dict[str, Any]:
    """The look of a treatment; of one that is unknown, by its number."""
    known = TREATMENTS.get(treatment)
    if known is None:
        return look(len(SERIES) + number)
    return {"color": SERIES[known.colour], "marker": known.marker, "ls": "-"}


def legend(drawing: Canvas, axes: Axes) -> None:
    """What the lines are, below them: two columns where the words are short."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 2 if max(map(len, labels)) < 32 else 1
        labels = ["\n".join(wrap(label, LETTERS)) for label in labels]
        drawing.legend(handles, labels, loc="outside lower center", ncols=columns)


def logarithmic(axes: Axes, direction: str, ticks: Sequence[float] = ()) -> None:
    """A logarithmic axis whose numbers are written out."""
    across = direction == "x"
    axis = axes.xaxis if across else axes.yaxis
    (axes.set_xscale if across else axes.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axes.get_xlim() if across else axes.get_ylim()
    if ticks:
        found = [tick for tick in ticks if low <= tick <= high]
        within = [float(f"{low + part * (high - low):.2g}") for part in (0.1, 0.9)]
        axis.set_ticks(found if len(found) > 1 else sorted({*found, *within}))
    elif high / low < FEW:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def bound_(axes: Axes, estimates: Sequence[Estimate], *, best: float = inf) -> None:
    """Bounds the upright axis: wide intervals of few seeds may leave it, means do not.

    It ends a little above `best`, which no value exceeds.
    """
    means = [estimate.mean for estimate in estimates]
    span = max(means) - min(means) or 0.1 * abs(means[0]) or 1.0
    low = max(min(estimate.low for estimate in estimates), min(means) - 0.6 * span)
    high = max(estimate.high for estimate in estimates)
    high = min(high, max(means) + 0.6 * span, best)
    axes.set_ylim(low - 0.06 * span, high + 0.06 * span)


def draw_band(
    axes: Axes,
    across: Sequence[float],
    values: Sequence[Estimate],
    look: dict[str, Any],
    **line: Any,
) -> None:
    """A line through means, and a band of their intervals."""
    axes.plot(across, [value.mean for value in values], **look, **line)
    low, high = [value.low for value in values], [value.high for value in values]
    axes.fill_between(across, low, high, color=look["color"], alpha=0.18, lw=0)
