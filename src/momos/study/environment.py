"""Where a run took place: versions, commit, machine, and when."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import momos

PACKAGES = ("torch", "lightning", "numpy", "scikit-learn")


def environment(threads: int) -> dict[str, Any]:
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
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        },
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str:
    """The commit of the repository that the code is in, `+` if files differ; or nothing."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=20,
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
