"""Fills docs/sizes.md from finished runs: `python tools/sizes_page.py RUNS… -o docs`.

Runs of the recipes `sizes`, `ablations` and `records` count; a figure for each task is written to
docs/results. What was not run says so.
"""

import json
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log
from pathlib import Path
from statistics import stdev

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from records_part import RECORDS, records_part, write_records

from momos._util.escaping import visible
from momos.study.analysis.claims import COMPARABLE
from momos.study.analysis.cohort import Cohort, cohorts
from momos.study.analysis.metric import (
    METRICS,
    Metric,
    counted,
    grouped,
    metric_difference,
    number,
)
from momos.study.analysis.statistics import LEAST, Estimate
from momos.study.cell import DENSE, PUBLISHED, Cell
from momos.study.recipes import Recipe
from momos.study.recipes.sizes import REFERENCE, Ablations, Sizes
from momos.study.report.accuracy import envelope
from momos.study.report.figure import INK, STYLE, Canvas, look_of
from momos.study.report.listings import NONE
from momos.study.store import Finished, read_all, write_text
from momos.study.tasks import task_named
from momos.study.training.preparation import Prepared
from momos.study.treatments import TREATMENTS
from page_parts import (
    NOT_RUN,
    fill,
    markdown,
    outdated,
    recipes_in,
    shell_command,
    with_ends,
)

PAGE, FIGURES = "sizes.md", Path("results")
ABLATIONS, SUMMARY = "ablations", "summary"
FROM = 5.0  # times smaller, from which learned motifs are held against all others
ORDER = [name for name in TREATMENTS if name != PUBLISHED]


@dataclass(frozen=True)
class Goal:
    """A file so many times smaller than dense, losing no more than `loss`.

    In the unit of the metric's differences.
    """

    name: str
    factor: float
    loss: float
    metric: Metric = METRICS["accuracy"]

    @property
    def limit(self) -> str:
        return self.metric.amount(self.loss)


BITS = METRICS["bits per character"]
GOALS = {
    "digits": (Goal("must", 35, 0.5), Goal("aim", 60, 0.5)),
    "fashion": (Goal("must", 30, 0.5), Goal("aim", 50, 0.5)),
    "resnet20": (Goal("must", 15, 1.0), Goal("aim", 39.5, 0.5)),
    "shakespeare": (Goal("must", 12, 2.0, BITS), Goal("aim", 30, 2.0, BITS)),
}


@dataclass(frozen=True, eq=False)
class Point:
    """A cohort in the figure: for how long it was trained, and at which rate."""

    cohort: Cohort
    epochs: float
    learning_rate: float

    @property
    def treatment(self) -> str:
        return DENSE if self.given else self.cohort.treatment

    @property
    def label(self) -> str:
        return TREATMENTS[self.treatment].label

    @property
    def given(self) -> bool:
        """Whether these are dense networks as their authors published them."""
        return self.cohort.treatment == PUBLISHED

    @property
    def started(self) -> bool:
        return self.cohort.cell.start is not None

    @property
    def metric(self) -> Metric:
        return self.cohort.metric

    @property
    def mean(self) -> float:
        return self.cohort.mean

    @property
    def factor(self) -> float:
        """How many times smaller than all parameters in 32 bits the files are, on the mean."""
        return self.cohort.factor

    def difference(self, reference: "Point") -> Estimate | None:
        """To another point, seed by seed; None if they share no seed."""
        if not self.cohort.runs.keys() & reference.cohort.runs:
            return None
        return metric_difference(self.cohort.runs, reference.cohort.runs)


