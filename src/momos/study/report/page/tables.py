"""Tables of the report, whose rows a reader can sort."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from urllib.parse import quote

from momos.study.report.metric import number
from momos.study.report.page.groups import metric_of
from momos.study.report.page.picture import write_csv
from momos.study.report.table import grouped
from momos.study.store import Finished

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
    """Rows of entries under `columns`; those named in `numeric` are sorted as numbers."""

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    numeric: frozenset[str]
    rows: Sequence[Sequence[Entry]]

    def write(self, folder: Path) -> None:
        """As CSV: numbers as they are, words as they stand."""
        rows = ([entry.sorted_by for entry in row] for row in self.rows)
        write_csv(folder / f"{self.name}.csv", self.columns, rows)


RUN_COLUMNS = (
    "recipe",
    "task",
    "network",
    "treatment",
    "settings",
    "seed",
    "metric",
    "measured as",
    "file, bytes",
    "times smaller",
    "time, s",
    "commit",
    "folder",
)
RUN_NUMBERS = ("seed", "metric", "file, bytes", "times smaller", "time, s")


def table_of_runs(runs: Sequence[Finished], folder: Path) -> Table:
    """A row for every run; links are relative to `folder`."""
    return Table(
        name="all-runs",
        title="All runs",
        caption=(
            f"n = {len(runs)} runs. Times smaller: than all parameters at 32 bits. Time is that "
            "of training on the machine below; a heading sorts."
        ),
        columns=RUN_COLUMNS,
        numeric=frozenset(RUN_NUMBERS),
        rows=[_run(run, folder) for run in runs],
    )


def amount(value: float | None, decimals: int = 2) -> Entry:
    """A number, or that there is none."""
    if value is None or not isfinite(value):
        return Entry(NONE)
    return Entry(number(value, decimals), value)


def settings_of(run: Finished) -> str:
    """Settings of the treatment, and what else the cell has of its own."""
    cell = run.cell
    words = [f"{name}={value}" for name, value in cell.settings.items()]
    for name in ("epochs", "learning_rate", "weight_decay"):
        if getattr(cell, name) is not None:
            words.append(f"{name}={getattr(cell, name):g}")
    words += cell.option_words
    for name in ("start", "teacher"):
        if other := getattr(cell, name):
            words.append(f"{name}={other.folder}")
    return ", ".join(words) or NONE


def link_to(target: Path, folder: Path) -> str:
    """From a page in `folder`, relative where there is a way."""
    try:
        return quote(Path(os.path.relpath(target, folder.resolve())).as_posix()) + "/"
    except ValueError:  # on another drive
        return target.as_uri()


def words(*texts: str) -> Iterable[Entry]:
    return (Entry(text or NONE) for text in texts)


def _run(run: Finished, folder: Path) -> tuple[Entry, ...]:
    cell, metric = run.cell, metric_of(run)
    size = run.lengths["file"] / 8
    return (
        Entry(run.recipe.split("(")[0], run.recipe, note=run.recipe),
        *words(cell.task, cell.network, cell.treatment, settings_of(run)),
        Entry(str(cell.seed), cell.seed),
        amount(metric.scale * run.metric, metric.decimals),
        Entry(metric.label),
        Entry(grouped(size), size),
        amount(run.factor, 1),
        amount(run.seconds, 1),
        Entry(str(run.environment.get("commit") or NONE)),
        Entry(run.folder.name, link=link_to(run.folder, folder)),
    )
