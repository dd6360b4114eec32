"""Run folders: what a cell leaves behind, and how it is read again.

A folder holds `cell.json` from the beginning, `history.jsonl` (a line an epoch), the trained
network and, written last and at once, `result.json`: only a folder that has it is finished.
`failure.txt` says why a run failed. What is read is checked: a folder may be a stranger's.
"""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required, TypeVar

from pydantic import BeforeValidator, ConfigDict
from typing_extensions import TypedDict

from momos._util.escaping import visible
from momos.study import schema
from momos.study.cell import Cell
from momos.study.schema import checked, parsed

CELL = "cell.json"
RESULT = "result.json"
HISTORY = "history.jsonl"
WEIGHTS = "weights.safetensors"
FAILURE = "failure.txt"
PART = ".part"  # ends the names of what is not whole yet
LARGEST = 2**30  # bytes of a file that is read
MOST_REASON = 2**20  # of `FAILURE`
FORMAT = 1  # of the files; others are refused
T = TypeVar("T")
OPEN = ConfigDict(extra="allow")  # what is not known is kept


def _as_asked(found: Any) -> Any:
    return {"name": found, "settings": {}} if isinstance(found, str) else found


class Lengths(TypedDict):
    """In bits; bound and entropy are of mosaics, with what stays dense."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    dense: schema.Positive
    file: schema.Positive
    bound: NotRequired[schema.Positive]
    entropy: NotRequired[schema.Positive]


Levels = dict[str, schema.Number | None]  # of a measure, in a line of the history


class Row(TypedDict, total=False):
    """A row of `momos.measure`; `tensor` is empty where it is of the whole network."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    name: Required[schema.Name]
    kind: Required[Literal["code", "score"]]
    unit: Required[schema.Text]
    tensor: Required[schema.Text]
    value: Required[schema.Number | None]
    bits_per_weight: schema.Number | None
    shuffled_mean: schema.Number | None
    shuffled_z: schema.Number | None
    init_value: schema.Number | None
    arrangement: schema.Number | None
    value_distribution: schema.Number | None
    ratio: schema.Number | None
    unavailable: schema.Text
    view: schema.Text
    about: schema.Text
    num_weights: schema.Count
    raw_bits: schema.Count
    ordered: schema.Fact


class Line(TypedDict, total=False):
    """A line of the history; epoch 0 is before training, `usage` has the most used motif first."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    epoch: Required[schema.Count]
    metric: Required[schema.Number]
    train_loss: schema.Number | None
    validation: schema.Number
    measures: dict[str, Levels]
    usage: schema.Usage


class Environment(TypedDict, total=False):
    """Where a run took place."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    versions: schema.Object
    commit: schema.Text
    machine: schema.Object
    when: schema.Text


class Asked(TypedDict):
    """The recipe that asked for a run; of a sweep the name alone."""

    name: schema.Text
    settings: schema.Object


NOBODY: Asked = {"name": "", "settings": {}}


