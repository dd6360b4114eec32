"""Complexity through training: every measure that was taken on the way, with its controls."""

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from momos._util.escaping import visible
from momos.study.cohorts import PLAIN
from momos.study.report.page.estimate import Estimate
from momos.study.report.page.groups import Group, Subject, seeds_of
from momos.study.report.page.looks import canvas, in_sight, legend, look, sentence
from momos.study.report.page.picture import Picture, file_name
from momos.study.store import Finished

HEADER = (
    "treatment",
    "group",
    "epoch",
    "seeds",
    "value, mean",
    "interval, low",
    "interval, high",
    "shuffled, mean",
)
Point = tuple[float, Estimate, float | None]  # epoch, value, mean of the shuffled
Course = tuple[Group, list[Point]]


def complexity_through_training(subject: Subject) -> list[Picture]:
    """A picture for each measure, in the order in which they were taken."""
    groups = [group for group in subject.groups if any(map(_measured, group.runs))]
    names: dict[str, bool] = {}  # whether it is of bits
    for group in groups:
        for line in (line for run in group.runs for line in _measured(run)):
            for name, row in line["measures"].items():
                code = row.get("bits_per_weight") is not None
                names[name] = names.get(name, False) or code
    pictures = [_picture(subject, groups, name, code) for name, code in names.items()]
    return [picture for picture in pictures if picture is not None]


def metric_through_training(subject: Subject) -> list[Picture]:
    """A picture of the metric, of the runs whose complexity was measured on the way."""
    groups = [group for group in subject.groups if any(map(_measured, group.runs))]
    courses = [(group, course) for group in groups if (course := _scores(group))]
    if not courses:
        return []
    label = subject.metric.label
    return [
        _drawn(
            subject,
            courses,
            name=label.split(",")[0],
            label=label,
            said=f"{sentence(label)}, on data never trained on,",
        )
    ]


def _scores(group: Group) -> list[Point]:
    """The metric at each epoch."""
    values: dict[float, list[float]] = {}
    for run in group.runs:
        for line in run.history:
            values.setdefault(line["epoch"], []).append(group.metric.scale * line["metric"])
    return [
        (epoch, estimate, None)
        for epoch in sorted(values)
        if (estimate := Estimate.of(values[epoch]))
    ]


def _measured(run: Finished) -> list[dict[str, Any]]:
    return [line for line in run.history if line.get("measures")]


def _picture(
    subject: Subject, groups: Sequence[Group], name: str, code: bool
) -> Picture | None:
    courses = [(group, _course(group, name, code)) for group in groups]
    courses = [(group, course) for group, course in courses if course]
    if not courses:
        return None
    name, unit = visible(name), "bits per weight" if code else "score"
    kind = "a code, in bits per weight" if code else "a score, which is not in bits"
    return _drawn(
        subject,
        courses,
        name=name,
        label=f"{name}, {unit}",
        said=f"{sentence(name)} ({kind})",
        more="; thin and dotted: the same weights shuffled, where order matters to the measure",
    )


def _drawn(
    subject: Subject,
    courses: Sequence[Course],
    *,
    name: str,
    label: str,
    said: str,
    more: str = "",
) -> Picture:
    """Lines over epochs; `said` begins the caption, `more` ends it."""
    figure, axes = canvas(height=3.8 + 0.16 * len(courses))
    shown = [group for group, _ in courses]
    first = 0 if shown[0].treatment in PLAIN else 1  # grey is for dense
    for number, (group, course) in enumerate(courses, start=first):
        _draw(axes, group, course, look(number))
    in_sight(axes, list(_seen(courses)))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(label)
    legend(figure, axes)
    return Picture(
        name=file_name("course", subject.task, subject.network, name),
        title=f"{sentence(name)} through training: {subject.title}",
        caption=(
            f"{said} over epochs; 0 is before training. Means over seeds, {seeds_of(shown)} a "
            "line; bands: bootstrap 95 % intervals of the mean, cut off where wider than the "
            f"picture{more}."
        ),
        alt=_alt(label, courses),
        figure=figure,
        header=HEADER,
        rows=[row for group, course in courses for row in _rows(group, course)],
    )


def _course(group: Group, name: str, code: bool) -> list[Point]:
    """Value and control at every epoch that has them."""
    values: dict[float, list[tuple[float | None, float | None]]] = {}
    for run in group.runs:
        for line in _measured(run):
            row = line["measures"].get(name)
            if row and row.get("value") is not None:
                values.setdefault(line["epoch"], []).append(_pair(row, code))
    course = []
    for epoch in sorted(values):
        value = Estimate.of(value for value, _ in values[epoch])
        control = Estimate.of(control for _, control in values[epoch])
        if value:
            course.append((epoch, value, control and control.mean))
    return course


def _pair(row: dict[str, Any], code: bool) -> tuple[float | None, float | None]:
    """Value and shuffled mean, both per weight if they are bits."""
    control = row.get("shuffled_mean")
    if not code:
        return row["value"], control
    own = row.get("bits_per_weight")
    if control is None or not own or not row["value"]:
        return own, None
    return own, control * own / row["value"]


def _draw(axes: Axes, group: Group, course: Sequence[Point], style: dict[str, Any]) -> None:
    epochs = [epoch for epoch, _, _ in course]
    label = f"{group.label} ({seeds_of([group])})"
    axes.plot(epochs, [v.mean for _, v, _ in course], label=label, ms=5, **style)
    low, high = [v.low for _, v, _ in course], [v.high for _, v, _ in course]
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.18, lw=0)
    controls = [(epoch, control) for epoch, _, control in course if control is not None]
    if controls:
        axes.plot(*zip(*controls, strict=True), color=style["color"], lw=1, ls=":")


def _seen(courses: Sequence[Course]) -> Iterator[Estimate]:
    """All that must be in sight: values and controls."""
    for _, value, control in (point for _, course in courses for point in course):
        yield value
        if control is not None:
            yield Estimate(control, control, control, value.n)


def _rows(group: Group, course: Sequence[Point]) -> list[tuple]:
    return [
        (
            group.treatment,
            group.label,
            epoch,
            value.n,
            value.mean,
            value.low,
            value.high,
            control,
        )
        for epoch, value, control in course
    ]


def _alt(label: str, courses: Sequence[Course]) -> str:
    said = [
        f"{group.label} from {course[0][1].mean:.4g} to {course[-1][1].mean:.4g}"
        for group, course in courses
    ]
    return f"{label}: {'; '.join(said)}."