@dataclass(frozen=True)
class Series:
    """Points of one treatment, trained for equally long, by size, the largest files first.

    The line goes through those that nothing beats where several settings compete, else through
    all.
    """

    points: tuple[Point, ...]
    line: tuple[Point, ...]

    @property
    def treatment(self) -> str:
        return self.points[0].treatment

    @property
    def epochs(self) -> float:
        return self.points[0].epochs

    def at(self, factor: float, seed: int | None = None) -> float | None:
        """The metric where the line is so small, linear in the logarithm of size.

        Larger than all of its files, the line is taken to go on level from its largest, since a
        smaller file that does as well is no worse. Smaller than all, or for a seed that a point
        lacks, there is None.
        """
        values = [p.mean if seed is None else p.cohort.values.get(seed) for p in self.line]
        if factor > self.line[-1].factor or None in values:
            return None
        factors = np.log([point.factor for point in self.line])
        return float(np.interp(log(factor), factors, [v for v in values if v is not None]))


@dataclass(frozen=True)
class Held:
    """A point of another treatment, held against the line of learned motifs at its size."""

    point: Point
    line: Series
    learned: float

    @property
    def gain(self) -> float:
        """How much better the learned line is."""
        return self.point.metric.gain(self.learned, self.point.mean)

    @property
    def beyond_chance(self) -> bool | None:
        """Whether the 95 % interval of the gain over seeds leaves out zero; None without one."""
        found = []
        for seed, value in self.point.cohort.values.items():
            learned = self.line.at(self.point.factor, seed)
            if learned is not None:
                found.append(self.point.metric.gain(learned, value))
        return Estimate.of(found).excludes(0) if len(found) >= LEAST else None

    @property
    def smaller(self) -> Point | None:
        """The smallest learned point, no larger, that does at least as well."""
        metric, mean = self.point.metric, self.point.mean
        small = [p for p in self.line.points if p.factor >= self.point.factor]
        found = [each for each in small if metric.gain(each.mean, mean) >= 0]
        return max(found, key=lambda each: each.factor, default=None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fills the page of sizes and draws its figures, from finished runs."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="run folders, or folders of them"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help=f"folder of {PAGE}"
    )
    options = parser.parse_args(arguments)
    try:
        runs, broken = read_all(options.runs)
        for each in broken:
            print(f"left out: {each.reason}", file=sys.stderr)
        write(options.output, runs)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def write(docs: Path, runs: Sequence[Finished]) -> None:
    """Fills `docs`/sizes.md and draws a figure for each task: all of it, or nothing."""
    tasks, rows = asked_for(runs)
    page = docs / PAGE
    parts = parts_of(tasks, rows) | {RECORDS: records_part(runs)}
    text = fill(page.read_text("utf-8"), parts)
    (docs / FIGURES).mkdir(exist_ok=True)
    for task, (_, found) in tasks.items():
        path = docs / FIGURES / f"sizes-{task}.png"
        with matplotlib.rc_context(STYLE):
            metric_against_size(points_of(found)).savefig(path, metadata={"Software": None})
    write_records(runs, docs / FIGURES)
    write_text(page, text)


Asked = tuple[list[Recipe], list[Finished]]
Row = tuple[str, str, list[Finished]]  # of an ablation: task, name, runs


def asked_for(runs: Sequence[Finished]) -> tuple[dict[str, Asked], list[Row]]:
    """By task, the recipes `sizes` and their runs; and the rows of `ablations`.

    Runs with held-out samples or another precision are not comparable and have no place, nor
    have those whose metric is not finite. How many have none, and why, goes to stderr.
    """
    usable = {r.cell.key: r for r in runs if isfinite(r.metric) and not r.cell.options}
    recipes: dict[str, list[Recipe]] = {}
    found: dict[str, dict[str, Finished]] = {}
    rows: dict[tuple[str, str], dict[str, Finished]] = {}
    for recipe in recipes_in(runs):
        if isinstance(recipe, Sizes) and (own := _own(recipe.runs(), usable)):
            recipes.setdefault(recipe.task, []).append(recipe)
            found.setdefault(recipe.task, {}).update(own)
        elif isinstance(recipe, Ablations):
            for name, cells in recipe.rows().items():
                if own := _own(cells, usable):
                    rows.setdefault((recipe.task, name), {}).update(own)
    used = {
        key: run for own in (*found.values(), *rows.values()) for key, run in own.items()
    }
    for reason in _left_out(runs, used):
        print(f"left out: {reason}", file=sys.stderr)
    return (
        {task: (own, [*found[task].values()]) for task, own in recipes.items()},
        [(task, name, [*own.values()]) for (task, name), own in rows.items()],
    )


