"""What surrounds a run: versions and machine, Lightning's side effects, and its loggers."""

import logging
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger

import momos
from momos.study.training.devices import HOST, Compute


@contextmanager
def undisturbed(threads: int, compute: Compute = HOST) -> Iterator[None]:
    """Undoes Lightning's global side effects, and leaves the terminal to us.

    Lightning announces devices, turns deterministic algorithms on for good, and answers Ctrl-C
    by leaving the process with code 1. Torch's own generator is left as it was, too.
    """
    announcer = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level, num_threads = announcer.level, torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    announcer.setLevel(logging.WARNING)
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable on CUDA
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=compute.seeded):
            for message in (
                "GPU available but not used",
                "Experiment logs directory .* exists and is not empty",
                "Checkpoint directory .* exists and is not empty",
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


PACKAGES = ("torch", "lightning", "numpy", "scikit-learn")


def environment(threads: int, compute: Compute = HOST) -> dict[str, Any]:
    """What a reader needs to repeat a run."""
    return {
        "versions": {"momos": momos.__version__, "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "commit": commit(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": threads,
            "system": platform.platform(),
            "device": compute.describe(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        },
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str:
    """The commit of the repository that the code is in, `+` if files differ; or nothing."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    here, pipe = Path(__file__).parent, subprocess.PIPE
    try:
        found = subprocess.run(
            command, cwd=here, stdout=pipe, stderr=pipe, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def processor() -> str:
    """Its name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
