"""The table of a comparison: one row per treatment, means over its seeds."""

from collections.abc import Sequence
from statistics import mean, stdev

from rich.table import Table

from momos.study.runs import Run

COLUMNS = (
    "test\naccuracy, %",
    "bits/\nbound",
    "weight:\nentropy",
    "\nfile",
    "factor:\nbound",
    "\nfile",
    "motifs\nused",
)


def by_treatment(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs grouped by the name of their treatment, in the order in which they came."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.treatment.name, []).append(run)
    return groups


def table(runs: Sequence[Run]) -> Table:
    """Accuracy ± its deviation over seeds (with two or more), lengths, factors, motifs used."""
    result = Table(header_style="bold", pad_edge=False, box=None, padding=(0, 2, 0, 0))
    weights = grouped(runs[0].lengths.num_weights)
    result.add_column(f"network of\n{weights} weights", no_wrap=True)
    for name in COLUMNS:
        result.add_column(name, justify="right", no_wrap=True)
    for name, group in by_treatment(runs).items():
        result.add_row(name, *_cells(group))
    return result


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, which one value alone does not have."""
    return mean(values), stdev(values) if len(values) > 1 else None


def grouped(count: int | float) -> str:
    """A whole number, its thousands set apart."""
    return f"{count:,.0f}".replace(",", " ")


def _cells(group: Sequence[Run]) -> list[str]:
    accuracy, deviation = mean_and_deviation([100 * run.accuracy for run in group])
    lengths = [run.lengths for run in group]
    weights = lengths[0].num_weights
    files = [run.file_bytes for run in group if run.file_bytes is not None]
    factors = [run.file_factor for run in group if run.file_factor is not None]
    used = [length.motifs_used for length in lengths if length.motifs_used is not None]
    return [
        f"{accuracy:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else ""),
        f"{mean(length.bound for length in lengths) / weights:.2f}",
        f"{mean(length.entropy for length in lengths) / weights:.2f}",
        f"{8 * mean(files) / weights:.2f}" if files else "–",
        f"{mean(length.factor for length in lengths):.2f}",
        f"{mean(factors):.2f}" if factors else "–",
        grouped(mean(used)) if used else "–",
    ]
