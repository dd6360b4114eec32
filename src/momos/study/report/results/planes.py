"""The loss between a dense network and a mosaic."""

import math
from collections.abc import Sequence
from pathlib import Path

from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.page.planes import Plane, loss_plane, planes_in
from momos.study.report.results.part import Part
from momos.study.store import Broken

ENDS = ("dense", "mosaic")
HEADER = (
    *("plane", "loss of the start", "dense", "mosaic", "greatest between dense and mosaic"),
    *("greatest between start and mosaic", "distance of dense and mosaic"),
)


def plane_part(places: Sequence[Path]) -> tuple[Part, list[Broken]]:
    """Loss at the three networks, and the greatest on the lines to the mosaic; files unread."""
    planes, broken = planes_in(places)
    own = [p for p in planes if {ENDS, ("start", "mosaic")} <= p.lines.keys()]
    if not own:
        return Part(), broken
    rows = [_row(plane) for plane in own]
    text = f"Loss on training data, in {own[0].unit}.\n\n{markdown(HEADER, rows, left=1)}"
    pictures = {picture.name: picture for picture in map(loss_plane, own)}
    return Part(text, [*pictures.values()]), broken


def _row(plane: Plane) -> tuple[str, ...]:
    between, from_start = plane.lines[ENDS], plane.lines["start", "mosaic"]
    first, second = (plane.points[name] for name in ENDS)
    losses = (from_start[0], between[0], between[-1], max(between), max(from_start))
    return (
        plane.title.partition(":")[0],
        *(f"{loss:.3g}" for loss in losses),
        number(math.dist(first, second), 2),
    )
