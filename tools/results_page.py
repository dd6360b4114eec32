"""Fills docs/results.md from finished runs: `python tools/results_page.py RUNS… -o docs`.

Every number between its comment lines comes from run folders; figures and tables are written to
docs/results/study.
"""

import math
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

from momos._util.escaping import visible
from momos.study.analysis.claims import (
    CLAIMS,
    COMPARABLE,
    VERDICTS,
    claims,
    verdict_of,
)
from momos.study.analysis.cohort import Cohort, cohorts, reference_of, subjects_of
from momos.study.analysis.metric import counted, number
from momos.study.analysis.quantities import Quantity, measures_of
from momos.study.analysis.statistics import LEAST, Estimate
from momos.study.cell import DENSE
from momos.study.plane import Plane
from momos.study.recipes import RECIPES
from momos.study.report.accuracy import accuracy_against_capacity, accuracy_against_length
from momos.study.report.course import (
    complexity_through_training,
    measured,
    metric_through_training,
    motif_usage,
    usages,
)
from momos.study.report.figure import STYLE
from momos.study.report.listings import NONE, table_of_claims, table_of_runs
from momos.study.report.loss_plane import loss_plane, planes_in
from momos.study.store import Asked, Broken, Finished, Line, read_all
from page_parts import (
    Part,
    by_task,
    compared,
    fill,
    markdown,
    of_recipe,
    outdated_in,
    parsed,
    score,
    shell_command,
    title,
    trained_as,
    with_ends,
)

PAGE, FIGURES = "results.md", Path("results/study")
GENERALIZES = 0.95  # of the held-out sums
FALLEN = 0.99  # of its value at the start
DRAWN = ("signs, order 4", "4-bit codes", "8-bit codes")  # measures while grokking
ENDS = ("dense", "mosaic")


