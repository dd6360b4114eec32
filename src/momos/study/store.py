"""Run folders: what a cell leaves behind, and how it is read again.

A folder holds `cell.json` from the beginning, `history.jsonl` (a line an epoch), the trained
network and, written last and at once, `result.json`: only a folder that has it is finished.
`failure.txt` says why a run failed.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from momos.study.cells import Cell

CELL = "cell.json"
RESULT = "result.json"
HISTORY = "history.jsonl"
WEIGHTS = "weights.safetensors"
FAILURE = "failure.txt"
FORMAT = 1  # of the files; others are refused


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
        described, result = _json(folder / CELL), _json(folder / RESULT)
        lines = (folder / HISTORY).read_text("utf-8").splitlines()
        history = tuple(json.loads(line) for line in lines)
        if described["format"] != FORMAT:
            raise ValueError(f"its format must be {FORMAT}, got {described['format']!r}")
        cell = Cell.of(described["cell"])
        result["measures"] = tuple(result["measures"])
        if not {"dense", "file"} <= result["lengths"].keys():
            raise ValueError("lengths must have dense and file")
        return Finished(
            folder=folder,
            cell=cell,
            recipe=described["recipe"],
            environment=described["environment"],
            history=history,
            **result,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"run folder {folder} is damaged: {_told(error)}") from error


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
            broken.append(Broken(folder, str(error)))
    return finished, broken


def run_folders(place: Path) -> Iterator[Path]:
    """`place`, if it is a run folder, or those in it, at any depth.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not place.is_dir():
        raise FileNotFoundError(f"runs must be in a folder, got {place}")
    yield from (path.parent for path in sorted(place.rglob(CELL)))


def begin(folder: Path, cell: Cell, *, recipe: str, environment: dict[str, Any]) -> None:
    """Makes the folder of a cell that is about to be run."""
    folder.mkdir(parents=True, exist_ok=True)
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
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} must hold an object, got {type(found).__name__}")
    return found


def _told(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error)


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "nobody knows why"
