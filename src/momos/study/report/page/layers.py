"""What each tensor takes of a file."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from momos.study.report.page.estimate import Estimate
from momos.study.report.page.files import Opened
from momos.study.report.page.groups import Subject, seeds_of
from momos.study.report.page.looks import INK, SERIES, canvas, plain
from momos.study.report.page.picture import Picture, file_name

BARS = 24  # at most; the shortest tensors are one bar
REST = "motifs, tables and names"


class Bar(NamedTuple):
    name: str
    length: Estimate  # bytes
    num_weights: int


def lengths_of_layers(subject: Subject, opened: Opened) -> Picture:
    """Bytes of each tensor, the others together, and what belongs to none."""
    group = opened.group
    every = _bars(opened)
    bars = _fewer(every)
    figure, axes = canvas(height=1.3 + 0.28 * len(bars))
    _draw(axes, bars)
    axes.set_xlabel("bytes")
    longest = max(every, key=lambda bar: bar.length.mean)
    total = sum(bar.length.mean for bar in every)
    return Picture(
        name=file_name("layers", subject.task, subject.network, group.label),
        title=f"Length of each tensor: {subject.title}, {group.label}",
        caption=(
            "Bytes that each tensor takes of the file, and in words its bits per weight. Means "
            f"over seeds, {seeds_of([group])}; bars: bootstrap 95 % intervals of the mean. "
            f"“{REST}” is what belongs to no single tensor."
        ),
        alt=(
            f"{len(bars)} bars, of {total:.0f} bytes in all; the longest is {longest.name} with "
            f"{longest.length.mean:.0f}."
        ),
        figure=figure,
        header=("tensor", "weights", "bytes, mean", "interval, low", "interval, high"),
        rows=[
            (bar.name, bar.num_weights, bar.length.mean, bar.length.low, bar.length.high)
            for bar in every
        ],
    )


def _draw(axes: Axes, bars: Sequence[Bar]) -> None:
    rows = range(len(bars))
    values = [bar.length.mean for bar in bars]
    errors = [[bar.length.bars[side][0] for bar in bars] for side in (0, 1)]
    axes.barh(
        rows,
        values,
        xerr=errors,
        color=SERIES[1],
        error_kw={"lw": 1, "ecolor": INK},
        height=0.7,
    )
    for row, bar in zip(rows, bars, strict=True):
        axes.annotate(
            _said(bar),
            (bar.length.high, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(rows, labels=[_short(bar.name) for bar in bars], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.grid(visible=False, axis="y")


def _bars(opened: Opened) -> list[Bar]:
    """The tensors in their order, then the rest."""
    first = opened.reports[0]
    bytes_of = [{t.name: t.length / 8 for t in report.tensors} for report in opened.reports]
    bars = [
        Bar(t.name, _estimate([each.get(t.name) for each in bytes_of]), t.num_weights)
        for t in first.tensors
        if t.stored != "same"
    ]
    rest = [
        report.num_bytes - sum(each.values())
        for report, each in zip(opened.reports, bytes_of, strict=True)
    ]
    return [*bars, Bar(REST, _estimate(rest), 0)]


def _fewer(bars: Sequence[Bar]) -> list[Bar]:
    if len(bars) <= BARS:
        return list(bars)
    *tensors, rest = bars
    kept = sorted(tensors, key=lambda bar: -bar.length.mean)[: BARS - 2]
    others = [bar for bar in tensors if bar not in kept]
    total = sum(bar.length.mean for bar in others)
    name = f"{len(others)} shorter tensors"
    together = Bar(
        name, Estimate(total, total, total, 1), sum(b.num_weights for b in others)
    )
    return [*(bar for bar in tensors if bar in kept), together, rest]


def _estimate(values: Sequence[float | None]) -> Estimate:
    found = Estimate.of(values)
    assert found is not None
    return found


def _said(bar: Bar) -> str:
    if not bar.num_weights:
        return f"{bar.length.mean:.0f} B"
    return f"{8 * bar.length.mean / bar.num_weights:.2f} bits/weight"


def _short(name: str) -> str:
    return plain(name if len(name) <= 30 else f"…{name[-29:]}")
