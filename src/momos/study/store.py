"""Run folders: what a cell leaves behind, and how it is read again.

A folder holds `cell.json` from the beginning, `history.jsonl` (a line an epoch), the trained
network and, written last and at once, `result.json`: only a folder that has it is finished.
`failure.txt` says why a run failed.
"""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from momos._util.escaping import visible
from momos.study.cells import Cell
from momos.study.schema import (
    LONGEST,
    check_described,
    check_line,
    check_result,
    parsed,
)

CELL = "cell.json"
RESULT = "result.json"
HISTORY = "history.jsonl"
WEIGHTS = "weights.safetensors"
FAILURE = "failure.txt"
PART = ".part"  # ends the names of what is not whole yet
LARGEST = 2**30  # bytes of a file that is read
FORMAT = 1  # of the files; others are refused
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Finished:
    """One finished cell.

    `lengths` are in bits: dense, file, and for a mosaic bound and entropy, with what stays dense. `measures` are rows
    of `momos.measure` on the trained network, against its own initialization; `history` has a
    line for every epoch (0 is before training): epoch, train_loss, metric, and where they were
    asked for `validation`, `measures` (by name: value, bits_per_weight, shuffled_mean, shuffled_deviation) and
    `usage` (blocks of each motif, the most used first). `environment` is versions, commit,
    machine and when.
    """

    folder: Path
    cell: Cell
    recipe: str
    metric_name: str
    metric: float
    higher_is_better: bool
    num_weights: int
    file: str
    lengths: dict[str, float]
    measures: tuple[dict[str, Any], ...]
    history: tuple[dict[str, Any], ...]
    seconds: float
    environment: dict[str, Any]
    motifs_used: int | None = None  # of a mosaic
    validation: float | None = None  # the metric on samples held out, if there were any
    kept_epoch: int | None = (
        None  # that the network is of, and where training stopped early
    )
    stopped_epoch: int | None = None

    @property
    def factor(self) -> float:
        """How many times smaller the file is than all parameters in 32 bits."""
        return self.lengths["dense"] / self.lengths["file"]

    @property
    def weights(self) -> Path:
        """The trained network, as a safetensors file."""
        return self.folder / WEIGHTS

    @property
    def network(self) -> Path:
        """The file that the treatment left.

        Raises:
            ValueError: if it is not in the run folder itself.
            OSError: if it is no ordinary file.
        """
        return inside(self.folder, self.file)

    def measure(self, name: str) -> dict[str, Any] | None:
        """The row of one measure of the whole network, if it was taken."""
        for row in self.measures:
            if row["name"] == name and not row["tensor"]:
                return row
        return None


@dataclass(frozen=True)
class Broken:
    """A folder that is no finished run, and why."""

    folder: Path
    reason: str


class NotFinished(ValueError):
    """A run folder without a result."""


def read(folder: Path) -> Finished:
    """The finished run in a folder.

    Raises:
        NotFinished: if it has not finished, or failed (says why).
        ValueError: if its files are damaged or of another format; names the file.
    """
    if not (folder / RESULT).exists():
        failure = folder / FAILURE
        why = "it has not finished"
        if failure.exists():
            why = f"it failed: {_last_line(failure)}"
        raise NotFinished(f"a run must be finished, but {folder.name} is not: {why}")
    try:
        described, result = _described(folder), _json(folder, RESULT)
        _named(RESULT, check_result, result)
        result["measures"] = tuple(result["measures"])
        return Finished(
            folder=folder,
            cell=Cell.of(described["cell"]),
            recipe=described["recipe"],
            environment=described["environment"],
            history=tuple(_lines(folder)),
            **result,
        )
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"run folder {folder} is damaged: {error}") from error


def read_all(places: Iterable[Path]) -> tuple[list[Finished], list[Broken]]:
    """The finished runs in folders, or in folders of such folders; and what is broken.

    Runs come in the order of their folders' names, each once.
    """
    finished: list[Finished] = []
    broken: list[Broken] = []
    for folder in sorted({f.resolve() for place in places for f in run_folders(place)}):
        try:
            finished.append(read(folder))
        except ValueError as error:
            broken.append(Broken(folder, visible(str(error))))
    return finished, broken


def run_folders(place: Path) -> Iterator[Path]:
    """`place`, if it is a run folder, or those in it, at any depth.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not place.is_dir():
        raise FileNotFoundError(f"runs must be in a folder, got {place}")
    yield from (path.parent for path in sorted(place.rglob(CELL)))


def inside(folder: Path, name: str) -> Path:
    """An ordinary file of a run folder, which strangers may have made.

    Raises:
        ValueError: if the name, or a link of that name, leads out of the folder.
        OSError: if there is no such file, or it is a folder, pipe or device.
    """
    path = folder / name
    if path.name != name or path.resolve().parent != folder.resolve():
        raise ValueError(f"{name!r} must be a file in the run folder, but leads out of it")
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{name} must be an ordinary file")
    return path


def begin(folder: Path, cell: Cell, *, recipe: str, environment: dict[str, Any]) -> None:
    """Makes the folder of a cell that is about to be run."""
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    (folder / FAILURE).unlink(missing_ok=True)
    described = {
        "format": FORMAT,
        "cell": asdict(cell),
        "recipe": recipe,
        "environment": environment,
    }
    write_json(folder / CELL, described)


def finished(folder: Path) -> bool:
    return (folder / RESULT).exists()


def clear(folder: Path) -> None:
    """Removes what killed processes left half-written; for the only process at work in a folder."""
    for path in folder.glob(f"*{PART}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes a file at once: it is there whole, or as it was before."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """The same for a file of JSON lines."""
    write_text(
        path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    )


def write_text(path: Path, text: str) -> None:
    """The same for text as it is."""
    part = path.with_name(
        f"{path.name}.{secrets.token_hex(8)}{PART}"
    )  # of this writer alone
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Puts what was written to a file on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _described(folder: Path) -> dict[str, Any]:
    """What `cell.json` says."""
    described = _json(folder, CELL)
    _named(CELL, lambda found: check_described(found, FORMAT), described)
    return described


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of the history."""
    for number, line in enumerate(_text(folder, HISTORY).split("\n"), start=1):
        if line:
            place = f"{HISTORY}, line {number}"
            value = _object(line, place)
            _named(place, check_line, value)
            yield value


def _json(folder: Path, name: str) -> dict[str, Any]:
    return _object(_text(folder, name), name)


def _text(folder: Path, name: str) -> str:
    path = inside(folder, name)
    if (num_bytes := path.stat().st_size) > LARGEST:
        raise ValueError(f"{name} must have at most {LARGEST} bytes, got {num_bytes}")
    return path.read_text("utf-8")


def _object(text: str, name: str) -> dict[str, Any]:
    found = _named(name, parsed, text, " ")
    if not isinstance(found, dict):
        raise ValueError(f"{name} must hold an object, got {type(found).__name__}")
    return found


def _named(name: str, check: Callable[[T], R], value: T, joint: str = ": ") -> R:
    """What `check` returns; its errors begin with the name of the file."""
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{name}{joint}{error}") from error


def _last_line(path: Path) -> str:
    """The reason that a failed run left, at most `LONGEST` characters of it."""
    try:
        text = inside(path.parent, path.name).read_text("utf-8", errors="replace")
    except (OSError, ValueError) as error:
        return str(error)
    lines = text.strip().splitlines()
    return lines[-1][:LONGEST] if lines else "nobody knows why"
