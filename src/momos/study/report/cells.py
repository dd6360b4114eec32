"""What stands in the cells of tables in Markdown."""

import json
from collections.abc import Sequence

from momos.study.report.lines import PLAIN_LOOP, Line
from momos.study.report.metric import number
from momos.study.report.points import LEAST, Point

NONE = "–"


def settings_of(point: Point, points: Sequence[Point]) -> str:
    """A point's settings as the command takes them, and how else it was trained."""
    line = point.lines[0]
    if point.given:
        return "as published"
    texts = [f"{name}={_given(value)}" for name, value in sorted(line.settings.items())]
    trained = [other.lines[0] for other in points if other.lines[0].start]
    if line.start and len({other.learning_rate for other in trained}) > 1:
        texts.append(f"learning rate {line.learning_rate:g}")
    if line.start and not line.teacher:
        texts.append("no teacher")
    if not line.start and trained and line.treatment != "dense":
        texts.append("from scratch")
    return " ".join(texts) or NONE


def _given(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def spread(point: Point) -> str:
    """The mean over seeds, with its deviation where there are two or more."""
    text = point.metric.text(point.mean)
    if point.deviation is None:
        return text
    return f"{text} ± {point.metric.text(point.deviation)}"


def difference(point: Point, reference: Point) -> str:
    """The mean difference to the reference, with its interval where there is one."""
    found = point.difference(reference)
    if found is None:
        return NONE
    text = number(found.mean, 2, sign=True)
    if found.n < LEAST:
        return text
    ends = (number(end, 2, sign=True) for end in (found.low, found.high))
    return f"{text} [{', '.join(ends)}]"


def origin(recipe: str, task: str, lines: Sequence[Line]) -> str:
    """How many lines of one maker there are, what made them, how long it took, and with what."""
    minutes = sum(line.seconds for line in lines) / 60
    time = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
    runs = "1 run" if len(lines) == 1 else f"{len(lines)} runs"
    made = (
        f"by the plain loop that was there up to commit {PLAIN_LOOP}; "
        f"`momos study run {recipe} --task {task}` is what runs them now"
    )
    if lines[0].by_study:
        commands = dict.fromkeys(f"`{line.command}`" for line in lines)
        commits = dict.fromkeys(line.commit or "unknown" for line in lines)
        made = f"by {' and '.join(commands)}, commit {', '.join(commits)}"
    with_what = sorted(
        f"{', '.join(f'{name} {version}' for name, version in line.versions.items())}, "
        f"{line.cores} cores, one thread a run"
        for line in lines
    )
    different = "; ".join(dict.fromkeys(with_what))
    return f"{runs}, {time}, {made}. {different}.\n"
