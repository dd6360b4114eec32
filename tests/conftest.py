"""Property tests run the same examples every time, for as long as they need."""

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch.optim.optimizer import register_optimizer_step_pre_hook

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


LONG = (  # files that begin first, so that processes end together
    "test_vq_triton.py",
    "test_study_cluster.py",
    "test_cli.py",
    "test_files_hostile.py",
    "test_learning_schedule.py",
    "test_examples.py",
    "test_cli_demo.py",
    "test_study_page_html.py",
    "test_measures_controls.py",
    "test_util_atomic.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--perturb",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="change gradients by up to this share, more than processors differ by",
    )
    parser.addoption(
        "--write-pins", action="store_true", help="write the study's pinned texts anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    if share := config.getoption("--perturb"):
        register_optimizer_step_pre_hook(partial(perturbed, share))


def perturbed(
    share: float, optimizer: torch.optim.Optimizer, args: tuple, options: dict
) -> tuple[tuple, dict] | None:
    """Gradients are there before a step, or after the closure that it is given."""
    closure = options.get("closure", args[1] if len(args) > 1 else None)
    if closure is None:
        perturb_(optimizer, share)
        return None

    def then_perturbed() -> object:
        loss = closure()
        perturb_(optimizer, share)
        return loss

    return args[:1], options | {"closure": then_perturbed}


@torch.no_grad()
def perturb_(optimizer: torch.optim.Optimizer, share: float) -> None:
    """The same for the same gradient, so that repeated and resumed runs still agree."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                numbers = torch.arange(parameter.grad.numel(), dtype=torch.float64)
                factors = 1 + share * (13 * numbers + 1000 * share).sin()
                parameter.grad.mul_(factors.view(parameter.shape).to(parameter.dtype))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a network is saved."""
    return tmp_path / "network.momos"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A Ctrl-C is one, also where tests are run by processes that do not hear it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
