"""Draws what files of each size keep of three networks: docs/compress.png.

From rows that compress.py measured: run `python bench/compress.py resnet20 resnet56 silero` first,
with the same MOMOS_BENCH_CACHE (see there). Not part of `run.py`, since it is a picture.
`python bench/curves.py OTHER.png` writes somewhere else.
"""

import sys
import tempfile
from collections.abc import Sequence
from os import environ
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from compress_rows import Row, Rows
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike

PANELS = {  # title, axis, and how far below the dense network the picture reaches
    "ResNet-20": ("ResNet-20, CIFAR-10", "accuracy, %", 4.0),
    "ResNet-56": ("ResNet-56, CIFAR-10", "accuracy, %", 4.0),
    "silero-vad": ("silero-vad, voice detector", "decisions kept, %", 8.0),
}
LOOKS = {  # label, colour, marker; drawn in this order
    "int + xz": ("integers per channel + xz", "#3a8f5c", "^"),
    "momos, bank": ("momos, bank of pairs", "#8a5fb0", "D"),
    "NNCodec": ("NNCodec", "#0b6fb8", "s"),
    "momos": ("momos compress", "#d1495b", "o"),
}
GREY = "#4d4d4d"
LEAST, MOST = 4.7, 18.0  # times smaller
KILOBYTES = (20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800)
FACTORS = (5, 6, 8, 10, 12, 16)


def main(path: Path) -> None:
    cache = environ.get("MOMOS_BENCH_CACHE", Path(tempfile.gettempdir()) / "momos-bench")
    rows = latest(Rows(Path(cache) / "rows.jsonl"))
    if missing := [name for name in PANELS if name not in {row.network for row in rows}]:
        sys.exit(f"compress.py must have measured {', '.join(missing)}; no rows in {cache}")
    figure, panels = plt.subplots(1, 3, figsize=(11, 4.1), layout="constrained", dpi=150)
    for axes, name in zip(panels, PANELS, strict=True):
        panel(axes, name, [row for row in rows if row.network == name])
    shown = {text: handle for axes in panels for handle, text in handles_of(axes)}
    order = [text for text, _, _ in reversed(LOOKS.values()) if text in shown] + ["dense"]
    handles = [shown[text] for text in order]
    figure.legend(handles, order, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path)


def latest(rows: Rows) -> list[Row]:
    """Of each network and method, the rows of the data and version measured last."""
    last = {(r.network, r.method): (r.data, r.version) for r in rows.found.values()}
    return [
        row
        for row in rows.found.values()
        if last[row.network, row.method] == (row.data, row.version)
    ]


def handles_of(axes: Axes) -> list[tuple[Artist, str]]:
    return list(zip(*axes.get_legend_handles_labels(), strict=True))


def panel(axes: Axes, name: str, rows: Sequence[Row]) -> None:
    title, label, depth = PANELS[name]
    dense = next(row for row in rows if row.method == "dense")
    size, top = dense.dense_bytes / 1000, kept(dense)
    axes.axhline(top, color=GREY, linestyle="--", linewidth=1, label="dense")
    for method, (text, colour, marker) in LOOKS.items():
        own = sorted((r.num_bytes / 1000, kept(r)) for r in rows if r.method == method)
        if own:
            across, up = zip(*own, strict=True)
            style = {"color": colour, "marker": marker, "markersize": 4.5, "linewidth": 1.5}
            axes.plot(across, up, label=text, **style)
    axes.set_xscale("log")
    axes.set_xlim(size / MOST, size / LEAST)
    highest = max(kept(row) for row in rows if LEAST < row.factor < MOST)
    axes.set_ylim(top - depth, max(top, highest) + depth / 20)
    axes.xaxis.set_major_locator(FixedLocator(KILOBYTES))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("file, kB")
    axes.set_ylabel(label)
    axes.set_title(title, fontsize=11)
    axes.grid(color="#c9ced5", linewidth=0.5)

    def inverse(value: ArrayLike) -> ArrayLike:  # matplotlib asks at 0 as well
        return size / np.maximum(value, 1e-9)

    above = axes.secondary_xaxis("top", functions=(inverse, inverse))
    above.xaxis.set_major_locator(FixedLocator(FACTORS))
    above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    above.xaxis.set_minor_locator(NullLocator())
    above.tick_params(labelsize=9, length=2)


def kept(row: Row) -> float:
    """Accuracy where there are labels, else the decisions that are as the dense network's."""
    return 100 - row.changed if row.accuracy is None else row.accuracy


if __name__ == "__main__":
    default = Path(__file__).parents[1] / "docs" / "compress.png"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
