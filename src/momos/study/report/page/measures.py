"""Init → trained → compressed: every measure of every treatment, its controls beside it."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import geometric_mean
from typing import Any

from momos.study.cohorts import PLAIN
from momos.study.report.page.estimate import Estimate
from momos.study.report.page.groups import Group, Subject, seeds_of
from momos.study.report.page.picture import file_name
from momos.study.report.page.tables import NONE, Entry, Table, amount, words

COLUMNS = (
    "measure",
    "kind",
    "unit",
    "state",
    "treatment",
    "seeds",
    "at initialization",
    "now",
    "95 % interval",
    "now / init",
    "of it arrangement",
    "of it values",
    "shuffled",
    "z to shuffled",
)
NUMBERS = ("seeds", "at initialization", "now", *COLUMNS[9:])


def table_of_measures(subject: Subject) -> Table | None:
    """None where nothing was measured."""
    names = dict.fromkeys(
        row["name"]
        for g in subject.groups
        for run in g.runs
        for row in _whole(run.measures)
    )
    rows = [row for name in names for row in _rows(subject, name)]
    if not rows:
        return None
    return Table(
        name=file_name("measures", subject.task, subject.network, subject.metric.label),
        title=f"Initialization, trained, compressed: {subject.title}",
        caption=(
            f"Means over seeds, {seeds_of(subject.groups)} a row. Codes are bits that somebody "
            "could decode, given in bits per weight; scores are numbers that are no bits. Now / "
            "init = arrangement × values, geometric means: what the order of the weights gives, "
            "and what their values alone do. Shuffled: the same weights in random order, where "
            "order matters to the measure."
        ),
        columns=COLUMNS,
        numeric=frozenset(NUMBERS),
        rows=rows,
    )


def _whole(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row for row in rows if not row.get("tensor"))


def _rows(subject: Subject, name: str) -> Iterator[tuple[Entry, ...]]:
    for group in subject.groups:
        found = [
            row for run in group.runs for row in _whole(run.measures) if row["name"] == name
        ]
        if found:
            yield _row(group, name, found)


def _row(group: Group, name: str, found: list[dict[str, Any]]) -> tuple[Entry, ...]:
    first = found[0]
    code = first["kind"] == "code"

    def column(key: str, *, bits: bool = code) -> Estimate | None:
        return Estimate.of(_value(row, key, bits) for row in found)

    def factor(key: str) -> float | None:
        return _product(row.get(key) for row in found)

    now = column("value")
    state = "trained" if group.treatment in PLAIN else "compressed"
    return (
        Entry(name, note="; ".join(str(first.get(key) or "") for key in ("view", "about"))),
        Entry("code" if code else "score"),
        Entry("bits per weight" if code else first.get("unit", "score")),
        *words(state, group.label),
        Entry(str(len(found)), len(found)),
        _mean(column("init_value")),
        _mean(now) if now else Entry(NONE, note=str(first.get("unavailable") or "")),
        Entry(_ends(now) if now and now.n > 1 else NONE),
        *(amount(factor(key), 3) for key in ("ratio", "arrangement", "value_distribution")),
        _mean(column("shuffled_mean")),
        amount(z.mean if (z := column("shuffled_z", bits=False)) else None, 1),
    )


def _value(row: dict[str, Any], key: str, bits: bool) -> float | None:
    value = row.get(key)
    if value is None or not bits:
        return value
    return value / row["num_weights"] if row.get("num_weights") else None


def _product(values: Iterable[float | None]) -> float | None:
    """Geometric mean of factors; None if there is none, or one is not above 0."""
    found = [value for value in values if value is not None]
    return geometric_mean(found) if found and min(found) > 0 else None


def _mean(estimate: Estimate | None) -> Entry:
    return Entry(_digits(estimate.mean), estimate.mean) if estimate else Entry(NONE)


def _ends(estimate: Estimate) -> str:
    return f"{_digits(estimate.low)} to {_digits(estimate.high)}"


def _digits(value: float) -> str:
    """Four digits, however large."""
    return f"{value:#.4g}".rstrip(".") if abs(value) < 1e4 else f"{value:.0f}"
