"""Where a run's metrics go beside its own history: Lightning's loggers, by name."""

from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger

PROJECT = "momos"
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


def logger_named(name: str, folder: Path, label: str) -> Logger:
    """A logger for the run in `folder`; `label` is its name where runs of all folders meet.

    A run that goes on after a kill logs into a new version of it. W&B writes into the folder,
    and to its server unless WANDB_MODE says "offline"; MLflow goes where MLFLOW_TRACKING_URI
    says, else into the folder.
    """
    check_logger(name)
    if name == "wandb":
        return loggers.WandbLogger(name=label, project=PROJECT, save_dir=folder)
    if name == "mlflow":
        place = folder.resolve() / "mlruns"
        return loggers.MLFlowLogger(
            experiment_name=PROJECT, run_name=label, save_dir=str(place)
        )
    if name == "tensorboard":
        return loggers.TensorBoardLogger(save_dir=folder, name="log")
    return loggers.CSVLogger(save_dir=folder, name="log")
