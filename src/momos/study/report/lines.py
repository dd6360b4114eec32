"""Lines of JSON that runs left behind, each checked before anything is made of it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

TREATMENTS = {
    "dense": "dense",
    "quantize_aware": "QAT + entropy coding",
    "prune": "pruning + lossless coder",
    "sampled": "sampled MoMos (the paper's)",
    "learned": "learned motifs",
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "treatment": str,
    "settings": dict,
    "seed": int,
    "epochs": (int, float),
    "learning_rate": (int, float),
    "start": str,
    "teacher": str,
    "metric_name": str,
    "metric": (int, float),
    "file_bytes": int,
    "dense_bytes": int,
    "seconds": (int, float),
    "versions": dict,
    "cores": int,
}
OPTIONAL = ("group", "ablation", "command", "commit", "key")
PLAIN_LOOP = (
    "3c590c0"  # the last commit with the loop that lines without a key were made by
)


@dataclass(frozen=True)
class Line:
    """A finished run, as one line of JSON.

    `start` and `teacher` name dense networks, alike for every seed: "" where there is none. An
    ablation's line has a `group`, whose rows are compared, and a name in it. `key` is that of the
    study's cell, and `command` runs it among others; a line without them was made by a plain loop
    that is gone.
    """

    task: str
    treatment: str
    settings: Mapping[str, Any]
    seed: int
    epochs: float
    learning_rate: float
    start: str
    teacher: str
    metric_name: str
    metric: float
    file_bytes: int
    dense_bytes: int
    seconds: float
    versions: Mapping[str, str]
    cores: int
    group: str = ""
    ablation: str = ""
    command: str = ""
    commit: str = ""
    key: str = ""

    @classmethod
    def of(cls, values: object) -> "Line":
        """The line that a value of JSON is.

        Raises:
            ValueError: if something is missing or of another type, or the treatment unknown.
        """
        if not isinstance(values, dict):
            raise ValueError(f"a result must be an object, got {values!r}")
        for name, kind in TYPES.items():
            if name not in values:
                raise ValueError(f"a result must have {name!r}, got {sorted(values)}")
            if not isinstance(values[name], kind):
                raise ValueError(f"{name} must be {_names(kind)}, got {values[name]!r}")
        if values["treatment"] not in TREATMENTS:
            raise ValueError(
                f"treatment must be one of {', '.join(TREATMENTS)}, "
                f"got {values['treatment']!r}"
            )
        if not isfinite(values["metric"]):
            raise ValueError(f"metric must be finite, got {values['metric']}")
        if min(values["file_bytes"], values["dense_bytes"]) < 1:
            raise ValueError("file_bytes and dense_bytes must be at least 1")
        found: dict[str, Any] = {name: values[name] for name in TYPES}
        found |= {name: str(values.get(name, "")) for name in OPTIONAL}
        return cls(**found)

    @property
    def cell(self) -> tuple[Any, ...]:
        """What runs of different seeds have in common."""
        settings = json.dumps(dict(self.settings), sort_keys=True)
        trained = (self.epochs, self.learning_rate, self.start, self.teacher)
        made = (self.by_study, self.group, self.ablation)
        return (*made, self.treatment, settings, *trained)

    @property
    def by_study(self) -> bool:
        """Whether it is a run of the study's, and not of the plain loop."""
        return bool(self.key)


def read_lines(path: Path) -> list[Line]:
    """The results in a file.

    Raises:
        ValueError: naming file and line, if one cannot be read, repeats an earlier one, or is of
            another task or metric than its file (its group, for an ablation).
    """
    return checked(path.read_text("utf-8").splitlines(), path)


def checked(texts: Iterable[str], path: Path) -> list[Line]:
    """The results in a file of these lines, which may be still to be written.

    Raises:
        ValueError: as `read_lines`.
    """
    lines: list[Line] = []
    places: dict[tuple[Any, ...], int] = {}
    kinds: dict[str, tuple[str, str]] = {}
    for number, text in enumerate(texts, 1):
        try:
            line = Line.of(json.loads(text))
            earlier = places.setdefault((*line.cell, line.seed), number)
            if earlier != number:
                raise ValueError(f"a run must be there once, got that of line {earlier}")
            kind = (line.task, line.metric_name)
            expected = kinds.setdefault(line.group, kind)
            if kind != expected:
                raise ValueError(f"task and metric must be {expected}, got {kind}")
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
        lines.append(line)
    return lines


def by_maker(lines: Iterable[Line]) -> list[list[Line]]:
    """Those of the study and those of the plain loop, each if there are any.

    From the same seeds they drew other batches, so each is compared with its own alone.
    """
    every = list(lines)
    made = ([each for each in every if each.by_study is study] for study in (True, False))
    return [found for found in made if found]


def _names(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(single.__name__ for single in kinds)
