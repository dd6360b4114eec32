"""How runs, groups of runs and numbers are written for people."""

from collections.abc import Sequence
from statistics import mean, stdev

from momos.study.cells import Cell
from momos.study.store import Finished


def titled(cell: Cell) -> str:
    """A treatment in a few words, and how else it was trained: what a reader tells it by."""
    name = _mosaic(cell)
    return " ".join([name, *cell.option_words]) if name else cell.label


def _mosaic(cell: Cell) -> str:
    """Motifs sampled or learned, their size and number; nothing of other treatments."""
    settings = cell.settings
    size = settings.get("block_size", 2)
    if cell.treatment == "sampled" and "capacity" in settings:
        return f"MoMos s={size}, c={100 * settings['capacity']:g} %"
    if cell.treatment == "sampled":
        return f"MoMos s={size}, k={settings.get('num_motifs')}"
    if cell.treatment == "learned":
        return f"learned s={size}, k={settings.get('num_motifs', 64)}"
    return ""


def by_treatment(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """Runs grouped by their treatment, in the order in which they came."""
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(titled(run.cell), []).append(run)
    return groups


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, which one value alone does not have."""
    return mean(values), stdev(values) if len(values) > 1 else None


def grouped(count: int | float) -> str:
    """A whole number, its thousands set apart."""
    return f"{count:,.0f}".replace(",", " ")
