"""The report: what finished runs show, as one page that works from disk, and files beside it."""

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from momos._util.escaping import visible
from momos.study.analysis.claims import Judgement, claims, judgements
from momos.study.analysis.cohort import Subject, subjects_of
from momos.study.analysis.metric import counted
from momos.study.report.accuracy import accuracy_against_capacity, accuracy_against_length
from momos.study.report.course import (
    complexity_through_training,
    metric_through_training,
    motif_usage,
)
from momos.study.report.figure import PACKAGE, STYLE, TEMPLATES, Figure
from momos.study.report.listings import (
    Table,
    table_of_claims,
    table_of_measures,
    table_of_runs,
)
from momos.study.report.loss_plane import loss_plane, planes_in
from momos.study.report.tensors import Opened, figures_of_layers, lengths_of_layers, opened
from momos.study.store import Broken, Finished, read_all

PAGE, FIGURES = "report.html", "figures"
LONGEST = 90  # letters of a file's name
N = TypeVar("N", Figure, Table)


@dataclass(frozen=True)
class Section:
    """Figures and tables under one heading; `name` is its place in the page."""

    name: str
    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    judgements: Sequence[Judgement] = ()


def report(places: Sequence[Path], folder: Path) -> Path:
    """The page on all runs in `places`; PNG, SVG and CSV of its figures in `folder`/figures.

    Figures, style and script are in the page, and folders that are no finished runs, with why.

    Raises:
        FileNotFoundError: if a place is no folder.
        ValueError: if there is no run in any of them.
    """
    finished, broken = read_all(places)
    if not finished and not broken:
        raise ValueError(
            f"a report must be of at least one run, got none in {', '.join(map(str, places))} "
            "(momos study run RECIPE makes some)"
        )
    runs, copies = _once(finished)
    figures = folder / FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        sections, unread = sections_of(runs, places, folder)
        for section in sections:
            for each in (*section.figures, *section.tables):
                each.write(figures)
        text = _page(sections, runs, [*broken, *unread, *copies])
    path = folder / PAGE
    path.write_text(text, "utf-8")
    return path


def sections_of(
    runs: Sequence[Finished], places: Sequence[Path], folder: Path
) -> tuple[list[Section], list[Broken]]:
    """All sections that are not empty, and the files that cannot be read.

    The first has one figure, that of the subject with most runs, and the claims in words.
    """
    subjects, found = subjects_of(runs), claims(runs) if runs else []
    lengths = [accuracy_against_length(subject) for subject in subjects]
    pairs = list(zip(subjects, lengths, strict=True))
    _, first = max(pairs, key=_weight, default=(None, None))
    planes, broken = planes_in(places)
    inside: list[tuple[Subject, Opened]] = []
    for subject in subjects:
        readable, unread = opened(subject)
        inside += [(subject, each) for each in readable]
        broken += unread
    against = [f for s, length in pairs for f in (length, *accuracy_against_capacity(s))]
    measures = [table for subject in subjects if (table := table_of_measures(subject))]
    courses = _all(metric_through_training, complexity_through_training, subjects=subjects)
    sections = [
        Section("summary", "In short", [first] if first else (), (), judgements(found)),
        Section(
            "accuracy",
            "Length and capacity" if len(lengths) > 1 else "Capacity",
            [figure for figure in against if figure is not None and figure is not first],
        ),
        Section("measures", "Initialization, trained, compressed", tables=measures),
        Section("training", "Through training", courses),
        Section("usage", "Use of motifs", _all(motif_usage, subjects=subjects)),
        Section(
            "mosaics", "Mosaics", [f for pair in inside for f in figures_of_layers(*pair)]
        ),
        Section(
            "layers", "Length of tensors", [lengths_of_layers(*pair) for pair in inside]
        ),
        Section("plane", "Loss plane", [loss_plane(plane) for plane in planes]),
        Section("claims", "Verdicts", tables=[table_of_claims(found)] if found else ()),
        Section("runs", "Runs", tables=[table_of_runs(runs, folder)] if runs else ()),
    ]
    return _named([s for s in sections if s.figures or s.tables or s.judgements]), broken


def _once(runs: Iterable[Finished]) -> tuple[list[Finished], list[Broken]]:
    kept: dict[str, Finished] = {}
    copies = []
    for run in runs:
        first = kept.setdefault(run.cell.key, run)
        if first is not run:
            copies.append(Broken(run.folder, f"it is the same run as {first.folder}"))
    return list(kept.values()), copies


def _weight(drawn: tuple[Subject, Figure | None]) -> tuple[bool, int]:
    """Figures before none, and those of many runs before those of few."""
    subject, figure = drawn
    return figure is not None, sum(len(cohort.runs) for cohort in subject.cohorts)


def _all(
    *drawn: Callable[[Subject], list[Figure]], subjects: Sequence[Subject]
) -> list[Figure]:
    return [figure for subject in subjects for draw in drawn for figure in draw(subject)]


def _named(sections: Sequence[Section]) -> list[Section]:
    """The same with a name of its own for every figure and table."""
    taken = {section.name for section in sections}

    def own(named: N) -> N:
        stem = named.name[:LONGEST].strip("-") or "figure"
        names = chain([stem], (f"{stem}-{number}" for number in count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        return replace(named, name=name)

    return [
        replace(s, figures=[*map(own, s.figures)], tables=[*map(own, s.tables)])
        for s in sections
    ]


def _page(
    sections: Sequence[Section], runs: Sequence[Finished], broken: Sequence[Broken]
) -> str:
    environment = Environment(
        loader=PackageLoader(PACKAGE, TEMPLATES),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _own("report.js")
    return environment.get_template("report.html.jinja").render(
        sections=sections,
        drawings={f.name: Markup(f.inline()) for s in sections for f in s.figures},
        broken=broken,
        facts=_facts(runs),
        origins=_origins(runs),
        figures=FIGURES,
        style=Markup(_own("report.css")),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )


def _shown(value: Any) -> Any:
    """What the page says, without characters that cannot be printed."""
    if isinstance(value, str | Path) and not isinstance(value, Markup):
        return visible(str(value))
    return value


def _own(name: str) -> str:
    return files(PACKAGE).joinpath(TEMPLATES, name).read_text("utf-8")


def _facts(runs: Sequence[Finished]) -> str:
    if not runs:
        return "No finished runs."
    tasks = sorted({run.cell.task for run in runs})
    treatments, seeds = {r.cell.treatment for r in runs}, {r.cell.seed for r in runs}
    return (
        f"{counted(len(runs), 'finished run')} of {counted(len(treatments), 'treatment')} and "
        f"{counted(len(seeds), 'seed')}: {', '.join(tasks)}."
    )


def _origins(runs: Sequence[Finished]) -> dict[str, str]:
    """Versions, commits and machines, and how many runs are of each where they differ."""
    values: dict[str, Counter[str]] = {}
    for run in runs:
        for name, value in run.environment.items():
            several = value if isinstance(value, dict) else {name: value}
            for inner, each in several.items():
                if each != "" and inner != "when":
                    values.setdefault(inner, Counter())[str(each)] += 1
    return {
        name: ", ".join(
            value if len(counts) == 1 else f"{value} ({counted(count, 'run')})"
            for value, count in counts.items()
        )
        for name, counts in values.items()
    }
