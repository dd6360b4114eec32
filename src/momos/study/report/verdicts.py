"""What learned motifs reach of their goals, and whether they are above all others."""

from collections.abc import Mapping, Sequence

from momos.study.report.cells import NONE, difference, settings_of
from momos.study.report.goals import (
    FROM,
    GOALS,
    Comparison,
    Goal,
    compare,
    smallest,
)
from momos.study.report.lines import TREATMENTS, Line, by_maker
from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.points import Point, points_of, reference_of
from momos.study.report.series import series_of


def summary(tasks: Mapping[str, Sequence[Line]]) -> str:
    """What must be reached, and the smallest learned file that loses no more."""
    header = (
        "task",
        "",
        "times smaller",
        "loss at most",
        "reached",
        "to dense",
        "seeds",
        "smallest such file",
        "smallest of the others",
    )
    rows = [
        _summary_row(task, goal, tasks.get(task, ()))
        for task, goals in GOALS.items()
        for goal in goals
    ]
    return markdown(header, rows, left=2)


def _summary_row(task: str, goal: Goal, lines: Sequence[Line]) -> tuple[str, ...]:
    wanted = (task, goal.name, f"{goal.factor:g}")
    if not lines:
        return (*wanted, NONE, "not run", *[NONE] * 4)
    sets = [points_of(own) for own in by_maker(lines)]
    metric = sets[0][0].metric
    wanted = (*wanted, metric.amount(goal.loss))
    other = _smallest(sets, goal, [t for t in TREATMENTS if t not in ("learned", "dense")])
    best = NONE if other is None else f"{number(other[0].factor, 1)}, {other[0].label}"
    found = _smallest(sets, goal, ["learned"])
    if found is None:
        return (*wanted, "no file", *[NONE] * 3, best)
    point, points = found
    verdict = "yes" if point.factor >= goal.factor else "no"
    to_dense = f"{difference(point, reference_of(points))} {metric.difference_unit}"
    place = f"{settings_of(point, points)}, {point.epochs:g} epochs"
    return (
        *wanted,
        f"{verdict}: {number(point.factor, 1)}",
        to_dense,
        str(len(point.lines)),
        place,
        best,
    )


def _smallest(
    sets: Sequence[Sequence[Point]], goal: Goal, treatments: Sequence[str]
) -> tuple[Point, Sequence[Point]] | None:
    """The smallest file that loses no more, of all makers, and the points it is among."""
    found = []
    for points in sets:
        own = [point for point in points if point.treatment in treatments]
        point = smallest(own, reference_of(points), goal.loss)
        if point is not None:
            found.append((point, points))
    return max(found, key=lambda each: each[0].factor, default=None)


def check(points: Sequence[Point]) -> str:
    """Whether learned motifs are above all others, and where they are not."""
    compared, beyond = compare(series_of(points))
    if not compared:
        return f"Nothing to compare yet from {FROM:g} times smaller on.\n"
    below = [each for each in compared if each.gain <= 0]
    text = (
        f"From {FROM:g} times smaller on, on means over seeds and at equal numbers of epochs, "
        f"learned motifs are above {len(compared) - len(below)} of {len(compared)} points of "
        "other treatments, by interpolation over the logarithm of size"
    )
    intervals = [each for each in compared if each.beyond_chance is not None]
    if intervals:
        clear = sum(each.gain > 0 and bool(each.beyond_chance) for each in intervals)
        text += f"; leads beyond chance over seeds (95 % intervals): {clear}"
    closest = compared[0]
    if closest.gain > 0:
        metric = closest.point.metric
        text += (
            f". The smallest lead is {number(closest.gain, 2)} {metric.difference_unit}, over "
            f"{closest.point.label}, {settings_of(closest.point, points)}"
        )
    text += "."
    if beyond:
        text += f" Not compared, since no learned file is as small: {len(beyond)}."
    return f"{text}\n\n{_below(below, points)}" if below else f"{text}\n"


def _below(below: Sequence[Comparison], points: Sequence[Point]) -> str:
    metric = points[0].metric
    header = (
        "not above",
        "settings",
        "times smaller",
        metric.label,
        "learned at this size",
        f"behind by, {metric.difference_unit}",
        "a learned file at least as good, times smaller",
    )
    rows = [
        (
            each.point.label,
            settings_of(each.point, points),
            number(each.point.factor, 1),
            metric.text(each.point.mean),
            metric.text(each.learned),
            number(-each.gain, 2),
            NONE if each.smaller is None else number(each.smaller.factor, 1),
        )
        for each in below
    ]
    return markdown(header, rows, left=2)
