"""Lightning leaves no trace, and loggers write where they should."""

import os
import signal
import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from momos.study.training import surroundings
from momos.study.training.surroundings import logging_to, undisturbed


def interrupted() -> None:
    """As Lightning ends a fit that a Ctrl-C interrupted."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        exit(1)


def test_the_process_is_left_as_it_was() -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.get_deterministic_debug_mode(),
            signal.getsignal(signal.SIGINT),
        )

    torch.set_num_threads(2)
    try:
        before = state()
        with undisturbed():
            assert torch.get_num_threads() == 1
            torch.use_deterministic_algorithms(True)
        assert state() == before
    finally:
        torch.set_num_threads(1)


def test_ctrl_c_stays_a_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), undisturbed():
        interrupted()


def test_another_exit_stays_an_exit() -> None:
    with pytest.raises(SystemExit, match="3"), undisturbed():
        raise SystemExit(3)


def test_only_what_lightning_says_of_the_machine_is_left_out() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with undisturbed():
            warnings.warn("GPU available but not used", stacklevel=1)
            warnings.warn("something", stacklevel=1)
    assert [str(warning.message) for warning in found] == ["something"]


PLACE = "MLFLOW_TRACKING_URI"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happens to loggers, whose packages are made up."""
    found: list[Any] = []
    for name in ("wandb", "mlflow"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    finish = lambda: found.append("finished")  # noqa: E731
    monkeypatch.setattr(sys.modules["wandb"], "finish", finish, raising=False)

    def mlflow(**settings: Any) -> None:
        found.append(settings)
        os.environ[PLACE] = settings["tracking_uri"]  # as MLflow does

    monkeypatch.setattr(
        surroundings.loggers, "WandbLogger", lambda **settings: found.append(settings)
    )
    monkeypatch.setattr(surroundings.loggers, "MLFlowLogger", mlflow)
    monkeypatch.delenv(PLACE, raising=False)
    return found


def test_each_run_of_wandb_is_finished(made: list[Any], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), logging_to("wandb", tmp_path, "a"):
        raise RuntimeError
    with logging_to("wandb", tmp_path, "b"):
        pass
    settings = {"project": "momos", "save_dir": tmp_path}
    assert made == [
        *({"name": "a"} | settings, "finished"),
        *({"name": "b"} | settings, "finished"),
    ]


def test_each_run_of_mlflow_has_a_database_of_its_own(
    made: list[Any], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        with logging_to("mlflow", tmp_path / name, name):
            pass
        assert PLACE not in os.environ
        assert made[-1]["tracking_uri"] == f"sqlite:///{tmp_path / name / 'mlflow.db'}"
        assert made[-1]["artifact_location"] == (tmp_path / name / "mlruns").as_uri()


def test_mlflow_goes_where_the_user_says(
    made: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, "http://server")
    with logging_to("mlflow", tmp_path, "a"):
        pass
    assert made[-1]["tracking_uri"] == "http://server"
    assert made[-1]["artifact_location"] is None
    assert os.environ[PLACE] == "http://server"
