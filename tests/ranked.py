"""What ranks do in tests of processes that work together: their own module, quickly imported."""

import os
import signal
from typing import Any

import torch

from momos.study.execution import ranks


def die(job: Any, note: Any) -> None:
    """The last rank is killed while the others wait for it."""
    note(os.getpid())
    if ranks.rank() == ranks.count() - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.sum_(torch.ones(1))


def fail(job: Any, note: Any) -> None:
    note(os.getpid())
    if ranks.rank() == ranks.count() - 1:
        raise ValueError(f"{job} must be something else")
    ranks.sum_(torch.ones(1))
