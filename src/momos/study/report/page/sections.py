"""The sections of the report: each only where runs have something to show in it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from momos.study.report.page.capacities import accuracy_against_capacity
from momos.study.report.page.courses import (
    complexity_through_training,
    metric_through_training,
)
from momos.study.report.page.files import Opened, opened
from momos.study.report.page.groups import Subject, subjects_of
from momos.study.report.page.layers import lengths_of_layers
from momos.study.report.page.lengths import accuracy_against_length
from momos.study.report.page.measures import table_of_measures
from momos.study.report.page.picture import Picture
from momos.study.report.page.planes import loss_plane, planes_in
from momos.study.report.page.tables import Table, table_of_runs
from momos.study.report.page.tiles import pictures_of_layers
from momos.study.report.page.usages import motif_usage
from momos.study.report.page.verdicts import (
    Judgement,
    judgements,
    tables_of_claims,
)
from momos.study.store import Broken, Finished

LONGEST = 90  # letters of a file's name
T = TypeVar("T")
N = TypeVar("N", Picture, Table)


@dataclass(frozen=True)
class Section:
    """Figures and tables under one heading; `name` is its place in the page."""

    name: str
    title: str
    pictures: Sequence[Picture] = field(default=())
    tables: Sequence[Table] = field(default=())
    judgements: Sequence[Judgement] = field(default=())


def sections_of(
    runs: Sequence[Finished], places: Sequence[Path], folder: Path
) -> tuple[list[Section], list[Broken]]:
    """All sections that are not empty, and the files beyond reading.

    The first one is what a reader sees without scrolling: one picture, that of the subject with
    most runs, and the claims in words.
    """
    subjects = subjects_of(runs)
    lengths = [(subject, accuracy_against_length(subject)) for subject in subjects]
    first = max(lengths, key=_weight, default=(None, None))[1]
    planes, broken = planes_in(places)
    inside: list[tuple[Subject, Opened]] = []
    for subject in subjects:
        found, unread = opened(subject)
        inside += [(subject, each) for each in found]
        broken += unread
    measures = map(table_of_measures, subjects)
    sections = [
        Section("summary", "In short", _there([first]), judgements=judgements(runs)),
        Section(
            "accuracy",
            "Length and capacity" if len(lengths) > 1 else "Capacity",
            [
                picture
                for subject, length in lengths
                for picture in (length, *accuracy_against_capacity(subject))
                if picture is not None and picture is not first
            ],
        ),
        Section("measures", "Initialization, trained, compressed", tables=_there(measures)),
        Section("training", "Through training", _all(_through_training, subjects)),
        Section("usage", "Use of motifs", _all(motif_usage, subjects)),
        Section(
            "mosaics", "Mosaics", [p for pair in inside for p in pictures_of_layers(*pair)]
        ),
        Section(
            "layers", "Length of tensors", [lengths_of_layers(*pair) for pair in inside]
        ),
        Section("plane", "Loss plane", [loss_plane(plane) for plane in planes]),
        Section("claims", "Verdicts", tables=tables_of_claims(runs)),
        Section("runs", "Runs", tables=[table_of_runs(runs, folder)] if runs else ()),
    ]
    shown = [s for s in sections if s.pictures or s.tables or s.judgements]
    return _named(shown), broken


def _weight(drawn: tuple[Subject, Picture | None]) -> tuple[bool, int]:
    """Pictures before none, and those of many runs before those of few."""
    subject, picture = drawn
    return picture is not None, sum(len(group.runs) for group in subject.groups)


def _through_training(subject: Subject) -> list[Picture]:
    return metric_through_training(subject) + complexity_through_training(subject)


def _there(found: Iterable[T | None]) -> list[T]:
    return [each for each in found if each is not None]


def _all(
    pictures: Callable[[Subject], list[Picture]], subjects: Sequence[Subject]
) -> list[Picture]:
    return [picture for subject in subjects for picture in pictures(subject)]


def _named(sections: Sequence[Section]) -> list[Section]:
    """The same with a name of its own for every figure and table."""
    taken = {section.name for section in sections}

    def own(named: N) -> N:
        stem = name = named.name[:LONGEST].strip("-") or "figure"
        count = 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name)
        return replace(named, name=name)

    return [
        replace(s, pictures=[*map(own, s.pictures)], tables=[*map(own, s.tables)])
        for s in sections
    ]
