"""The table of a comparison: one row per treatment, means over its seeds."""

from collections.abc import Sequence
from statistics import mean

from rich.table import Table

from momos.study.report.names import by_treatment, grouped, mean_and_deviation
from momos.study.store import Finished

COLUMNS = (
    "test\naccuracy, %",
    "bits/\nbound",
    "weight:\nentropy",
    "\nfile",
    "factor:\nbound",
    "\nfile",
    "motifs\nused",
)


def table(runs: Sequence[Finished]) -> Table:
    """Accuracy ± its deviation over seeds (with two or more), lengths, factors, motifs used."""
    result = Table(header_style="bold", pad_edge=False, box=None, padding=(0, 2, 0, 0))
    weights = grouped(runs[0].num_weights)
    result.add_column(f"network of\n{weights} weights", no_wrap=True)
    for name in COLUMNS:
        result.add_column(name, justify="right", no_wrap=True)
    for name, group in by_treatment(runs).items():
        result.add_row(name, *_cells(group))
    return result


def _cells(group: Sequence[Finished]) -> list[str]:
    accuracy, deviation = mean_and_deviation([100 * run.metric for run in group])
    used = [run.motifs_used for run in group if run.motifs_used is not None]
    bound, entropy, file = (
        mean(run.lengths.get(name, run.lengths["dense"]) for run in group)
        for name in ("bound", "entropy", "file")
    )
    weights, dense = group[0].num_weights, group[0].lengths["dense"]
    return [
        f"{accuracy:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else ""),
        *(f"{length / weights:.2f}" for length in (bound, entropy, file)),
        *(f"{dense / length:.2f}" for length in (bound, file)),
        grouped(mean(used)) if used else "–",
    ]
