"""Accuracy against file size: `python -m momos.study.curves TASK --treatment NAME ...`.

Every finished run is one line of JSON in the output file; runs that are there already are not
run again.
"""

import json
import os
import platform
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import momos
from momos.study.baselines import Treatment
from momos.study.learned import Learned
from momos.study.tasks import TASKS, Task
from momos.study.training import Outcome, train
from momos.study.treatments import TREATMENTS

KEY = (
    "task",
    "treatment",
    "settings",
    "seed",
    "epochs",
    "learning_rate",
    "start",
    "teacher",
)


@dataclass(frozen=True)
class Cell:
    """What one run is: runs of equal cells are the same run.

    `start` and `teacher` are files of dense networks (with `{seed}` in their names), or empty.
    """

    task: str
    treatment: str
    settings: dict[str, Any]
    seed: int
    epochs: float
    learning_rate: float
    start: str = ""
    teacher: str = ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains a network for a task from every seed; metric and file size go to the output."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    task = TASKS[options.task]()
    default = task.optimization
    settings = dict(options.setting)
    for seed in options.seeds:
        cell = Cell(
            task=options.task,
            treatment=options.treatment,
            settings=settings,
            seed=seed,
            epochs=options.epochs or default.epochs,
            learning_rate=options.learning_rate or default.learning_rate,
            start=options.start,
            teacher=options.teacher,
        )
        if cell in finished(options.output):
            continue
        outcome = run(cell, task, TREATMENTS[cell.treatment](**settings))
        if options.keep:
            _keep(outcome.network, Path(options.keep.format(seed=seed)))
        append(options.output, cell, task, outcome, ablation=options.ablation)
        print(
            f"{cell.task} {cell.treatment} {cell.settings} seed {cell.seed}: {task.metric} "
            f"{outcome.metric:.4f}, {outcome.file_bytes} bytes, {outcome.factor:.2f}x, "
            f"{outcome.seconds:.0f} s",
            flush=True,
        )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m momos.study.curves", description=main.__doc__)
    add = parser.add_argument
    add("task", choices=TASKS)
    add("--treatment", choices=TREATMENTS, required=True)
    add(
        "--setting",
        type=parsed,
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
    )
    add("--seeds", type=int, nargs="+", default=[0])
    add("--epochs", type=float, help="default: the task's own")
    add("--learning-rate", type=float, help="default: the task's own")
    add("--start", default="", help="weights to start from; {seed} in the name is set")
    add("--teacher", default="", help="weights of a dense teacher, likewise")
    add("--keep", default="", help="file to keep the weights in, likewise")
    add("--ablation", default="", help="name of the run among ablations of the task")
    add("-o", "--output", type=Path, required=True, help="file of JSON lines")
    return parser


def run(cell: Cell, task: Task, treatment: Treatment) -> Outcome:
    """The run that a cell describes."""
    if isinstance(treatment, Learned):
        treatment.task = task
    return train(
        task,
        treatment,
        cell.seed,
        epochs=cell.epochs,
        optimization=replace(task.optimization, learning_rate=cell.learning_rate),
        start=_loaded(task, cell.start, cell.seed),
        teacher=_loaded(task, cell.teacher, cell.seed),
    )


def finished(path: Path) -> list[Cell]:
    """The cells whose results are in the file."""
    if not path.exists():
        return []
    lines = map(json.loads, path.read_text("utf-8").splitlines())
    return [Cell(**{name: line[name] for name in KEY}) for line in lines]


def append(
    path: Path, cell: Cell, task: Task, outcome: Outcome, *, ablation: str = ""
) -> None:
    """Adds one line to the file, in one write."""
    named = {"ablation": ablation, "group": cell.task} if ablation else {}
    line = (
        asdict(cell)
        | named
        | {
            "metric_name": task.metric,
            "metric": outcome.metric,
            "file_bytes": outcome.file_bytes,
            "dense_bytes": outcome.dense_bytes,
            "factor": outcome.factor,
            "seconds": round(outcome.seconds, 1),
            "optimization": asdict(task.optimization),
            "versions": {
                "momos": momos.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "cores": os.cpu_count(),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def parsed(pair: str) -> tuple[str, Any]:
    """A setting as its name and its value: JSON where it is that, else text.

    Raises:
        ArgumentTypeError: if there is no equals sign.
    """
    name, equals, value = pair.partition("=")
    if not equals:
        raise ArgumentTypeError(f"a setting must be key=value, got {pair!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _loaded(task: Task, name: str, seed: int) -> nn.Module | None:
    if not name:
        return None
    network = task.network(seed)
    path = Path(name.format(seed=seed))
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def _keep(network: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)


if __name__ == "__main__":
    main()
