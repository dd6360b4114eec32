"""What runs leave behind: files of JSON lines, whole and readable after every finished run."""

import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import momos
from momos.study.runs import Epoch, Run

RESULTS = "results.jsonl"  # one line per run
HISTORY = (
    "history.jsonl"  # one line per epoch of a run, written just before the run's result
)


def result(run: Run) -> dict[str, Any]:
    """All there is to know of a run, to be written as one line; lengths in bits."""
    mosaic, learning = run.treatment.mosaic, run.treatment.learning
    return {
        "treatment": run.treatment.name,
        "data": run.data,
        "seed": run.seed,
        "accuracy": run.accuracy,
        **asdict(run.lengths),
        "factor": run.lengths.factor,
        "file_bytes": run.file_bytes,
        "file_factor": run.file_factor,
        "seconds": round(run.seconds, 2),
        "recipe": asdict(run.recipe),
        "mosaic": None if mosaic is None else asdict(mosaic),
        "learning": None if learning is None else asdict(learning),
        "versions": versions(),
        "cores": os.cpu_count(),
    }


def history(run: Run) -> list[dict[str, Any]]:
    """Accuracy and lengths over the epochs of a run."""
    names = {"treatment": run.treatment.name, "seed": run.seed}
    return [names | _flat(epoch) for epoch in run.epochs]


def append(folder: Path, run: Run) -> None:
    """Adds a finished run to the files in `folder`."""
    _write(folder / HISTORY, history(run))
    _write(folder / RESULTS, [result(run)])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def versions() -> dict[str, str]:
    return {
        "momos": momos.__version__,
        "torch": torch.__version__,
        "lightning": version("lightning"),
        "scikit-learn": version("scikit-learn"),
        "python": platform.python_version(),
    }


def _flat(epoch: Epoch) -> dict[str, Any]:
    values = asdict(epoch)
    lengths = values.pop("lengths")
    return values | lengths


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with path.open(
        "a", encoding="utf-8"
    ) as file:  # one write, so that no line is left half done
        file.write(text)
