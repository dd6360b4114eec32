"""Places for labels beside points: no label covers another, whatever the points are."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle, in pixels from the lower left corner of a figure."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def height(self) -> float:
        return self.top - self.bottom

    def overlaps(self, other: "Box") -> bool:
        """Whether both share more than an edge."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def at(self, bottom: float) -> "Box":
        """The same at another height."""
        return self._replace(bottom=bottom, top=bottom + self.height)

    def within(self, frame: "Box") -> "Box":
        """The same, moved into `frame` as far as it must be; its left and lower ends come first."""
        left = max(frame.left, min(self.left, frame.right - (self.right - self.left)))
        moved = self._replace(left=left, right=left + self.right - self.left)
        return moved.at(max(frame.bottom, min(self.bottom, frame.top - self.height)))


def placed(wanted: Sequence[Box], frame: Box, taken: Iterable[Box] = ()) -> list[Box]:
    """Each box as near to where it is wanted as it fits, moved up or down, in the order given.

    No box overlaps one before it or leaves `frame`, provided that `frame` is at least `least_height`
    high. What is `taken` is kept free too, but only where there is room for that.

    Raises:
        ValueError: if a box is not finite, or `frame` too low for all.
    """
    found: list[Box] = []
    blocked = list(taken)
    for box in wanted:
        if not all(map(isfinite, box)):
            raise ValueError(f"boxes must be finite, got {tuple(box)}")
        box = box.within(frame)
        place = _nearest(box, frame, [*blocked, *found]) or _nearest(box, frame, found)
        if place is None:
            raise ValueError(
                f"a frame for {len(wanted)} boxes must be at least "
                f"{least_height(wanted):g} high, got {frame.height:g}"
            )
        found.append(place)
    return found


def least_height(boxes: Sequence[Box]) -> float:
    """A frame as high as this has room for all: each box placed keeps off twice its height."""
    highest = max((box.height for box in boxes), default=0.0)
    return max(0, 2 * len(boxes) - 1) * highest


def _nearest(box: Box, frame: Box, others: Sequence[Box]) -> Box | None:
    """As it is, or touching one of `others` from above or below; None if it fits nowhere."""
    beside = [
        other for other in others if other.left < box.right and box.left < other.right
    ]
    heights = [box.bottom]
    for other in beside:
        heights += [other.top, other.bottom - box.height]
    for height in sorted(heights, key=lambda height: abs(height - box.bottom)):
        place = box.at(height)
        fits = frame.bottom <= place.bottom and place.top <= frame.top
        if fits and not any(place.overlaps(other) for other in beside):
            return place
    return None
