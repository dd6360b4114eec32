"""What `momos demo` shows of its runs: cohorts under short names, and two pictures."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib

from momos.study.analysis.cohort import Cohort, cohorts, subjects_of
from momos.study.cell import Cell
from momos.study.report.accuracy import accuracy_against_length
from momos.study.report.figure import STYLE
from momos.study.report.layers import layer_by_motif
from momos.study.store import CELL, Finished
from momos.study.treatments import TREATMENTS

ACCURACY = "accuracy_against_length.png"
MOSAIC = "mosaic.png"
PICTURES = {
    ACCURACY: "test accuracy against bits per weight",
    MOSAIC: "a layer of each network, painted by motif",
}


def clear(folder: Path) -> bool:
    """Makes the folder, without results of an earlier demo; whether there were some."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [path.parent for path in folder.glob(f"*/{CELL}")]
    pictures = [folder / name for name in PICTURES if (folder / name).exists()]
    for path in runs:
        shutil.rmtree(path)
    for path in pictures:
        path.unlink()
    return bool(runs or pictures)


def titled(cell: Cell) -> str:
    """A treatment in a few words: motifs sampled or learned, their size and number."""
    known = TREATMENTS[cell.treatment]
    settings = vars(known.kind(**cell.settings))
    if not known.short:
        return cell.label
    number = f"k={settings['num_motifs']}"
    if settings.get("capacity") is not None:
        number = f"c={100 * settings['capacity']:g} %"
    return " ".join(
        [f"{known.short} s={settings['block_size']}, {number}", *cell.option_words]
    )


def cohorts_of(runs: Sequence[Finished]) -> list[Cohort]:
    """One for each treatment, in the order of the recipe, with names of a few words."""
    order = list(dict.fromkeys(titled(run.cell) for run in runs))
    named = [replace(cohort, label=titled(cohort.cell)) for cohort in cohorts(runs)]
    return sorted(named, key=lambda cohort: order.index(cohort.label))


def draw(runs: Sequence[Finished], folder: Path) -> None:
    """Both pictures; that of accuracy if there is one."""
    (subject,) = subjects_of(runs)
    with matplotlib.rc_context(STYLE):
        figure = accuracy_against_length(subject)
        if figure is not None:
            figure.write_png(folder / ACCURACY)
        layer_by_motif(cohorts_of(runs)).savefig(folder / MOSAIC, dpi="figure")
