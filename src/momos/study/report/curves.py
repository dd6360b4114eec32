"""Writes docs/results.md and its pictures: `python -m momos.study.report.curves RESULTS -o DOCS`.

RESULTS is the folder of JSON lines; DOCS holds results.md, whose generated parts are made anew.
"""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path

from momos.study.report.ablations import NOT_RUN, ablation_section
from momos.study.report.goals import GOALS
from momos.study.report.lines import Line, read_lines
from momos.study.report.markdown import fill
from momos.study.report.points import points_of
from momos.study.report.sections import task_section
from momos.study.report.size import metric_against_size
from momos.study.report.verdicts import summary

PAGE = "results.md"
ABLATIONS = "ablations"


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the tables and pictures of all results in a folder."""
    parser = ArgumentParser(
        prog="python -m momos.study.report.curves", description=main.__doc__
    )
    parser.add_argument("results", type=Path, help="folder of .jsonl files, one a task")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder of results.md"
    )
    options = parser.parse_args(arguments)
    lines = {
        path.stem: read_lines(path) for path in sorted(options.results.glob("*.jsonl"))
    }
    ablations = lines.pop(ABLATIONS, [])
    page = options.output / PAGE
    text = fill(page.read_text("utf-8"), parts_of(lines, ablations))
    pictures = options.output / "results"
    pictures.mkdir(exist_ok=True)
    for task, group in lines.items():
        metric_against_size(points_of(group)).savefig(pictures / f"{task}.png")
    page.write_text(text, "utf-8")


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


if __name__ == "__main__":
    main()
