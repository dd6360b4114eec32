"""Writes docs/sizes.md and its pictures: `python -m momos.study.report.curves RUNS… -o DOCS`.

DOCS holds sizes.md, whose generated parts are made anew, and `results`: a file of JSON lines
for each task, one line a run. Finished runs of `sizes` and `ablations` under RUNS are added to
them first.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

from momos._util.escaping import visible
from momos.study.cells import OPTIONS
from momos.study.report.ablations import NOT_RUN, ablation_section
from momos.study.report.entries import ABLATIONS, lines_of, with_new
from momos.study.report.goals import GOALS
from momos.study.report.lines import Line, by_maker, checked
from momos.study.report.markdown import fill
from momos.study.report.points import points_of
from momos.study.report.sections import picture_of, task_section
from momos.study.report.size import metric_against_size
from momos.study.report.verdicts import summary
from momos.study.store import read_all, write_text

PAGE = "sizes.md"
RESULTS = "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Adds runs to the lines, and makes the tables and pictures of all of them."""
    parser = ArgumentParser(
        prog="python -m momos.study.report.curves", description=main.__doc__
    )
    parser.add_argument(
        "runs", type=Path, nargs="*", help="run folders, or folders of them, to be added"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder of sizes.md and results/"
    )
    options = parser.parse_args(arguments)
    try:
        write(options.output, _lines_in(options.runs))
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def write(docs: Path, new: Mapping[str, Sequence[Line]]) -> None:
    """The page of all lines and of new ones, which join the others; all or nothing of it.

    Raises:
        ValueError: if a line is wrong or no part of the page; says where.
    """
    folder = docs / RESULTS
    texts = with_new(folder, new)
    lines = {n: checked(each, folder / f"{n}.jsonl") for n, each in texts.items()}
    ablations = lines.pop(ABLATIONS, [])
    page = docs / PAGE
    text = fill(page.read_text("utf-8"), parts_of(lines, ablations))
    pictures = {
        picture_of(task, own): metric_against_size(points_of(own))
        for task, group in lines.items()
        for own in by_maker(group)
    }
    for name, each in texts.items():
        write_text(folder / f"{name}.jsonl", "".join(f"{line}\n" for line in each))
    for name, figure in pictures.items():
        figure.savefig(folder / name)
    write_text(page, text)


def parts_of(
    tasks: Mapping[str, Sequence[Line]], ablations: Sequence[Line]
) -> dict[str, str]:
    """The generated parts of the page by name; tasks with a goal are there even if not run."""
    parts = dict.fromkeys(GOALS, NOT_RUN)
    parts |= {task: task_section(task, lines) for task, lines in tasks.items()}
    return parts | {
        "summary": summary(tasks),
        ABLATIONS: ablation_section(ablations, tasks),
    }


def _lines_in(places: Sequence[Path]) -> dict[str, list[Line]]:
    """The lines of runs in folders; tells what has none."""
    runs, broken = read_all(places)
    lines = lines_of(runs)
    keys = {line.key for group in lines.values() for line in group}
    for reason in dict.fromkeys(run.reason for run in broken):
        print(f"left out: {reason}", file=sys.stderr)
    others = [run for run in runs if run.cell.key not in keys]
    for run in others:
        if not isfinite(run.metric):
            folder = visible(str(run.folder))
            print(f"left out: {folder}: its metric is {run.metric}", file=sys.stderr)
    if others:
        print(
            f"left out: {len(others)} runs of other recipes, with {', '.join(OPTIONS)}, or "
            "without a finite metric or a machine",
            file=sys.stderr,
        )
    return lines


if __name__ == "__main__":
    main()