def _own(cells: Iterable[Cell], usable: Mapping[str, Finished]) -> dict[str, Finished]:
    """The runs of those cells that there are, each once."""
    return {cell.key: usable[cell.key] for cell in cells if cell.key in usable}


def _left_out(runs: Sequence[Finished], used: Mapping[str, Finished]) -> Iterator[str]:
    """The runs that are not on the page: those that diverged one by one, others by reason."""
    reasons: Counter[str] = Counter()
    for run in runs:
        if not isfinite(run.metric):
            yield f"{visible(str(run.folder))}: its metric is {run.metric}"
        elif used.get(run.cell.key) is not run:
            reasons[_why_not(run, used)] += 1
    yield from (f"{counted(count, 'run')} {why}" for why, count in reasons.items())


def _why_not(run: Finished, used: Mapping[str, Finished]) -> str:
    if run.cell.key in used:
        return "of a cell that another folder has as well"
    if run.cell.options:
        return visible(f"with {' '.join(run.cell.option_words)}")
    if why := outdated(run.recipe):
        return f"whose {why}"
    name = visible(run.recipe["name"])
    if name in (Sizes.name, Ablations.name):
        return f"without a row in {name}, as starts of others"
    return f"of another recipe: {name or 'none'}"


def parts_of(tasks: Mapping[str, Asked], rows: Sequence[Row]) -> dict[str, str]:
    """The generated parts of the page by name; tasks with a goal are there even if not run."""
    points = {task: points_of(found) for task, (_, found) in tasks.items()}
    parts = dict.fromkeys(GOALS, NOT_RUN)
    parts |= {task: task_part(task, own, *tasks[task]) for task, own in points.items()}
    summary = [
        _summary(task, goal, points.get(task, []))
        for task, goals in GOALS.items()
        for goal in goals
    ]
    header = (
        *("task", "", "times smaller", "loss at most", "reached", "to dense", "seeds"),
        *("smallest such file", "smallest of the others"),
    )
    parts[SUMMARY] = markdown(header, summary, left=2)
    parts[ABLATIONS] = ablation_part(rows, points)
    return parts


def point_of(cohort: Cohort) -> Point:
    plan = Prepared(cohort.cell, task_named(cohort.cell.task), TREATMENTS[DENSE].kind())
    return Point(cohort, float(plan.epochs), plan.optimization.learning_rate)


def points_of(runs: Sequence[Finished]) -> list[Point]:
    """One for each cohort: by treatment, epochs and size, largest files first."""
    found = map(point_of, cohorts(runs))
    return sorted(found, key=lambda p: (ORDER.index(p.treatment), p.epochs, p.factor))


def reference_in(points: Sequence[Point]) -> Point:
    """The dense networks that the others start from.

    Raises:
        ValueError: if there are none, or dense networks were trained in several ways.
    """
    found = [p for p in points if p.treatment == DENSE and not p.started]
    if len(found) != 1:
        raise ValueError(
            f"dense networks must be trained from scratch in one way, got {len(found)}"
        )
    return found[0]


def series_of(points: Sequence[Point]) -> list[Series]:
    """Series by treatment and number of epochs, in the order of the points."""
    groups: dict[tuple[str, float], list[Point]] = {}
    for point in points:
        groups.setdefault((point.treatment, point.epochs), []).append(point)
    return [_series(group) for group in groups.values()]


