"""How often each motif is used, by rank, at some epochs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from momos.study.report.page.groups import Group, Subject, seeds_of
from momos.study.report.page.looks import DASHES, STEPS, canvas, legend, logarithmic
from momos.study.report.page.picture import Picture, file_name

EPOCHS = len(STEPS)  # lines at most: the first, the last, and some between
POINTS = 160  # of a line at most

Counts = Float64[np.ndarray, " k"]


def motif_usage(subject: Subject) -> list[Picture]:
    """A picture for each group whose usage was kept."""
    found = [(group, _usage(group)) for group in subject.groups]
    return [_picture(subject, group, usage) for group, usage in found if usage]


def chosen(epochs: Sequence[float]) -> list[float]:
    """The first, the last, and some between, as far apart as can be."""
    places = np.linspace(0, len(epochs) - 1, min(EPOCHS, len(epochs))).round().astype(int)
    return [epochs[place] for place in places]


def _usage(group: Group) -> dict[float, Counts]:
    """Mean blocks of the motif of each rank, by epoch; motifs that a seed lacks are unused."""
    lines: dict[float, list[list[float]]] = {}
    for run in group.runs:
        for line in run.history:
            if line.get("usage"):
                lines.setdefault(line["epoch"], []).append(line["usage"])
    usage = {}
    for epoch in chosen(sorted(lines)) if lines else []:
        counts = np.zeros((len(lines[epoch]), max(map(len, lines[epoch]))))
        for row, given in zip(counts, lines[epoch], strict=True):
            row[: len(given)] = sorted(given, reverse=True)
        usage[epoch] = counts.mean(0)
    return usage


def _picture(subject: Subject, group: Group, usage: dict[float, Counts]) -> Picture:
    figure, axes = canvas()
    for number, (epoch, counts) in enumerate(usage.items()):
        ranks, shown = _thinned(counts)
        axes.plot(
            ranks,
            shown,
            color=STEPS[number - len(usage)],
            ls=DASHES[-1 - number % len(DASHES)] if number < len(usage) - 1 else "-",
            lw=1.8,
            label=f"epoch {epoch:g}",
        )
    axes.set_xlabel("rank of the motif (logarithmic)")
    axes.set_ylabel("blocks (logarithmic)")
    logarithmic(axes, "x")
    logarithmic(axes, "y")
    legend(figure, axes)
    first, last = (_lesser_half(usage[end(usage)]) for end in (min, max))
    ends = f"{min(usage):g} and {max(usage):g}"
    return Picture(
        name=file_name("usage", subject.task, subject.network, group.label),
        title=f"Use of motifs by rank: {subject.title}, {group.label}",
        caption=(
            "Number of blocks of each motif, the most used first. Means over seeds at each rank, "
            f"{seeds_of([group])}. The less used half of the motifs holds {first:.1f} % and "
            f"{last:.1f} % of the blocks at epochs {ends}; motifs without blocks are not drawn."
        ),
        alt=(
            f"Falling lines, one for each of epochs {', '.join(f'{e:g}' for e in usage)}: at the "
            f"last the first motif has {usage[max(usage)][0]:.0f} of "
            f"{usage[max(usage)].sum():.0f} blocks."
        ),
        figure=figure,
        header=("epoch", "rank", "blocks, mean over seeds"),
        rows=[
            (epoch, rank, count)
            for epoch, counts in usage.items()
            for rank, count in enumerate(counts.tolist(), start=1)
        ],
    )


def _thinned(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Ranks and counts, evenly spaced on the logarithmic axis."""
    used = int((counts > 0).sum())
    ranks = np.unique(np.geomspace(1, max(1, used), POINTS).round().astype(int))
    return ranks, counts[ranks - 1]


def _lesser_half(counts: Counts) -> float:
    """Per cent of the blocks that the less used half of the motifs has."""
    total = counts.sum()
    return (
        float(100 * counts[len(counts) - len(counts) // 2 :].sum() / total)
        if total
        else 0.0
    )
