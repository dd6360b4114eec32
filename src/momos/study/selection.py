"""Which runs are meant by a few words."""

from pathlib import Path

from momos.study.store import Broken, Finished, read_all


def selected(words: str, root: Path) -> tuple[list[Finished], list[Broken]]:
    """The finished runs in the folder named, or those under `root` that the words fit.

    And whatever is no finished run there.

    Words fit a run if all of them are in its task and label, as in "digits learned
    rate_weight=0.8".

    Raises:
        ValueError: if no run fits; lists what there is.
        FileNotFoundError: if there is no folder of runs.
    """
    place = Path(words)
    if place.is_dir():
        return read_all([place])
    runs, broken = read_all([root])
    names = {run.folder: f"{run.cell.task} {run.cell.label}".split() for run in runs}
    found = [run for run in runs if set(words.split()) <= set(names[run.folder])]
    if not found:
        known = sorted({" ".join(name) for name in names.values()})
        raise ValueError(
            f"runs must fit all words of {words!r}, but none does; there are "
            f"{'; '.join(known) or 'none'} in {root}"
        )
    return found, broken
