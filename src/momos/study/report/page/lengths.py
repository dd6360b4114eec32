"""Accuracy against file length: a point for each group, and each treatment's best."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from momos.study.report.page.groups import Group, Subject, most_of, seeds_of
from momos.study.report.page.looks import (
    canvas,
    in_sight,
    legend,
    logarithmic,
    look,
    plain,
    sentence,
)
from momos.study.report.page.picture import Picture, file_name
from momos.study.report.series import envelope

TICKS = (0.1, 0.2, 0.5, 1, 2, 4, 8, 16, 32)
HEADER = (
    "treatment",
    "group",
    "seeds",
    "bits per weight",
    "times smaller",
    "metric, mean",
    "interval, low",
    "interval, high",
    "on the front of its treatment",
)


def accuracy_against_length(subject: Subject) -> Picture | None:
    """The metric over bits per weight of whole files; None without a finite metric."""
    groups = [group for group in subject.groups if group.score]
    if not groups:
        return None
    label = subject.metric.label
    figure, axes = canvas(height=4.6)
    fronts = []
    for number, treatment in enumerate(subject.treatments):
        own = [group for group in groups if group.treatment == treatment]
        front = envelope(own)
        fronts += front
        _draw(axes, own, front, look(number))
    axes.set_xlabel("whole file, bits per weight (logarithmic)")
    axes.set_ylabel(label)
    axes.margins(x=0.12)
    scores = [group.score for group in groups if group.score]
    in_sight(axes, scores, most=most_of(subject.metric))
    logarithmic(axes, "x", TICKS)
    above = axes.secondary_xaxis("top", functions=(_other, _other))
    above.set_xlabel("times smaller than 32 bits a weight")
    ticks = axes.get_xticks()
    above.set_ticks([32 / tick for tick in ticks], labels=[f"{32 / t:.3g}×" for t in ticks])
    above.minorticks_off()
    legend(figure, axes)
    return Picture(
        name=file_name("length", subject.task, subject.network, label),
        title=f"{sentence(label.split(',')[0])} against file length: {subject.title}",
        caption=(
            f"{sentence(label)}, of data never trained on, against bits per weight of the "
            f"whole file (all parameters at 32 bits are 32). Means over seeds, {seeds_of(groups)} "
            "a point; bars: bootstrap 95 % intervals of the mean, cut off where wider than the picture. Lines join the points of a "
            "treatment that no other of it beats in both; those that are beaten are faint."
        ),
        alt=_alt(subject, groups),
        figure=figure,
        header=HEADER,
        rows=[_row(group, group in fronts) for group in groups],
    )


def _draw(
    axes: Axes, groups: Sequence[Group], front: Sequence[Group], style: dict[str, Any]
) -> None:
    points = {"color": style["color"], "marker": style["marker"], "ms": 7}
    for group in groups:
        assert group.score
        alpha = 1.0 if group in front else 0.35
        place = (group.bits_per_weight, group.score.mean)
        axes.errorbar(*place, group.score.bars, capsize=3, lw=1.2, alpha=alpha, **points)
    if front:
        axes.plot(
            [group.bits_per_weight for group in front],
            [group.mean for group in front],
            ls=style["ls"],
            label=f"{plain(front[0].treatment)} ({seeds_of(groups)})",
            **points,
        )


def _other(values):  # times smaller from bits per weight, and back; an array or a number
    return 32 / (values + 1e-300)


def _row(group: Group, on_front: bool) -> tuple:
    assert group.score
    score = group.score
    length = (group.bits_per_weight, group.factor)
    values = (score.mean, score.low, score.high)
    return (group.treatment, group.label, len(group.runs), *length, *values, on_front)


def _alt(subject: Subject, groups: Sequence[Group]) -> str:
    best = (max if subject.metric.higher_is_better else min)(groups, key=lambda g: g.mean)
    small = max(groups, key=lambda group: group.factor)
    said = [
        f"{what} is {group.label}: {subject.metric.label} {subject.metric.text(group.mean)} "
        f"at {group.bits_per_weight:.2f} bits per weight"
        for what, group in (("best", best), ("smallest", small))
    ]
    return (
        f"{len(groups)} points of {len(subject.treatments)} treatments; {'; '.join(said)}."
    )
