"""Writing the report: `report.html`, and figures and tables beside it."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from momos._util.escaping import visible
from momos.study.report.page.looks import STYLE
from momos.study.report.page.sections import Section, sections_of
from momos.study.store import Broken, Finished, read_all

PAGE, FIGURES = "report.html", "figures"
PACKAGE = "momos.study.report.page"


def report(places: Sequence[Path], folder: Path) -> Path:
    """The page on all runs in `places`; PNG, SVG and CSV of its figures in `folder`/figures.

    The page needs nothing beside it: figures, style and script are in it. Folders that are no
    finished runs are listed in it, with why.

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
        _write(sections, figures)
        text = _page(sections, runs, [*broken, *unread, *copies])
    path = folder / PAGE
    path.write_text(text, "utf-8")
    return path


def _once(runs: Iterable[Finished]) -> tuple[list[Finished], list[Broken]]:
    """Each cell once: a second folder of the same cell is no second seed."""
    kept: dict[str, Finished] = {}
    copies = []
    for run in runs:
        first = kept.setdefault(run.cell.key, run)
        if first is not run:
            copies.append(Broken(run.folder, f"it is the same run as {first.folder}"))
    return list(kept.values()), copies


def _write(sections: Iterable[Section], figures: Path) -> None:
    for section in sections:
        for each in (*section.pictures, *section.tables):
            each.write(figures)


def _page(
    sections: Sequence[Section], runs: Sequence[Finished], broken: Sequence[Broken]
) -> str:
    environment = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _own("report.js")
    return environment.get_template("report.html.jinja").render(
        sections=sections,
        drawings={p.name: Markup(p.inline()) for s in sections for p in s.pictures},
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
    return files(PACKAGE).joinpath(name).read_text("utf-8")


def _facts(runs: Sequence[Finished]) -> str:
    """What the report is of, in a line."""
    if not runs:
        return "No finished runs."
    tasks = sorted({run.cell.task for run in runs})
    treatments = {run.cell.treatment for run in runs}
    seeds = {run.cell.seed for run in runs}
    return (
        f"{_count(len(runs), 'finished run')} of {_count(len(treatments), 'treatment')} and "
        f"{_count(len(seeds), 'seed')}: {', '.join(tasks)}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _origins(runs: Sequence[Finished]) -> dict[str, str]:
    """Versions, commits and machines, and how many runs are of each where they differ."""
    values: dict[str, dict[str, int]] = {}
    for run in runs:
        for name, value in _flat(run.environment):
            counts = values.setdefault(name, {})
            counts[value] = counts.get(value, 0) + 1
    values.pop("when", None)
    return {
        name: ", ".join(
            value if len(counts) == 1 else f"{value} ({_count(count, 'run')})"
            for value, count in counts.items()
        )
        for name, counts in values.items()
    }


def _flat(environment: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in environment.items():
        if isinstance(value, dict):
            yield from ((inner, str(each)) for inner, each in value.items() if each != "")
        elif value != "":
            yield name, str(value)
