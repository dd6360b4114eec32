"""Tables: values that the page, CSV and the command show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from momos.study.analysis.metric import number
from momos.study.report.figure import write_csv

NONE = "–"


@dataclass(frozen=True)
class Entry:
    """What stands in a table: words, what they are sorted by, and where they lead."""

    text: str
    value: float | str | None = None
    link: str = ""
    note: str = ""

    @property
    def sorted_by(self) -> float | str:
        """Nothing, which is sorted last, if there is no number."""
        if isinstance(self.value, float) and not isfinite(self.value):
            return ""
        return "" if self.text == NONE else self.text if self.value is None else self.value


@dataclass(frozen=True)
class Table:
    """Rows of entries under `columns`; those named in `numeric` are sorted as numbers.

    Rows whose numbers are in `strong` stand out.
    """

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    numeric: frozenset[str]
    rows: Sequence[Sequence[Entry]]
    strong: frozenset[int] = frozenset()

    def write(self, folder: Path) -> None:
        """As CSV: numbers as they are, words as they stand."""
        rows = ([entry.sorted_by for entry in row] for row in self.rows)
        write_csv(folder / f"{self.name}.csv", self.columns, rows)


def words(*texts: str) -> Iterable[Entry]:
    return (Entry(text or NONE) for text in texts)


def amount(value: float | None, decimals: int = 2) -> Entry:
    """A number, or that there is none."""
    if value is None or not isfinite(value):
        return Entry(NONE)
    return Entry(number(value, decimals), value)
