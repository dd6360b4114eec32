"""A figure of the report: on the page as a drawing, beside it as PNG, SVG and CSV."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from momos._util.escaping import csv_cell
from momos.study.report.page.looks import SANS, themed

HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
STYLES = re.compile(r"<style.*?</style>", re.DOTALL)  # would be those of the whole page
COMMENTS = re.compile(r"<!--.*?-->", re.DOTALL)
SIZE = re.compile(r'(<svg[^>]*?) width="[^"]*"|(<svg[^>]*?) height="[^"]*"')
FONT = re.compile(r"(font: [^'\";]*?)'[^\";]*")
NAMES = re.compile(r'(\bid="|href="#|url\(#)')


@dataclass(frozen=True, eq=False)
class Picture:
    """One figure, and the numbers in it.

    `name` is that of its files. `caption` says units and n, `alt` what a reader who cannot see
    it should know.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    header: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    zoomable: bool = False

    def write(self, folder: Path) -> None:
        """Its three files."""
        (folder / f"{self.name}.svg").write_text(self._svg, "utf-8")
        self.figure.savefig(folder / f"{self.name}.png", metadata={"Software": None})
        write_csv(folder / f"{self.name}.csv", self.header, self.rows)

    def inline(self) -> str:
        """The drawing as part of a page: in its colours and letters, with names of its own."""
        svg = self._svg
        for pattern in (HEAD, METADATA, STYLES, COMMENTS):
            svg = pattern.sub("", svg)
        svg = SIZE.sub(lambda found: found[1] or found[2], svg)
        svg = SIZE.sub(lambda found: found[1] or found[2], svg)
        svg = FONT.sub(rf"\g<1>{SANS}", svg)
        svg = NAMES.sub(rf"\g<1>{self.name}-", svg)
        described = f'<svg role="img" aria-labelledby="{self.name}-alt" '
        return themed(svg.replace("<svg ", described, 1))

    @cached_property
    def _svg(self) -> str:
        drawn = StringIO()
        self.figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        self.figure.set_layout_engine("none")  # it is laid out now, and once is enough
        return drawn.getvalue()


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
