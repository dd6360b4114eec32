"""Tables, which the page, CSV and the command show; those of runs, measures and verdicts."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import geometric_mean
from typing import Any
from urllib.parse import quote

from momos.study.analysis.claims import Claim
from momos.study.analysis.cohort import Cohort, Subject, seeds_of
from momos.study.analysis.metric import grouped, metric_of, number
from momos.study.analysis.quantities import measures_of
from momos.study.analysis.statistics import Estimate
from momos.study.cell import PLAIN
from momos.study.report.figure import file_name, texts, write_csv
from momos.study.store import Finished, Row

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


PARTS = ("ratio", "arrangement", "value_distribution")  # factors of a row
SHUFFLED = ("shuffled", "z to shuffled")


def table_of_measures(subject: Subject) -> Table | None:
    """Every measure of every treatment, with its controls; None where nothing was measured."""
    runs = [run for cohort in subject.cohorts for run in cohort.runs.values()]
    names = [quantity.name for quantity in measures_of(runs)]
    rows = [
        _measure(cohort, name, found)
        for name in names
        for cohort in subject.cohorts
        if (found := [row for run in cohort.runs.values() if (row := run.measure(name))])
    ]
    if not rows:
        return None
    return Table(
        name=file_name("measures", subject.task, subject.network, subject.metric.label),
        **_texts("measures", subject=subject.title, seeds=seeds_of(subject.cohorts)),
        rows=rows,
    )


def _measure(cohort: Cohort, name: str, found: Sequence[Row]) -> tuple[Entry, ...]:
    first = found[0]
    code = first["kind"] == "code"

    def mean(key: str) -> Estimate | None:
        """Per weight, if it is in bits."""
        rows: Sequence[Mapping[str, Any]] = found
        if not code:
            return Estimate.of_finite(row.get(key) for row in rows)
        sizes = [(row.get(key), row.get("num_weights")) for row in rows]
        return Estimate.of_finite(v / n for v, n in sizes if v is not None and n)

    now, z = mean("value"), Estimate.of_finite(row.get("shuffled_z") for row in found)
    ends = now and now.n > 1 and f"{_digits(now.low)} to {_digits(now.high)}"
    note = "; ".join(str(first.get(key) or "") for key in ("view", "about"))
    return (
        Entry(name, note=note),
        Entry("code" if code else "score"),
        Entry("bits per weight" if code else first["unit"]),
        *words("trained" if cohort.treatment in PLAIN else "compressed", cohort.label),
        Entry(str(len(found)), len(found)),
        _mean(mean("init_value")),
        _mean(now) if now else Entry(NONE, note=first.get("unavailable", "")),
        Entry(ends or NONE),
        *(amount(_product(row.get(name) for row in found), 3) for name in PARTS),
        _mean(mean("shuffled_mean")),
        amount(z.mean if z else None, 1),
    )


def _texts(kind: str, **values: Any) -> dict[str, Any]:
    found = texts(kind, **values)
    return found | {"numeric": frozenset(found["numeric"])}


def _product(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return geometric_mean(found) if found and min(found) > 0 else None


def _mean(estimate: Estimate | None) -> Entry:
    return Entry(_digits(estimate.mean), estimate.mean) if estimate else Entry(NONE)


def _digits(value: float) -> str:
    return f"{value:#.4g}".rstrip(".") if abs(value) < 1e4 else f"{value:.0f}"


def table_of_claims(found: Sequence[Claim]) -> Table:
    """Each verdict by itself."""
    return Table(
        name="verdicts",
        **_texts("verdicts", count=len(found)),
        rows=[
            (
                Entry(str(claim.number), claim.number),
                *words(claim.case, claim.verdict, claim.measure, claim.evidence),
            )
            for claim in found
        ],
    )


def table_of_runs(runs: Sequence[Finished], folder: Path) -> Table:
    """A row for every run; links are relative to `folder`."""
    return Table(
        name="all-runs",
        **_texts("runs", count=len(runs)),
        rows=[_run(run, folder) for run in runs],
    )


def _run(run: Finished, folder: Path) -> tuple[Entry, ...]:
    cell, metric = run.cell, metric_of(run)
    size, name = run.lengths["file"] / 8, run.recipe["name"]
    given = ", ".join(f"{n}={v!r}" for n, v in run.recipe["settings"].items())
    return (
        Entry(name, note=f"{name}({given})" if given else name),
        *words(cell.task, cell.network, cell.treatment, settings_of(run)),
        Entry(str(cell.seed), cell.seed),
        amount(metric.scale * run.metric, metric.decimals),
        Entry(metric.label),
        Entry(grouped(size), size),
        amount(run.factor, 1),
        amount(run.seconds, 1),
        Entry(str(run.environment.get("commit") or NONE)),
        Entry(run.folder.name, link=_link(run.folder, folder)),
    )


def settings_of(run: Finished) -> str:
    """Settings of the treatment, and what else the cell has of its own."""
    cell = run.cell
    texts = [f"{name}={value}" for name, value in cell.settings.items()]
    for name in ("epochs", "learning_rate", "weight_decay"):
        if getattr(cell, name) is not None:
            texts.append(f"{name}={getattr(cell, name):g}")
    texts += cell.option_words
    for name in ("start", "teacher"):
        if other := getattr(cell, name):
            texts.append(f"{name}={other.folder}")
    return ", ".join(texts) or NONE


def _link(target: Path, folder: Path) -> str:
    try:
        return quote(Path(os.path.relpath(target, folder.resolve())).as_posix()) + "/"
    except ValueError:  # on another drive
        return target.as_uri()
