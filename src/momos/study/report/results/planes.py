"""The loss between a dense network and a mosaic."""

import math
from collections.abc import Sequence
from pathlib import Path

from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.page.planes import Plane, loss_plane, planes_in
from momos.study.report.results.part import Part

ENDS = ("dense", "mosaic")
HEADER = (
    *("plane", "loss of the start", "dense", "mosaic", "greatest between dense and mosaic"),
    *("greatest between start and mosaic", "distance of dense and mosaic"),
)


def plane_part(places: Sequence[Path]) -> Part:
    """Loss at the three networks, and the greatest on the straight lines to the mosaic."""
    planes, _ = planes_in(places)
    own = [
        plane
        for plane in planes
        if ENDS in plane.lines and ("start", "mosaic") in plane.lines
    ]
    if not own:
        return Part()
    rows = [_row(plane) for plane in own]
    text = f"Loss on training data, in {own[0].unit}.\n"
    return Part(f"{text}\n{markdown(HEADER, rows, left=1)}", [*map(loss_plane, own)])


def _row(plane: Plane) -> tuple[str, ...]:
    between, from_start = plane.lines[ENDS], plane.lines["start", "mosaic"]
    first, second = (plane.points[name] for name in ENDS)
    losses = (from_start[0], between[0], between[-1], max(between), max(from_start))
    return (
        plane.title.partition(":")[0],
        *(f"{loss:.3g}" for loss in losses),
        number(math.dist(first, second), 2),
    )
