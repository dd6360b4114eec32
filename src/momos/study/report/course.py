"""Through training: complexity with its controls, the metric, and the use of motifs by rank."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from matplotlib.ticker import MaxNLocator

from momos._util.escaping import visible
from momos.study.analysis.cohort import Cohort, Subject, seeds_of
from momos.study.analysis.statistics import Estimate
from momos.study.cell import PLAIN
from momos.study.report import figure
from momos.study.store import Finished, Levels, Line

EPOCHS = len(figure.STEPS)  # lines of a usage at most
POINTS = 160  # of a line at most
Counts = Float64[np.ndarray, " k"]


class Point(NamedTuple):
    """A value at an epoch, and the mean of the same weights shuffled."""

    epoch: float
    value: Estimate
    control: float | None


Course = tuple[Cohort, list[Point]]
Pair = tuple[float | None, float | None]  # a value and its control


def measured(run: Finished) -> list[Line]:
    """The lines of the history that have measures."""
    return [line for line in run.history if line.get("measures")]


def complexity_through_training(subject: Subject) -> list[figure.Figure]:
    """A figure for each measure, in the order in which they were taken."""
    runs = [run for cohort in subject.cohorts for run in cohort.runs.values()]
    codes: dict[str, bool] = {}  # whether a measure is of bits
    for line in (line for run in runs for line in measured(run)):
        for name, row in line.get("measures", {}).items():
            codes[name] = codes.get(name, False) or row.get("bits_per_weight") is not None
    figures = []
    for name, code in codes.items():

        def pair(line: Line, name: str = name, code: bool = code) -> Pair | None:
            return _pair(line.get("measures", {}).get(name, {}), code)

        found = [(cohort, _course(cohort, pair)) for cohort in subject.cohorts]
        courses = [(cohort, course) for cohort, course in found if course]
        if not courses:
            continue
        shown = visible(name)
        kind = "a code, in bits per weight" if code else "a score, which is not in bits"
        ends = "the same weights shuffled, where order matters to the measure"
        drawn = _figure(
            *(subject, courses, shown),
            f"{shown}, {'bits per weight' if code else 'score'}",
            begins=f"{figure.sentence(shown)} ({kind})",
            ends=f"; thin and dotted: {ends}",
        )
        figures.append(drawn)
    return figures


def metric_through_training(subject: Subject) -> list[figure.Figure]:
    """A figure of the metric, of the runs whose complexity was measured on the way."""
    cohorts = [c for c in subject.cohorts if any(map(measured, c.runs.values()))]
    label, scale = subject.metric.label, subject.metric.scale
    found = [(c, _course(c, lambda line: (scale * line["metric"], None))) for c in cohorts]
    courses = [(cohort, course) for cohort, course in found if course]
    if not courses:
        return []
    said = f"{figure.sentence(label)}, on data never trained on,"
    return [_figure(subject, courses, subject.metric.name, label, begins=said)]


def _course(cohort: Cohort, pair: Callable[[Line], Pair | None]) -> list[Point]:
    """Value and control, of those of a line, at every epoch that has a finite value."""
    pairs: dict[float, list[Pair]] = {}
    for line in (line for run in cohort.runs.values() for line in run.history):
        if found := pair(line):
            pairs.setdefault(line["epoch"], []).append(found)
    course = []
    for epoch in sorted(pairs):
        value, control = map(Estimate.of_finite, zip(*pairs[epoch], strict=True))
        if value:
            course.append(Point(epoch, value, control and control.mean))
    return course


def _pair(row: Levels, code: bool) -> Pair | None:
    """Value and shuffled mean of a measure, both per weight if they are bits."""
    value, control = row.get("value"), row.get("shuffled_mean")
    if not code or value is None:
        return None if value is None else (value, control)
    own = row.get("bits_per_weight")
    if control is None or not own or not value:
        return own, None
    return own, control * own / value


def _figure(
    subject: Subject,
    courses: Sequence[Course],
    name: str,
    label: str,
    *,
    begins: str,
    ends: str = "",
) -> figure.Figure:
    """Lines over epochs; `begins` is how the caption does, `ends` likewise."""
    drawing, axes = figure.canvas(height=3.8 + 0.16 * len(courses))
    cohorts, seen = [cohort for cohort, _ in courses], []
    first = 0 if cohorts[0].treatment in PLAIN else 1  # grey is for dense
    for number, (cohort, course) in enumerate(courses, start=first):
        style, values = figure.look(number), [point.value for point in course]
        line = {"label": f"{cohort.label} ({seeds_of([cohort])})", "ms": 5}
        figure.draw_band(axes, [point.epoch for point in course], values, style, **line)
        controls = [(p.epoch, p.control) for p in course if p.control is not None]
        if controls:
            axes.plot(*zip(*controls, strict=True), color=style["color"], lw=1, ls=":")
        seen += values + [Estimate.exact(level) for _, level in controls]
    figure.bound_(axes, seen)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(label)
    figure.legend(drawing, axes)
    said = (
        f"{cohort.label} from {course[0].value.mean:.4g} to {course[-1].value.mean:.4g}"
        for cohort, course in courses
    )
    return figure.Figure(
        name=figure.file_name("course", subject.task, subject.network, name),
        **figure.texts(
            "course",
            what=figure.sentence(name),
            subject=subject.title,
            seeds=seeds_of(cohorts),
            begins=begins,
            ends=ends,
        ),
        alt=f"{label}: {'; '.join(said)}.",
        drawing=drawing,
        rows=[
            (c.treatment, c.label, epoch, v.n, *v.ends, control)
            for c, course in courses
            for epoch, v, control in course
        ],
        about=name,
    )


def usages(cohort: Cohort) -> dict[float, list[list[int]]]:
    """How often each motif is used, by epoch: of some epochs, as far apart as can be."""
    lines: dict[float, list[list[int]]] = {}
    for line in (line for run in cohort.runs.values() for line in run.history):
        if usage := line.get("usage"):
            lines.setdefault(line["epoch"], []).append(usage)
    return {epoch: lines[epoch] for epoch in chosen(sorted(lines))}


def chosen(epochs: Sequence[float]) -> list[float]:
    """The first, the last, and some between."""
    if not epochs:
        return []
    places = np.linspace(0, len(epochs) - 1, min(EPOCHS, len(epochs))).round().astype(int)
    return [epochs[place] for place in places]


def motif_usage(subject: Subject) -> list[figure.Figure]:
    """A figure for each cohort whose usage was kept."""
    found = [(cohort, usages(cohort)) for cohort in subject.cohorts]
    means = [(cohort, {e: _mean(v) for e, v in usage.items()}) for cohort, usage in found]
    return [_usage_figure(subject, cohort, usage) for cohort, usage in means if usage]


def _mean(usages: Sequence[Sequence[int]]) -> Counts:
    """By rank; motifs that a seed lacks are unused."""
    counts = np.zeros((len(usages), max(map(len, usages))))
    for row, given in zip(counts, usages, strict=True):
        row[: len(given)] = sorted(given, reverse=True)
    return counts.mean(0)


def _usage_figure(
    subject: Subject, cohort: Cohort, usage: dict[float, Counts]
) -> figure.Figure:
    drawing, axes = figure.canvas()
    for number, (epoch, counts) in enumerate(usage.items()):
        last = number == len(usage) - 1
        axes.plot(
            *_thinned(counts),
            color=figure.STEPS[number - len(usage)],
            ls="-" if last else figure.DASHES[-1 - number % len(figure.DASHES)],
            lw=1.8,
            label=f"epoch {epoch:g}",
        )
    axes.set_xlabel("rank of the motif (logarithmic)")
    axes.set_ylabel("blocks (logarithmic)")
    figure.logarithmic(axes, "x")
    figure.logarithmic(axes, "y")
    figure.legend(drawing, axes)
    first, last = min(usage), max(usage)
    about = {"subject": subject.title, "cohort": cohort.label, "seeds": seeds_of([cohort])}
    shares = f"{_lesser_half(usage[first]):.1f} % and {_lesser_half(usage[last]):.1f} %"
    return figure.Figure(
        name=figure.file_name("usage", subject.task, subject.network, cohort.label),
        **figure.texts("usage", **about, shares=shares, first=first, last=last),
        alt=(
            f"Falling lines, one for each of epochs {', '.join(f'{e:g}' for e in usage)}: at the "
            f"last the first motif has {usage[last][0]:.0f} of {usage[last].sum():.0f} blocks."
        ),
        drawing=drawing,
        rows=[
            (epoch, rank, count)
            for epoch, counts in usage.items()
            for rank, count in enumerate(counts.tolist(), start=1)
        ],
    )


def _thinned(counts: Counts) -> tuple[Any, Any]:
    used = int((counts > 0).sum())
    ranks = np.unique(np.geomspace(1, max(1, used), POINTS).round().astype(int))
    return ranks, counts[ranks - 1]


def _lesser_half(counts: Counts) -> float:
    """Per cent of the blocks that the less used half of the motifs has."""
    total, half = counts.sum(), len(counts) - len(counts) // 2
    return float(100 * counts[half:].sum() / total) if total else 0.0