def main(arguments: Sequence[str] | None = None) -> None:
    """Fills the page of results, and writes its figures and tables, from finished runs."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="run folders, or folders of them"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help=f"folder of {PAGE}"
    )
    options = parser.parse_args(arguments)
    try:
        for reason in publish(options.runs, options.output):
            print(f"left out: {reason}")
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def publish(places: Sequence[Path], folder: Path) -> list[str]:
    """Fills `folder`/results.md, and writes figures and tables beside it; what was left out.

    Raises:
        FileNotFoundError: if a place is no folder, or there is no page.
        ValueError: if the page lacks the place of a part.
    """
    runs, broken = read_all(places)
    page = folder / PAGE
    before = page.read_text("utf-8")
    with matplotlib.rc_context(STYLE):
        parts = {name: part(runs) for name, part in PARTS.items()}
        parts["plane"], unread = plane_part(places)
        text = fill(before, {name: part.markdown(FIGURES) for name, part in parts.items()})
        figures = folder / FIGURES
        figures.mkdir(parents=True, exist_ok=True)
        for part in parts.values():
            part.write(figures)
    page.write_text(text, "utf-8")
    return [*(each.reason for each in (*broken, *unread)), *outdated_in(runs)]


def origin_part(runs: Sequence[Finished]) -> Part:
    """A row for each command; equal cells of two recipes were run by the first of them."""
    if not runs:
        return Part()
    by_command: dict[str, list[Finished]] = {}
    for run in runs:
        by_command.setdefault(command_of(run.recipe), []).append(run)
    order = list(RECIPES)

    def place(command: str) -> tuple[int, str]:
        name = by_command[command][0].recipe["name"]
        return order.index(name) if name in order else len(order), command

    rows = []
    for command in sorted(by_command, key=place):
        own = by_command[command]
        minutes = f"{sum(run.seconds for run in own) / 60:.0f}"
        commits = sorted({f"`{run.environment.get('commit', '')}`" for run in own})
        rows.append((f"`{command}`", str(len(own)), minutes, ", ".join(commits)))
    table = markdown(("command", "runs", "minutes, all runs", "commit"), rows, left=1)
    every = table_of_runs(runs, Path())  # without folders, which are of the machine
    every = replace(
        every, columns=every.columns[:-1], rows=[row[:-1] for row in every.rows]
    )
    return Part(f"{table}\n{_machines(runs)}\n", tables=[every])


def command_of(asked: Asked) -> str:
    """What to type for a recipe; its name, if there is no such recipe today."""
    recipe = parsed(asked)
    return asked["name"] if recipe is None else shell_command(recipe)


def _machines(runs: Sequence[Finished]) -> str:
    """What they ran on, and with what."""
    found = {}
    for run in runs:
        machine, versions = (run.environment.get(n) or {} for n in ("machine", "versions"))
        texts = [f"{name} {version}" for name, version in versions.items() if version]
        place = f"{machine.get('processor', '')}, {machine.get('cores', '?')} cores"
        threads = f"{machine.get('threads', '?')} thread a run"
        found[visible(f"{place}, {threads}; {', '.join(texts)}.")] = None
    return "\n".join(found)


def claims_part(runs: Sequence[Finished]) -> Part:
    """How many verdicts of each kind, by claim and task, codes and scores apart."""
    found = claims(runs)
    counts: dict[tuple[int, str, str], Counter[str]] = {}
    for claim in found:
        for kind in ("code", "score"):
            if f"({kind}" in claim.measure:
                key = (claim.number, claim.task, f"{kind}s")
                counts.setdefault(key, Counter())[claim.verdict] += 1
    if not counts:
        return Part()
    rows = [
        (*map(str, key), *(str(counts[key][verdict]) for verdict in VERDICTS))
        for key in sorted(counts)
    ]
    told = "\n".join(f"{n}. {text}" for n, text in CLAIMS.items())
    table = markdown(("claim", "task", "measured by", *VERDICTS), rows, left=3)
    return Part(f"{told}\n\n{table}", tables=[table_of_claims(found)])


def simplify_part(runs: Sequence[Finished]) -> Part:
    """Start against trained network: a table for each task, of all measures."""
    tables = []
    for (task, network), found in by_task(of_recipe(runs, "simplify")).items():
        own = [each for each in found if each.is_dense and each.cell.start is None]
        if own:
            tables.append(f"### {title(task, network)}\n\n{_trainings(own)}")
    return Part("\n".join(tables))


def _trainings(found: Sequence[Cohort]) -> str:
    header = (
        *("measure", "trained as", "start", "trained", "trained / start"),
        *("arrangement", "values", "verdict"),
    )
    quantities = measures_of(run for each in found for run in each.runs.values())
    rows = [_training(quantity, cohort) for quantity in quantities for cohort in found]
    said = "; ".join(map(_trained, found))
    return f"{said}.\n\n{markdown(header, rows, left=2)}"


def _trained(cohort: Cohort) -> str:
    """How a cohort was trained, how well it does, and of how many seeds it is."""
    metric, count = cohort.metric, len(cohort.runs)
    if cohort.is_published:
        value = metric.text(metric.scale * cohort.first.metric)
        return f"published: {value} {metric.label} (one network, n = {count} starts)"
    seeds = f"n = {counted(count, 'seed')}"
    return f"{trained_as(cohort.cell)}: {score(cohort)} {metric.label} ({seeds})"


def _training(quantity: Quantity, cohort: Cohort) -> tuple[str, ...]:
    names = (f"{quantity.name} ({quantity.kind})", trained_as(cohort.cell))
    try:
        found = quantity.against_init(cohort.runs)
    except ValueError:
        return (*names, *[NONE] * 5, "undecided")
    return (
        *names,
        *_levels(quantity, cohort),
        with_ends(found.ratio, 4),
        NONE if found.arrangement is None else number(found.arrangement.mean, 4),
        NONE if found.rest is None else number(found.rest, 4),
        verdict_of(found.ratio),
    )


def _levels(quantity: Quantity, cohort: Cohort) -> Iterator[str]:
    """Bits per weight at the start and trained; of a score, the score."""
    rows = {seed: quantity.row(run) for seed, run in cohort.runs.items()}
    sizes = {seed: row.get("num_weights") for seed, row in rows.items() if row}
    for values in (quantity.init_values(cohort.runs), quantity.values(cohort.runs)):
        if quantity.kind != "code":
            found = Estimate.of_finite(values.values())
            yield NONE if found is None else f"{found.mean:.4g}"
            continue
        pairs = [(values[seed], size) for seed, size in sizes.items() if seed in values]
        found = Estimate.of_finite(value / size for value, size in pairs if size)
        yield NONE if found is None else number(found.mean, 4)


def compressors_part(runs: Sequence[Finished]) -> Part:
    """All treatments side by side: a table for each task."""
    own = of_recipe(runs, "compressors")
    tables = []
    for task in sorted({run.cell.task for run in own}):
        found = [run for run in own if run.cell.task == task]
        tables.append(f"### {title(task, '')}\n\n{_treatments(found)}")
    drawn = [(s, accuracy_against_length(s)) for s in subjects_of(own)]
    return Part("\n".join(tables), [f for s, f in drawn if f and len(s.cohorts) > 1])


def _treatments(runs: Sequence[Finished]) -> str:
    def place(cohort: Cohort) -> tuple[bool, bool, bool]:
        """The start, the same trained on, what they are compared with."""
        return cohort.is_distilled, not cohort.is_dense, cohort.cell.start is not None

    everything = sorted(cohorts(runs), key=place)
    quantities, metric = measures_of(everything[0].runs.values()), everything[0].metric
    header = (
        *("treatment", "against", "seeds", metric.label),
        *(f"difference, {metric.difference_unit}", "comparable", "times smaller"),
        *(f"{quantity.name} ({quantity.kind})" for quantity in quantities),
    )
    rows = [_treatment(cohort, everything, quantities) for cohort in everything]
    return markdown(header, rows, left=2)


def _treatment(
    cohort: Cohort, everything: Sequence[Cohort], quantities: Sequence[Quantity]
) -> tuple[str, ...]:
    """Metric, size, and every measure against the dense network."""
    reference, against = reference_of(cohort, everything)
    if cohort.is_published or reference is cohort:
        reference = None
    start = (
        _name(cohort),
        NONE if reference is None else against,
        str(len(cohort.runs)),
        score(cohort),
    )
    if reference is None:
        return (*start, NONE, NONE, _factor(cohort), *[NONE] * len(quantities))
    ratios = (_ratio(quantity, cohort, reference) for quantity in quantities)
    return (*start, *compared(cohort, reference), _factor(cohort), *ratios)


def _factor(cohort: Cohort) -> str:
    """How many times smaller the files are than all parameters in 32 bits, on the mean."""
    return number(cohort.factor, 1)


def _name(cohort: Cohort) -> str:
    cell = cohort.cell
    if cohort.is_distilled:
        return f"{cell.network or 'the same network'}, distilled"
    if cohort.is_published or cell.treatment != DENSE:
        return cell.label
    return f"{cell.label}, {'the start' if cell.start is None else 'trained on'}"


def _ratio(quantity: Quantity, cohort: Cohort, reference: Cohort) -> str:
    """The ratio, with an arrow where its interval leaves 1 out."""
    try:
        found = quantity.against(cohort.runs, reference.runs).ratio
    except ValueError:
        return NONE
    decided = found.n >= LEAST and found.excludes(1)
    return number(found.mean, 3) + (" ↓" if found.high < 1 else " ↑") * decided


def capacity_part(runs: Sequence[Finished]) -> Part:
    """Accuracy by block size and capacity: a table for each task, and the paper's figure."""
    own = of_recipe(runs, "capacity")
    tables = [
        f"### {title(task, network)}\n\n{_capacities(found)}"
        for (task, network), found in by_task(own).items()
    ]
    figures = [
        f for subject in subjects_of(own) for f in accuracy_against_capacity(subject)
    ]
    return Part("\n".join(tables), figures)


