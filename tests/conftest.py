"""Property tests run the same examples every time, for as long as they need."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# Small tensors on a shared machine: threads would wait longer than they work.
torch.set_num_threads(1)

settings.register_profile(
    "momos",
    max_examples=100,
    deadline=None,  # the first call may compile, and machines are shared
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("momos")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a network is saved."""
    return tmp_path / "network.momos"
