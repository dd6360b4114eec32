"""The loss on a plane through three networks, as a value and as a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Annotated, NotRequired

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from momos.study.cell import Cell
from momos.study.schema import Number, Text, checked, parsed
from momos.study.store import read_text, write_json

FILE = "plane.json"
LARGEST = 2**26  # bytes of it, which are 1500 × 1500 places or more
Place = tuple[float, float]
Losses = tuple[float, ...]  # NaN where a loss is not finite


@dataclass(frozen=True)
class Wanted:
    """A plane to be computed: through the networks of three cells, at `size` × `size` places.

    `batches` of the training data give the loss.
    """

    cells: Mapping[str, Cell]
    size: int
    batches: int

    def path(self, root: Path) -> Path:
        """Where it is written; by its last cell, which needs the others."""
        *_, last = self.cells.values()
        return root / f"plane-{self.size}-{self.batches}-{last.folder}" / FILE


Loss = Annotated[Number, BeforeValidator(lambda found: nan if found is None else found)]
_Line = TypedDict("_Line", {"from": Text, "to": Text, "loss": tuple[Loss, ...]})


class _Stored(TypedDict):
    title: Text
    x: tuple[Number, ...]
    y: tuple[Number, ...]
    loss: tuple[tuple[Loss, ...], ...]
    points: dict[str, tuple[Number, Number]]
    lines: NotRequired[list[_Line]]
    unit: Text


@dataclass(frozen=True)
class Plane:
    """Loss at the crossings of `x` and `y`, a row for each y; and where the networks are.

    `lines` has the loss on the straight line from one network to another, at even distances.
    """

    title: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    loss: tuple[Losses, ...]
    points: Mapping[str, Place]
    lines: Mapping[tuple[str, str], Losses]
    unit: str

    def __post_init__(self) -> None:
        shape, widths = (len(self.y), len(self.x)), {len(row) for row in self.loss}
        if min(shape) < 2 or widths != {shape[1]} or len(self.loss) != shape[0]:
            raise ValueError(
                f"loss must be at each of {shape[0]} × {shape[1]} places, at least 2 × 2, got "
                f"{len(self.loss)} rows of {sorted(widths)}"
            )
        ends = [end for point in self.points.values() for end in point]
        if not all(map(isfinite, (*self.x, *self.y, *ends))):
            raise ValueError("places must be finite")
        if any(list(axis) != sorted(set(axis)) for axis in (self.x, self.y)):
            raise ValueError("places on x and y must rise")
        for (first, second), losses in self.lines.items():
            if not losses or not {first, second} <= self.points.keys():
                raise ValueError(
                    f"lines must have losses, and points at their ends, but that of {first!r} "
                    f"to {second!r} has not"
                )

    def write(self, path: Path) -> None:
        """Writes it as a file, at once; losses that are not finite are null there."""
        lines = [
            {"from": first, "to": second, "loss": _stored(losses)}
            for (first, second), losses in self.lines.items()
        ]
        loss = [_stored(row) for row in self.loss]
        points = dict(self.points)
        write_json(path, vars(self) | {"loss": loss, "points": points, "lines": lines})

    @classmethod
    def read(cls, path: Path) -> "Plane":
        """The plane in a file.

        Raises:
            ValueError: if it is damaged; says how.
        """
        try:
            stored = checked(_Stored, parsed(read_text(path.parent, FILE, most=LARGEST)))
            if not any(isfinite(loss) for row in stored["loss"] for loss in row):
                raise ValueError("loss must be finite somewhere")
            lines = {(n["from"], n["to"]): n["loss"] for n in stored.get("lines", [])}
            return cls(**{**stored, "lines": lines})
        except (OSError, ValueError) as error:
            raise ValueError(f"{FILE} is damaged: {error}") from error


def _stored(losses: Losses) -> list[float | None]:
    return [loss if isfinite(loss) else None for loss in losses]