def _capacities(found: Sequence[Cohort]) -> str:
    metric = found[0].metric
    header = (
        *("block size s", "capacity c, %", "seeds", metric.label),
        *(f"difference, {metric.difference_unit}", "comparable", "times smaller"),
    )
    rows = [_capacity(cohort, found) for cohort in sorted(found, key=_place)]
    limit = metric.amount(COMPARABLE[metric.difference_unit])
    sizes = sorted({_place(each)[0] for each in found if each.settings})
    text = (
        f"The least capacity from which on no more than {limit} are lost, by the whole "
        f"interval: {'; '.join(_least(size, found) for size in sizes)}.\n"
    )
    return f"{markdown(header, rows, left=0)}\n{text}"


def _place(cohort: Cohort) -> tuple[int, float]:
    """Block size and capacity, 0 for dense networks."""
    return cohort.settings.get("block_size", 0), cohort.settings.get("capacity", 0)


def _capacity(cohort: Cohort, found: Sequence[Cohort]) -> tuple[str, ...]:
    size, capacity = _place(cohort)
    reference, _ = reference_of(cohort, found)
    alone = reference is None or reference is cohort
    return (
        f"{size:g}" if size else "dense",
        f"{100 * capacity:g}" if capacity else NONE,
        str(len(cohort.runs)),
        score(cohort),
        *((NONE, NONE) if alone or reference is None else compared(cohort, reference)),
        _factor(cohort),
    )


