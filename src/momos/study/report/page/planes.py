"""The loss on a plane through networks."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from momos._util.escaping import visible
from momos.study.report.page.looks import INK, PAPER, canvas, plain
from momos.study.report.page.picture import Picture, file_name
from momos.study.schema import parsed
from momos.study.store import Broken, inside

FILE = "plane.json"
LEVELS = 14


@dataclass(frozen=True, eq=False)
class Plane:
    """Loss at the crossings of `x` and `y` (rows are `y`), and where named networks lie.

    `lines` has the loss on straight lines from one of them to another, at even distances.
    """

    title: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    loss: np.ndarray
    points: dict[str, tuple[float, float]]
    unit: str
    lines: dict[tuple[str, str], tuple[float, ...]]

    @classmethod
    def read(cls, path: Path) -> "Plane":
        """The plane in a file.

        Raises:
            ValueError: if it is damaged; says how.
        """
        try:
            given = parsed(inside(path.parent, path.name).read_text("utf-8"))
            x, y = (tuple(map(float, given[name])) for name in "xy")
            loss = np.asarray(given["loss"], dtype=float)
            points = {n: (float(a), float(b)) for n, (a, b) in given["points"].items()}
            title, unit = str(given["title"]), str(given["unit"])
            lines = {
                (str(line["from"]), str(line["to"])): tuple(
                    nan if loss is None else float(loss) for loss in line["loss"]
                )
                for line in given.get("lines", ())
            }
        except KeyError as error:
            raise ValueError(f"{FILE} must have {error}, got none") from error
        except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{FILE} is damaged: {error}") from error
        if min(len(x), len(y)) < 2 or loss.shape != (len(y), len(x)):
            raise ValueError(
                f"{FILE} must have a loss for each of {len(y)} × {len(x)} places, at least 2 × 2, "
                f"got {loss.shape}"
            )
        ends = [end for point in points.values() for end in point]
        if not np.isfinite(loss).any() or not all(map(isfinite, (*x, *y, *ends))):
            raise ValueError(f"{FILE} must have finite places and a finite loss, got none")
        if any(list(axis) != sorted(set(axis)) for axis in (x, y)):
            raise ValueError(f"{FILE} must have rising places, got others")
        for (first, second), losses in lines.items():
            if not losses or not {first, second} <= points.keys():
                raise ValueError(
                    f"{FILE} must have the ends of every line, and losses on it, but has none "
                    f"for {first!r} to {second!r}"
                )
        return cls(title, x, y, loss, points, unit, lines)


def planes_in(places: Iterable[Path]) -> tuple[list[Plane], list[Broken]]:
    """The planes in folders at any depth; and those beyond reading."""
    found: list[Plane] = []
    broken: list[Broken] = []
    for path in sorted({p.resolve() for place in places for p in place.rglob(FILE)}):
        try:
            found.append(Plane.read(path))
        except ValueError as error:
            broken.append(Broken(path.parent, visible(str(error))))
    return found, broken


def loss_plane(plane: Plane) -> Picture:
    """Contours of the loss, and the named networks."""
    figure, axes = canvas(height=4.6)
    _contours(axes, plane)
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
    least = np.unravel_index(np.nanargmin(plane.loss), plane.loss.shape)
    return Picture(
        name=file_name("plane", plane.title),
        title=plain(plane.title),
        caption=(
            f"Loss in {plane.unit} on a plane through {', '.join(plane.points)}; colours are "
            "logarithmic. n = 1 network at each of "
            f"{len(plane.x)} × {len(plane.y)} places.{_ridges(plane)}"
        ),
        alt=(
            f"Contours from {np.nanmin(plane.loss):.4g} to {np.nanmax(plane.loss):.4g} "
            f"{plane.unit}; the least is near x = {plane.x[least[1]]:.3g}, "
            f"y = {plane.y[least[0]]:.3g}."
        ),
        figure=figure,
        header=("x", "y", f"loss, {plane.unit}"),
        rows=[
            (x, y, float(plane.loss[row, column]))
            for row, y in enumerate(plane.y)
            for column, x in enumerate(plane.x)
        ],
    )


def _ridges(plane: Plane) -> str:
    """The greatest losses on straight lines, in words."""
    told = [
        f"{max(losses):.4g} from {first} to {second}"
        for (first, second), losses in plane.lines.items()
    ]
    return f" Greatest loss on the straight lines: {', '.join(told)}." if told else ""


def _contours(axes: Axes, plane: Plane) -> None:
    loss = np.ma.masked_invalid(plane.loss)
    low, high = float(loss.min()), float(loss.max())
    if high - low <= 1e-9 * abs(high):
        levels = np.linspace(low - 1, low + 1, 3)
    elif low > 0:
        levels = np.geomspace(low, high, LEVELS)
    else:
        levels = np.linspace(low, high, LEVELS)
    filled = axes.contourf(
        plane.x, plane.y, loss, levels, norm="log" if low > 0 else "linear", cmap="viridis"
    )
    filled.set_rasterized(True)
    figure = axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(filled, ax=axes, label=f"loss, {plain(plane.unit)}")
    ticks = levels[::2].tolist()
    bar.set_ticks(ticks, labels=[f"{level:.3g}" for level in ticks])
    bar.minorticks_off()
