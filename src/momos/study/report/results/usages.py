"""How many motifs are used, and how unevenly, through training."""

import math
from collections.abc import Sequence
from statistics import fmean

from momos.study.report.markdown import markdown
from momos.study.report.metric import number
from momos.study.report.page.groups import Group, subjects_of
from momos.study.report.page.usages import chosen, motif_usage
from momos.study.report.results.part import Part, of_recipe
from momos.study.store import Finished

HEADER = (
    *("treatment", "epoch", "seeds", "motifs", "used"),
    *("blocks of the most used tenth, %", "entropy, bits a block", "of at most"),
)


def usage_part(runs: Sequence[Finished]) -> Part:
    """A table for each task, and a picture for each treatment."""
    tables, pictures = [], []
    for subject in subjects_of(of_recipe(runs, "usage")):
        rows = [row for group in subject.groups for row in _rows(group)]
        tables.append(f"### {subject.title}\n\n{markdown(HEADER, rows, left=1)}")
        pictures += motif_usage(subject)
    return Part("\n".join(tables), pictures)


def _rows(group: Group) -> list[tuple[str, ...]]:
    lines: dict[float, list[list[int]]] = {}
    for run in group.runs:
        for line in run.history:
            if line.get("usage"):
                lines.setdefault(line["epoch"], []).append(line["usage"])
    return [
        (group.label, f"{epoch:g}", str(len(lines[epoch])), *_numbers(lines[epoch]))
        for epoch in (chosen(sorted(lines)) if lines else [])
    ]


def _numbers(usages: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Means over seeds."""
    return (
        number(fmean(map(len, usages)), 0),
        number(fmean(sum(count > 0 for count in each) for each in usages), 0),
        number(fmean(100 * _tenth(each) for each in usages), 1),
        number(fmean(map(_entropy, usages)), 2),
        number(fmean(math.log2(len(each)) for each in usages), 2),
    )


def _tenth(usage: Sequence[int]) -> float:
    most = sorted(usage, reverse=True)[: max(1, len(usage) // 10)]
    return sum(most) / sum(usage)


def _entropy(usage: Sequence[int]) -> float:
    shares = [count / sum(usage) for count in usage if count]
    return -math.fsum(share * math.log2(share) for share in shares)