def _series(group: Sequence[Point]) -> Series:
    points = sorted(group, key=lambda point: point.factor)
    settings = [point.cohort.settings for point in points]
    names = {name for own in settings for name in own}
    varied = [name for name in names if len({repr(own.get(name)) for own in settings}) > 1]
    if len(varied) < 2:
        return Series(tuple(points), tuple(points))
    best = set(map(id, envelope([point.cohort for point in points])))
    return Series(tuple(points), tuple(p for p in points if id(p.cohort) in best))


def learned_line(series: Sequence[Series], epochs: float) -> Series | None:
    """The learned series of so many epochs, if there is one."""
    found = (
        each for each in series if (each.treatment, each.epochs) == ("learned", epochs)
    )
    return next(found, None)


def held(series: Sequence[Series]) -> tuple[list[Held], list[Point]]:
    """Every point of other treatments that is small enough, with the learned line of as many
    epochs, best for the others first; and those for which no learned file is as small."""
    compared, beyond = [], []
    for each in series:
        if each.treatment in ("learned", DENSE):
            continue
        learned = learned_line(series, each.epochs)
        for point in each.points:
            if point.factor < FROM:
                continue
            value = learned and learned.at(point.factor)
            if learned is None or value is None:
                beyond.append(point)
            else:
                compared.append(Held(point, learned, value))
    return sorted(compared, key=lambda each: each.gain), beyond


def smallest(points: Sequence[Point], reference: Point, loss: float) -> Point | None:
    """The point of the smallest file that loses no more on the mean over its seeds.

    Only points that have every seed of the reference count.
    """
    sign = -1 if reference.metric.higher_is_better else 1
    found = [
        point
        for point in points
        if point.cohort.runs.keys() >= reference.cohort.runs.keys()
        and (difference := point.difference(reference))
        and sign * difference.mean <= loss
    ]
    return max(found, key=lambda point: point.factor, default=None)


def _summary(task: str, goal: Goal, points: Sequence[Point]) -> tuple[str, ...]:
    """What must be reached, and the smallest learned file that loses no more."""
    wanted = (task, goal.name, f"{goal.factor:g}", goal.limit)
    if not points:
        return (*wanted, "not run", *[NONE] * 4)
    reference = reference_in(points)
    others = [p for p in points if p.treatment not in ("learned", DENSE)]
    other = smallest(others, reference, goal.loss)
    best = NONE if other is None else f"{number(other.factor, 1)}, {other.label}"
    learned = [point for point in points if point.treatment == "learned"]
    found = smallest(learned, reference, goal.loss)
    if found is None:
        return (*wanted, "no file", *[NONE] * 3, best)
    return (
        *wanted,
        f"{'yes' if found.factor >= goal.factor else 'no'}: {number(found.factor, 1)}",
        f"{_difference(found, reference)} {reference.metric.difference_unit}",
        str(len(found.cohort.runs)),
        f"{_settings(found, points)}, {found.epochs:g} epochs",
        best,
    )


def task_part(
    name: str, points: Sequence[Point], recipes: Sequence[Recipe], runs: Sequence[Finished]
) -> str:
    """The figure's place, the table, the check, and which runs they come from."""
    reference = reference_in(points)
    metric = reference.metric
    header = (
        *("treatment", "settings", "epochs", "seeds", metric.label),
        *(f"to dense, {metric.difference_unit}", "file, bytes", "times smaller"),
    )
    rows = [
        (
            point.label,
            _settings(point, points),
            NONE if point.given else f"{point.epochs:g}",
            str(len(point.cohort.runs)),
            _spread(point),
            NONE if point is reference else _difference(point, reference),
            grouped(point.cohort.file_bytes),
            number(point.factor, 1),
        )
        for point in points
    ]
    place = f"{FIGURES.as_posix()}/sizes-{name}.png"
    return "\n".join(
        [
            f"![{name}: {metric.label} against file size]({place})\n",
            markdown(header, rows, left=2),
            _check(points),
            _origin(list(map(shell_command, recipes)), runs),
        ]
    )


