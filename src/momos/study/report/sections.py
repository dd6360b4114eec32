"""The part of docs/sizes.md on one task: every number in it comes from the lines."""

from collections.abc import Sequence

from momos.study.report.cells import NONE, difference, origin, settings_of, spread
from momos.study.report.lines import Line, by_maker
from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.points import points_of, reference_of
from momos.study.report.table import grouped
from momos.study.report.verdicts import check


def task_section(name: str, lines: Sequence[Line]) -> str:
    """What the study measured of a task, and below it what the plain loop did."""
    return "\n".join(_part(name, own) for own in by_maker(lines))


def picture_of(name: str, lines: Sequence[Line]) -> str:
    """The name of the picture of lines of one maker."""
    return f"{name}-study.png" if lines[0].by_study else f"{name}.png"


def _part(name: str, lines: Sequence[Line]) -> str:
    """The picture's place, the table, the check and where they come from."""
    points = points_of(lines)
    reference = reference_of(points)
    metric = reference.metric
    header = (
        "treatment",
        "settings",
        "epochs",
        "seeds",
        metric.label,
        f"to dense, {metric.difference_unit}",
        "file, bytes",
        "times smaller",
    )
    rows = [
        (
            point.label,
            settings_of(point, points),
            NONE if point.given else f"{point.epochs:g}",
            str(len(point.lines)),
            spread(point),
            NONE if point is reference else difference(point, reference),
            grouped(point.file_bytes),
            number(point.factor, 1),
        )
        for point in points
    ]
    return "\n".join(
        [
            f"![{name}: {metric.label} against file size](results/{picture_of(name, lines)})\n",
            markdown(header, rows, left=2),
            check(points),
            origin("sizes", name, lines),
        ]
    )