def _least(size: int, found: Sequence[Cohort]) -> str:
    """The least capacity of a block size from which on all are comparable."""
    least = None
    own = sorted((each for each in found if _place(each)[0] == size), key=_place)
    for cohort in reversed(own):
        reference, _ = reference_of(cohort, found)
        if reference is None or compared(cohort, reference)[1] != "yes":
            break
        least = _place(cohort)[1]
    return f"s = {size}, " + ("none of these" if least is None else f"{100 * least:g} %")


def usage_part(runs: Sequence[Finished]) -> Part:
    """How many motifs are used, and how unevenly: a table for each task, and figures."""
    header = (
        *("treatment", "epoch", "seeds", "motifs", "used"),
        *("blocks of the most used tenth, %", "entropy, bits a block", "of at most"),
    )
    tables, figures = [], []
    for subject in subjects_of(of_recipe(runs, "usage")):
        rows = [
            (cohort.label, f"{epoch:g}", str(len(found)), *_usage(found))
            for cohort in subject.cohorts
            for epoch, found in usages(cohort).items()
        ]
        tables.append(f"### {subject.title}\n\n{markdown(header, rows, left=1)}")
        figures += motif_usage(subject)
    return Part("\n".join(tables), figures)


def _usage(found: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Means over seeds."""
    return (
        number(fmean(map(len, found)), 0),
        number(fmean(sum(count > 0 for count in each) for each in found), 0),
        number(fmean(100 * _tenth(each) for each in found), 1),
        number(fmean(map(_entropy, found)), 2),
        number(fmean(math.log2(len(each)) for each in found), 2),
    )


def _tenth(usage: Sequence[int]) -> float:
    most = sorted(usage, reverse=True)[: max(1, len(usage) // 10)]
    return sum(most) / sum(usage)


def _entropy(usage: Sequence[int]) -> float:
    shares = [count / sum(usage) for count in usage if count]
    return -math.fsum(share * math.log2(share) for share in shares)


def grokking_part(runs: Sequence[Finished]) -> Part:
    """When held-out accuracy comes, and every measure before, then and at the end."""
    own = of_recipe(runs, "grokking")
    figures = []
    for subject in subjects_of(own):
        figures += metric_through_training(subject)
        figures += [f for f in complexity_through_training(subject) if f.about in DRAWN]
    return Part("\n".join(_grokked(run) for run in own if run.history), figures)


def _grokked(run: Finished) -> str:
    header = (
        *("measure", "seed", "start", "at 95 %", "end", "end / start"),
        *("shuffled end / start", "least / start", "below 99 % of the start from step"),
    )
    lines = measured(run)
    reached = next((n["epoch"] for n in run.history if n["metric"] >= GENERALIZES), None)
    last = lines[-1].get("measures", {}) if lines else {}
    names = [name for name in last if all(_has(line, name) for line in lines)]
    rows = [_fall(name, run, lines, reached) for name in names]
    when = "never" if reached is None else f"at step {reached:g}"
    told = (
        f"{title(run.cell.network, '')}, seed {run.cell.seed}, {trained_as(run.cell)}: "
        f"held-out accuracy reaches {100 * GENERALIZES:g} % {when}, and ends at "
        f"{100 * run.metric:.1f} % after {run.history[-1]['epoch']:g} steps.\n"
    )
    return f"{told}\n{markdown(header, rows, left=1)}"


def _fall(
    name: str, run: Finished, lines: Sequence[Line], reached: float | None
) -> tuple[str, ...]:
    values = {line["epoch"]: _value(line, name) for line in lines}
    start, end = values[lines[0]["epoch"]], values[lines[-1]["epoch"]]
    later = (v for e, v in values.items() if reached is not None and e >= reached)
    then = next(later, None)
    first, last = (_row(n, name).get("shuffled_mean") for n in (lines[0], lines[-1]))
    fallen = [epoch for epoch, value in values.items() if value < FALLEN * start]
    return (
        name,
        str(run.cell.seed),
        _level(start),
        NONE if then is None else _level(then),
        _level(end),
        number(end / start, 4),
        number(last / first, 4) if first and last else NONE,
        number(min(values.values()) / start, 4),
        f"{fallen[0]:g}" if fallen else "never",
    )


def _has(line: Line, name: str) -> bool:
    """Whether a measure was taken then, with a value that others can be divided by."""
    if _row(line, name).get("value") is None:
        return False
    value = _value(line, name)
    return math.isfinite(value) and value > 0


def _value(line: Line, name: str) -> float:
    """Bits per weight, or the score."""
    row = _row(line, name)
    return row["value"] if row.get("bits_per_weight") is None else row["bits_per_weight"]


def _row(line: Line, name: str) -> dict[str, Any]:
    return {**line.get("measures", {}).get(name, {})}


def _level(value: float) -> str:
    return number(value, 4) if value < 100 else f"{value:.0f}"


def plane_part(places: Sequence[Path]) -> tuple[Part, list[Broken]]:
    """Loss at the three networks, and the greatest on the lines to the mosaic; files unread."""
    header = (
        *("plane", "loss of the start", "dense", "mosaic"),
        *("greatest between dense and mosaic", "greatest between start and mosaic"),
        "distance of dense and mosaic",
    )
    planes, broken = planes_in(places)
    own = [p for p in planes if {ENDS, ("start", "mosaic")} <= p.lines.keys()]
    if not own:
        return Part(), broken
    table = markdown(header, map(_plane, own), left=1)
    figures = {figure.name: figure for figure in map(loss_plane, own)}
    text = f"Loss on training data, in {own[0].unit}.\n\n{table}"
    return Part(text, [*figures.values()]), broken


def _plane(plane: Plane) -> tuple[str, ...]:
    between, from_start = plane.lines[ENDS], plane.lines["start", "mosaic"]
    first, second = (plane.points[name] for name in ENDS)
    losses = (from_start[0], between[0], between[-1], max(between), max(from_start))
    name = plane.title.partition(":")[0]
    return (name, *(f"{loss:.3g}" for loss in losses), number(math.dist(first, second), 2))


PARTS: dict[str, Callable[[Sequence[Finished]], Part]] = {
    "origin": origin_part,
    "claims": claims_part,
    "simplify": simplify_part,
    "compressors": compressors_part,
    "capacity": capacity_part,
    "usage": usage_part,
    "grokking": grokking_part,
}

if __name__ == "__main__":
    main()