def _check(points: Sequence[Point]) -> str:
    """Whether learned motifs are above all others, and where they are not."""
    compared, beyond = held(series_of(points))
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
        unit = closest.point.metric.difference_unit
        text += (
            f". The smallest lead is {number(closest.gain, 2)} {unit}, over "
            f"{closest.point.label}, {_settings(closest.point, points)}"
        )
    text += "."
    if beyond:
        text += f" Not compared, since no learned file is as small: {len(beyond)}."
    return f"{text}\n\n{_below(below, points)}" if below else f"{text}\n"


def _below(below: Sequence[Held], points: Sequence[Point]) -> str:
    metric = points[0].metric
    header = (
        *("not above", "settings", "times smaller", metric.label, "learned at this size"),
        f"behind by, {metric.difference_unit}",
        "a learned file at least as good, times smaller",
    )
    rows = [
        (
            each.point.label,
            _settings(each.point, points),
            number(each.point.factor, 1),
            metric.text(each.point.mean),
            metric.text(each.learned),
            number(-each.gain, 2),
            NONE if each.smaller is None else number(each.smaller.factor, 1),
        )
        for each in below
    ]
    return markdown(header, rows, left=2)


def ablation_part(rows: Sequence[Row], tasks: Mapping[str, Sequence[Point]]) -> str:
    """For each task, the reference and what changes where an ingredient does."""
    texts = []
    for task in dict.fromkeys(task for task, *_ in rows):
        own = [(name, runs) for of, name, runs in rows if of == task]
        every = {run.cell.key: run for _, runs in own for run in runs}
        commands = [
            shell_command(recipe)
            for recipe in recipes_in(every.values())
            if isinstance(recipe, Ablations) and recipe.task == task
        ]
        table = _ablations(own, series_of(tasks.get(task, [])))
        texts.append(f"### {task}\n\n{table}\n{_origin(commands, [*every.values()])}")
    return "\n".join(texts) or NOT_RUN


def _ablations(rows: Sequence[tuple[str, list[Finished]]], series: Sequence[Series]) -> str:
    named = [(name, point_of(cohort)) for name, runs in rows for cohort in cohorts(runs)]
    points = [point for _, point in named]
    references = [point for name, point in named if name == REFERENCE]
    reference = references[0] if len(references) == 1 else None
    metric = points[0].metric
    header = (
        *("ingredient", "settings", "epochs", "seeds", metric.label),
        *(f"to the reference, {metric.difference_unit}", "file, bytes", "times smaller"),
        "size to the reference",
        f"to learned motifs of this size, {metric.difference_unit}",
    )
    return markdown(
        header, [_ablation(*n, reference, points, series) for n in named], left=2
    )


def _ablation(
    name: str,
    point: Point,
    reference: Point | None,
    points: Sequence[Point],
    series: Sequence[Series],
) -> tuple[str, ...]:
    to, ratio = NONE, NONE
    if reference is not None and point is not reference:
        to = _difference(point, reference)
        ratio = number(point.cohort.file_bytes / reference.cohort.file_bytes, 2)
    learned = learned_line(series, point.epochs)
    value = learned and learned.at(point.factor)
    above = NONE if value is None else point.metric.difference(point.mean, value)
    return (
        name,
        _settings(point, points),
        f"{point.epochs:g}",
        str(len(point.cohort.runs)),
        _spread(point),
        to,
        grouped(point.cohort.file_bytes),
        number(point.factor, 1),
        ratio,
        above if isinstance(above, str) else number(above, 2, sign=True),
    )


def _settings(point: Point, points: Sequence[Point]) -> str:
    """A point's settings as the command takes them, and how else it was trained."""
    if point.given:
        return "as published"
    cell = point.cohort.cell
    texts = [f"{name}={_given(value)}" for name, value in sorted(cell.settings.items())]
    trained = [other for other in points if other.started]
    if point.started and len({other.learning_rate for other in trained}) > 1:
        texts.append(f"learning rate {point.learning_rate:g}")
    if point.started and cell.teacher is None:
        texts.append("no teacher")
    return " ".join(texts) or NONE


