"""The figure of the loss on a plane through networks."""

from collections.abc import Iterable
from math import isfinite
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from momos._util.escaping import visible
from momos.study.analysis.cohort import plain
from momos.study.plane import FILE, Plane
from momos.study.report.figure import INK, PAPER, Figure, canvas, file_name, texts
from momos.study.store import Broken

LEVELS = 14


def planes_in(places: Iterable[Path]) -> tuple[list[Plane], list[Broken]]:
    """The planes in folders at any depth; and those that cannot be read."""
    found: list[Plane] = []
    broken: list[Broken] = []
    for path in sorted({p.resolve() for place in places for p in place.rglob(FILE)}):
        try:
            found.append(Plane.read(path))
        except ValueError as error:
            broken.append(Broken(path.parent, visible(str(error))))
    return found, broken


def loss_plane(plane: Plane) -> Figure:
    """Contours of the loss, and the named networks."""
    drawing, axes = canvas(height=4.6)
    loss = np.array(plane.loss)
    _draw_contours(axes, plane, loss)
    for number, (name, place) in enumerate(plane.points.items()):
        axes.plot(*place, "oX^Ds"[number % 5], color=INK, mec=PAPER, ms=9)
        axes.annotate(
            plain(name),
            place,
            xytext=(8, 6),
            textcoords="offset points",
            path_effects=[withStroke(linewidth=3, foreground=PAPER)],
        )
    axes.grid(visible=False)
    axes.margins(0.05)
    axes.set_xlabel("x, in units of the weights")
    axes.set_ylabel("y, in units of the weights")
    row, column = np.unravel_index(np.nanargmin(loss), loss.shape)
    ridges = ", ".join(
        f"{max(losses):.4g} from {first} to {second}"
        for (first, second), losses in plane.lines.items()
    )
    return Figure(
        name=file_name("plane", plane.title),
        **texts(
            "plane",
            title=plain(plane.title),
            unit=plane.unit,
            points=", ".join(plane.points),
            columns=len(plane.x),
            rows=len(plane.y),
            ridges=f" Greatest loss on the straight lines: {ridges}." if ridges else "",
        ),
        alt=(
            f"Contours from {np.nanmin(loss):.4g} to {np.nanmax(loss):.4g} {plane.unit}; the "
            f"least is near x = {plane.x[column]:.3g}, y = {plane.y[row]:.3g}."
        ),
        drawing=drawing,
        rows=[
            (x, y, value if isfinite(value) else float("nan"))
            for y, values in zip(plane.y, plane.loss, strict=True)
            for x, value in zip(plane.x, values, strict=True)
        ],
    )


def _draw_contours(axes: Axes, plane: Plane, loss: np.ndarray) -> None:
    shown = np.ma.masked_invalid(loss)
    low, high = float(shown.min()), float(shown.max())
    levels = np.geomspace(low, high, LEVELS) if low > 0 else np.linspace(low, high, LEVELS)
    if high - low <= 1e-9 * abs(high):
        levels = np.linspace(low - 1, low + 1, 3)
    scale = "log" if low > 0 else "linear"
    filled = axes.contourf(plane.x, plane.y, shown, levels, norm=scale, cmap="viridis")
    filled.set_rasterized(True)
    drawing = axes.get_figure()
    assert drawing is not None
    bar = drawing.colorbar(filled, ax=axes, label=f"loss, {plain(plane.unit)}")
    ticks = levels[::2].tolist()
    bar.set_ticks(ticks, labels=[f"{level:.3g}" for level in ticks])
    bar.minorticks_off()
