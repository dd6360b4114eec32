"""What surrounds a run: versions and machine, Lightning's side effects, and its loggers."""

import logging
import os
import platform
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger

import momos
from momos.study.training.devices import HOST, Compute

THREADS = 1  # of a run, so that its results do not depend on the number of cores


@contextmanager
def undisturbed(compute: Compute = HOST) -> Iterator[None]:
    """Undoes Lightning's side effects: announcements, deterministic algorithms, exit on Ctrl-C.

    Torch's own generator and number of threads are as before, too.
    """
    announcer = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level, num_threads = announcer.level, torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    announcer.setLevel(logging.WARNING)
    torch.set_num_threads(THREADS)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable on CUDA
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=compute.seeded):
            for message in (
                "GPU available but not used",
                "Experiment logs directory .* exists and is not empty",
                "Checkpoint directory .* exists and is not empty",
                r"It is recommended to use `self\.log\(",  # they are equal on all ranks
                r"`isinstance\(treespec, LeafSpec\)`",
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from None
    finally:
        announcer.setLevel(level)
        torch.set_num_threads(num_threads)
        torch.set_deterministic_debug_mode(deterministic)


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

    W&B writes into the folder, and to its server unless WANDB_MODE is "offline"; MLflow to
    MLFLOW_TRACKING_URI, or a database in the folder. Both hold on to the first run of a process,
    so they are made to let go of it.
    """
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
    if found := os.environ.get(MLFLOW):
        yield found, None
        return
    try:
        yield f"sqlite:///{folder / 'mlflow.db'}", (folder / "mlruns").as_uri()
    finally:
        os.environ.pop(MLFLOW, None)  # where it leaves its place for others to find


PACKAGES = ("torch", "lightning", "numpy", "scikit-learn")


def environment(compute: Compute = HOST) -> dict[str, Any]:
    """What a reader needs to repeat a run."""
    return {
        "versions": {"momos": momos.__version__, "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        "commit": commit(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": THREADS,
            "system": platform.platform(),
            "device": compute.describe(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        },
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str:
    """The commit of the repository that the code is in, `+` if files differ; or nothing."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def processor() -> str:
    """Its name, as far as the system tells."""
    with suppress(OSError):
        found = re.search(r"model name\s*: *(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1].strip()
    return platform.processor()
