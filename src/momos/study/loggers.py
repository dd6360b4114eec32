"""Where a run's metrics go beside its own history: Lightning's loggers, by name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger

PROJECT = "momos"
MLFLOW = "MLFLOW_TRACKING_URI"
NEEDS = {
    "csv": (),
    "tensorboard": ("tensorboard", "tensorboardX"),  # either
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "mlflow_skinny"),
}


def check_logger(name: str) -> None:
    """Refuses a logger that is unknown, or whose package is missing.

    Raises:
        ValueError: if there is none of that name.
        ImportError: if its package is not installed (names it).
    """
    if name not in NEEDS:
        raise ValueError(f"logger must be among {', '.join(NEEDS)}, got {name!r}")
    needed = NEEDS[name]
    if needed and not any(find_spec(package) for package in needed):
        raise ImportError(f"logger {name} needs {needed[0]}: pip install {needed[0]}")


@contextmanager
def logging_to(name: str, folder: Path, label: str) -> Iterator[Logger]:
    """A logger for the run in `folder`; `label` is its name where runs of all folders meet.

    A run that goes on after a kill logs into a new version of it. W&B writes into the folder,
    and to its server unless WANDB_MODE says "offline"; MLflow goes where MLFLOW_TRACKING_URI
    says, else into a database in the folder. Both hold on to the first run of a process, so
    they are made to let go of it in the end.
    """
    check_logger(name)
    if name == "csv":
        yield loggers.CSVLogger(save_dir=folder, name="log")
    elif name == "tensorboard":
        yield loggers.TensorBoardLogger(save_dir=folder, name="log")
    elif name == "wandb":
        try:
            yield loggers.WandbLogger(name=label, project=PROJECT, save_dir=folder)
        finally:
            import_module("wandb").finish()
    else:
        with _mlflow_place(folder.resolve()) as (database, files):
            yield loggers.MLFlowLogger(
                experiment_name=PROJECT,
                run_name=label,
                tracking_uri=database,
                artifact_location=files,
            )


@contextmanager
def _mlflow_place(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Where MLflow writes runs, and their files; afterwards it is told of no place by us."""
    if found := os.environ.get(MLFLOW):
        yield found, None
        return
    try:
        yield f"sqlite:///{folder / 'mlflow.db'}", (folder / "mlruns").as_uri()
    finally:
        os.environ.pop(MLFLOW, None)  # where it leaves its place for others to find
