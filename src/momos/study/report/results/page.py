"""The page of published results: every number in it comes from run folders."""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

from momos.study.report.markdown import fill
from momos.study.report.page.looks import STYLE
from momos.study.report.results.capacities import capacity_part
from momos.study.report.results.compressions import compressors_part
from momos.study.report.results.grokking import grokking_part
from momos.study.report.results.origin import origin_part
from momos.study.report.results.part import Part
from momos.study.report.results.planes import plane_part
from momos.study.report.results.trainings import simplify_part
from momos.study.report.results.usages import usage_part
from momos.study.report.results.verdicts import claims_part
from momos.study.store import Finished, read_all

PAGE, FIGURES = "results.md", Path("results/study")
PARTS: dict[str, Callable[[Sequence[Finished]], Part]] = {
    "origin": origin_part,
    "claims": claims_part,
    "simplify": simplify_part,
    "compressors": compressors_part,
    "capacity": capacity_part,
    "usage": usage_part,
    "grokking": grokking_part,
}
NOTHING = "Not run.\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Fills the page of results, and writes its pictures and tables, from finished runs."""
    parser = ArgumentParser(
        prog="python -m momos.study.report.results", description=main.__doc__
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", help="run folders, or folders of them"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help=f"folder of {PAGE}"
    )
    options = parser.parse_args(arguments)
    try:
        for reason in publish(options.runs, options.output):
            print(f"left out: {reason}")
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def publish(places: Sequence[Path], folder: Path) -> list[str]:
    """Fills `folder`/results.md, and writes pictures and tables beside it; what was left out.

    Raises:
        FileNotFoundError: if a place is no folder, or there is no page.
        ValueError: if the page lacks the place of a part.
    """
    runs, broken = read_all(places)
    page = folder / PAGE
    before = page.read_text("utf-8")
    with matplotlib.rc_context(STYLE):
        parts = {name: part(runs) for name, part in PARTS.items()}
        parts["plane"], unread = plane_part(places)
        text = fill(before, {name: _text(part) for name, part in parts.items()})
        figures = folder / FIGURES
        figures.mkdir(parents=True, exist_ok=True)
        for part in parts.values():
            part.write(figures)
    page.write_text(text, "utf-8")
    return [each.reason for each in (*broken, *unread)]


def _text(part: Part) -> str:
    pictures = (
        f"\n![{picture.alt}]({FIGURES.as_posix()}/{picture.name}.png)\n"
        for picture in part.pictures
    )
    text = part.text.replace("<", "&lt;")  # no markup, no end of a place
    return (text or NOTHING) + "".join(pictures)
