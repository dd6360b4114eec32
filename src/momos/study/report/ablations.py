"""What each ingredient of learned motifs is worth."""

from collections.abc import Mapping, Sequence

from momos.study.recipes.ablations import REFERENCE
from momos.study.report.cells import NONE, difference, origin, settings_of, spread
from momos.study.report.goals import learned_line
from momos.study.report.lines import Line, by_maker
from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.points import Point, points_of
from momos.study.report.series import Series, series_of
from momos.study.report.table import grouped

NOT_RUN = "Not run.\n"


def ablation_section(lines: Sequence[Line], tasks: Mapping[str, Sequence[Line]]) -> str:
    """For each group, the reference and what changes where an ingredient does."""
    if not lines:
        return NOT_RUN
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.group or line.task, []).append(line)
    return "\n".join(
        f"### {name}\n\n" + "\n".join(_part(own, tasks) for own in by_maker(group))
        for name, group in groups.items()
    )


def _part(lines: Sequence[Line], tasks: Mapping[str, Sequence[Line]]) -> str:
    task, study = lines[0].task, lines[0].by_study
    others = [line for line in tasks.get(task, ()) if line.by_study is study]
    table = _table(lines, series_of(points_of(others)))
    return f"{table}\n{origin('ablations', task, lines)}"


def _table(lines: Sequence[Line], series: Sequence[Series]) -> str:
    points = points_of(lines)
    order = list(dict.fromkeys([REFERENCE, *(line.ablation for line in lines)]))
    points.sort(key=lambda point: (order.index(point.lines[0].ablation), point.factor))
    unit = points[0].metric.difference_unit
    header = (
        "ingredient",
        "settings",
        "epochs",
        "seeds",
        points[0].metric.label,
        f"to the reference, {unit}",
        "file, bytes",
        "times smaller",
        "size to the reference",
        f"to learned motifs of this size, {unit}",
    )
    rows = [
        (
            point.lines[0].ablation or point.label,
            settings_of(point, points),
            f"{point.epochs:g}",
            str(len(point.lines)),
            spread(point),
            *_against(point, _counterpart(point, points)),
            _above_line(point, learned_line(series, point.epochs)),
        )
        for point in points
    ]
    return markdown(header, rows, left=2)


def _against(point: Point, reference: Point | None) -> tuple[str, ...]:
    """Four cells: difference, size, factor, ratio of sizes."""
    size = (grouped(point.file_bytes), number(point.factor, 1))
    if reference is None:
        return (NONE, *size, NONE)
    ratio = number(point.file_bytes / reference.file_bytes, 2)
    return (difference(point, reference), *size, ratio)


def _above_line(point: Point, learned: Series | None) -> str:
    value = None if learned is None else learned.at(point.factor)
    if value is None:
        return NONE
    return number(point.metric.difference(point.mean, value), 2, sign=True)


def _counterpart(point: Point, points: Sequence[Point]) -> Point | None:
    """The reference to compare with, or of several the one of the same rate weight."""
    references = [each for each in points if each.lines[0].ablation == REFERENCE]
    if point in references:
        return None
    if len(references) != 1:
        rate = point.lines[0].settings.get("rate_weight")
        references = [
            each for each in references if each.lines[0].settings.get("rate_weight") == rate
        ]
    return references[0] if len(references) == 1 else None