def _given(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _spread(point: Point) -> str:
    """The mean over seeds, with its deviation where there are two or more."""
    values, metric = [*point.cohort.values.values()], point.metric
    text = metric.text(point.mean)
    return f"{text} ± {metric.text(stdev(values))}" if len(values) > 1 else text


def _difference(point: Point, reference: Point) -> str:
    """The mean difference to the reference, with its interval where there is one."""
    found = point.difference(reference)
    return NONE if found is None else with_ends(found, 2, sign=True)


def _origin(commands: Sequence[str], runs: Sequence[Finished]) -> str:
    """How many runs there are, what made them, how long it took, and with what."""
    minutes = sum(run.seconds for run in runs) / 60
    time = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
    commits = {run.environment.get("commit") or "unknown": None for run in runs}
    places = set()
    for run in runs:
        versions = run.environment.get("versions", {}).items()
        cores = run.environment.get("machine", {}).get("cores", "?")
        words = ", ".join(f"{name} {version}" for name, version in versions if version)
        places.add(f"{words}, {cores} cores, one thread a run")
    made = " and ".join(f"`{command}`" for command in dict.fromkeys(commands))
    text = f"{counted(len(runs), 'run')}, {time}, by {made or 'other recipes'}, commit {', '.join(commits)}."
    return f"{visible(text)} {visible('; '.join(sorted(places)))}.\n"


# The figure: the metric against file size, one line for each treatment.
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
LEAST_SHOWN, MOST_SHOWN = 2.0, 6.0  # so many times the allowed loss is in the figure
NEAR = 0.12  # difference of logarithms at which labels would overlap


def metric_against_size(points: Sequence[Point]) -> Canvas:
    """All points of a task, means over seeds with bars from the lowest to the highest."""
    reference, every = reference_in(points), series_of(points)
    usual = min((each.epochs for each in every if each.treatment != DENSE), default=None)
    drawing = Canvas(figsize=(9, 6.2), dpi=130, layout="constrained")
    axes = drawing.subplots()
    _frame(axes, points, reference)
    _levels(axes, reference)
    for each in every:
        _draw(axes, each, plain=each.treatment == DENSE or each.epochs == usual)
    hidden = [p for p in points if p.metric.gain(p.mean, axes.get_ylim()[0]) < 0]
    _mark_hidden(axes, hidden)
    seeds = _counts(points)
    notes = ["means over n seeds; bars from the lowest to the highest"]
    notes = ["one seed"] if seeds == "1" else notes
    if any(len(each.line) < len(each.points) for each in every):
        notes.append("faint: beaten by another setting")
    if hidden:
        notes.append("arrowheads: below the picture")
    start = "published network" if reference.given else f"dense {reference.epochs:g} epochs"
    further = "" if usual is None else f", then {usual:g} more for each treatment"
    first = reference.cohort.first
    about = f"{first.cell.task}, {grouped(first.num_weights)} weights: {start}{further}"
    axes.set_title(f"{about}\n", fontsize=12)
    style = {"ha": "center", "fontsize": 9, "transform": axes.transAxes}
    axes.text(0.5, 1.015, "; ".join(notes), **style)
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(
        handles[::-1], labels[::-1], loc="outside lower center", ncols=3, frameon=False
    )
    return drawing


def _frame(axes: Axes, points: Sequence[Point], reference: Point) -> None:
    metric = reference.metric
    right = max(100.0, 1.2 * max(point.factor for point in points))
    axes.set_xscale("log")
    axes.set_xlim(1, right)
    ticks = [tick for tick in TICKS if tick <= right]
    axes.set_xticks(ticks, labels=[f"{tick}×" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("file, times smaller than all weights in float32")
    values = [value for point in points for value in point.cohort.values.values()]
    bottom = _with_loss(metric, reference.mean, _shown_loss(points, reference))
    top = max(values, key=metric.goodness)
    axes.set_ylim(bottom, top + 0.05 * (top - bottom))
    axes.set_ylabel(metric.label + ("" if metric.higher_is_better else ", fewer upwards"))


def _shown_loss(points: Sequence[Point], reference: Point) -> float:
    """So much that as many points as can be are in the figure."""
    allowed = _allowed_loss(reference) or COMPARABLE[reference.metric.difference_unit]
    losses = [
        -1.1 * point.metric.gain(value, reference.mean)
        for point in points
        for value in (point.mean, *point.cohort.values.values())
    ]
    least = LEAST_SHOWN * allowed
    return max(loss for loss in (least, *losses) if loss <= MOST_SHOWN * allowed)


def _allowed_loss(reference: Point) -> float | None:
    goals = GOALS.get(reference.cohort.cell.task)
    return goals[0].loss if goals else None


def _with_loss(metric: Metric, value: float, loss: float) -> float:
    """The value that is worse by so much."""
    change = -loss if metric.higher_is_better else loss
    return value * (1 + change / 100) if metric.relative else value + change


def _levels(axes: Axes, reference: Point) -> None:
    """The dense level, and the one that must be held."""
    metric, loss = reference.metric, _allowed_loss(reference)
    texts = {reference.mean: f"dense {metric.text(reference.mean)}{metric.unit}"}
    if loss is not None:
        sign = "−" if metric.higher_is_better else "+"
        level = _with_loss(metric, reference.mean, loss)
        texts[level] = f"dense {sign} {metric.amount(loss)}"
    for level, text in texts.items():
        style = "-" if level == reference.mean else "--"
        axes.axhline(level, color=INK, lw=0.8, ls=style, zorder=1)
        axes.annotate(
            text,
            (1.1 * reference.factor, level),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            fontsize=9,
        )


def _draw(axes: Axes, series: Series, *, plain: bool) -> None:
    """A line through its points; hollow and dashed if it was trained for longer."""
    main, style = series.treatment == "learned", look_of(series.treatment, 0)
    look = {name: style[name] for name in ("color", "marker")}
    look |= {"ms": 7 if main else 6, "mfc": style["color"] if plain else "white"}
    for point in series.points:
        alpha = 1.0 if point in series.line else 0.3
        axes.plot(point.factor, point.mean, alpha=alpha, zorder=3, **look)
        values = point.cohort.values.values()
        if len(values) > 1:
            bar = [[abs(end(values) - point.mean)] for end in (min, max)]
            whole = {"color": style["color"], "capsize": 2.5, "lw": 1, "alpha": alpha}
            axes.errorbar(point.factor, point.mean, bar, **whole)
    epochs = "" if plain else f", {series.epochs:g} epochs"
    axes.plot(
        [point.factor for point in series.line],
        [point.mean for point in series.line],
        lw=2.4 if main else 1.6,
        ls="-" if plain else "--",
        label=f"{series.points[0].label}{epochs} (n = {_counts(series.points)})",
        zorder=4 if main else 3,
        **look,
    )


def _mark_hidden(axes: Axes, points: Sequence[Point]) -> None:
    """An arrowhead and the metric at the lower edge, for each point below it."""
    bottom = axes.get_ylim()[0]
    last, row = 0.0, 0
    for point in sorted(points, key=lambda point: point.factor):
        row = row + 1 if log(point.factor) - last < NEAR else 0
        last, color = log(point.factor), look_of(point.treatment, 0)["color"]
        axes.plot(point.factor, bottom, "v", color=color, ms=6, clip_on=False, zorder=5)
        axes.annotate(
            number(point.mean, 1),
            (point.factor, bottom),
            xytext=(0, 7 + 10 * row),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=color,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            zorder=5,
        )


def _counts(points: Sequence[Point]) -> str:
    """How many seeds there are: one number, or the least and the greatest."""
    counts = sorted({len(point.cohort.runs) for point in points})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


if __name__ == "__main__":
    main()