class Described(TypedDict):
    """What `cell.json` holds."""

    format: Annotated[int, schema.kind(f"{FORMAT}", lambda v: v == FORMAT)]
    cell: Cell
    recipe: Annotated[Asked, BeforeValidator(_as_asked)]
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `result.json` holds."""

    metric_name: schema.Name
    metric: schema.Number
    higher_is_better: schema.Fact
    num_weights: schema.Size
    file: schema.FileName
    lengths: Lengths
    measures: tuple[Row, ...]
    seconds: schema.Amount
    motifs_used: schema.Count | None = None  # of a mosaic
    validation: schema.Number | None = (
        None  # the metric on samples held out, if there were any
    )
    kept_epoch: schema.Count | None = None  # of the network, where it was chosen
    stopped_epoch: schema.Count | None = None  # where training stopped early


@dataclass(frozen=True, eq=False, kw_only=True)
class Finished(Result):
    """One finished cell."""

    folder: Path
    cell: Cell
    recipe: Asked
    environment: Environment
    history: tuple[Line, ...]

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

    def measure(self, name: str) -> Row | None:
        """The row of one measure of the whole network, if it was taken."""
        rows = (r for r in self.measures if r["name"] == name and not r["tensor"])
        return next(rows, None)


@dataclass(frozen=True)
class Broken:
    """A folder that is no finished run, and why."""

    folder: Path
    reason: str


def read(folder: Path) -> Finished:
    """The finished run in a folder.

    Raises:
        ValueError: if it has not finished, or failed (says why), or its files are damaged or
            of another format; names the file.
    """
    if not finished(folder):
        why = "it has not finished"
        if failed(folder):
            why = f"it failed: {failure(folder)}"
        raise ValueError(f"a run must be finished, but {folder.name} is not: {why}")
    try:
        described = _checked(Described, read_text(folder, CELL), CELL)
        result = _checked(Result, read_text(folder, RESULT), RESULT)
        lines = enumerate(read_text(folder, HISTORY).split("\n"), start=1)
        history = [
            _checked(Line, text, f"{HISTORY}, line {n}") for n, text in lines if text
        ]
    except (OSError, ValueError) as error:
        raise ValueError(f"run folder {folder} is damaged: {error}") from error
    return Finished(
        folder=folder,
        cell=described["cell"],
        recipe=described["recipe"],
        environment=described["environment"],
        history=tuple(history),
        **vars(result),
    )


def read_all(places: Iterable[Path]) -> tuple[list[Finished], list[Broken]]:
    """The finished runs in folders at any depth, in order and each once; and what is broken."""
    runs: list[Finished] = []
    broken: list[Broken] = []
    for folder in sorted({f.resolve() for place in places for f in run_folders(place)}):
        try:
            runs.append(read(folder))
        except ValueError as error:
            broken.append(Broken(folder, visible(str(error))))
    return runs, broken


def run_folders(place: Path) -> Iterator[Path]:
    """`place`, if it is a run folder, or those in it, at any depth."""
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


def begin(
    folder: Path, cell: Cell, *, recipe: Asked, environment: Mapping[str, Any]
) -> None:
    """Makes the folder of a cell that is about to be run."""
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    (folder / FAILURE).unlink(missing_ok=True)
    asked = {"recipe": recipe, "environment": environment}
    write_json(folder / CELL, {"format": FORMAT, "cell": asdict(cell)} | asked)


def finished(folder: Path) -> bool:
    return (folder / RESULT).exists()


def failed(folder: Path) -> bool:
    return (folder / FAILURE).exists()


def failure(folder: Path) -> str:
    """Why a run failed, at most `LONGEST` characters; or why that cannot be read."""
    try:
        lines = read_text(folder, FAILURE, most=MOST_REASON, errors="replace").splitlines()
    except (OSError, ValueError) as error:
        return str(error)
    reasons = [line for line in lines if line.strip()]
    return reasons[-1].strip()[: schema.LONGEST] if reasons else "the reason is missing"


def write_failure(folder: Path, reason: str) -> str:
    """Leaves the reason, which is also returned as `failure` reads it: in one line, bounded."""
    folder.mkdir(parents=True, exist_ok=True)
    reason = " ".join(reason.split())[: schema.LONGEST]
    write_text(folder / FAILURE, f"{reason}\n")
    return reason


def clear(folder: Path) -> None:
    """Removes what killed processes left half-written; for the only process at work in a folder."""
    for path in folder.glob(f"*{PART}"):
        is_folder = path.is_dir() and not path.is_symlink()
        shutil.rmtree(path) if is_folder else path.unlink()


def write_json(path: Path, found: Any) -> None:
    """Writes a file at once: it is there whole, or as it was before."""
    write_text(path, json.dumps(found, ensure_ascii=False, indent=1) + "\n")


def write_lines(path: Path, found: Iterable[Any]) -> None:
    """The same for a file of JSON lines."""
    write_text(path, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in found))


def write_text(path: Path, text: str) -> None:
    """The same for text as it is."""
    part = path.with_name(
        f"{path.name}.{secrets.token_hex(8)}{PART}"
    )  # of this writer alone
    try:
        part.write_text(text, "utf-8")
        sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Puts what was written to a file on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_text(
    folder: Path, name: str, *, most: int = LARGEST, errors: str = "strict"
) -> str:
    """The text of a file in a folder, which strangers may have made."""
    path = inside(folder, name)
    if (num_bytes := path.stat().st_size) > most:
        raise ValueError(f"{name} must have at most {most} bytes, got {num_bytes}")
    return path.read_text("utf-8", errors)


def _checked(form: type[T], text: str, place: str) -> T:
    """The value in a JSON text; errors begin with its place."""
    try:
        found = parsed(text)
    except ValueError as error:
        raise ValueError(f"{place} {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{place} must hold an object, got {type(found).__name__}")
    try:
        return checked(form, found)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
