"""Lightning leaves the process as it was, and a Ctrl-C what it is."""

import signal
import warnings

import pytest
import torch

from momos.study.training.surroundings import undisturbed


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

    before = state()
    with undisturbed(3):
        assert torch.get_num_threads() == 3
        torch.use_deterministic_algorithms(True)
    assert state() == before


def test_ctrl_c_stays_a_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), undisturbed(1):
        interrupted()


def test_another_exit_stays_an_exit() -> None:
    with pytest.raises(SystemExit, match="3"), undisturbed(1):
        raise SystemExit(3)


def test_only_what_lightning_says_of_the_machine_is_left_out() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with undisturbed(1):
            warnings.warn("GPU available but not used", stacklevel=1)
            warnings.warn("something", stacklevel=1)
    assert [str(warning.message) for warning in found] == ["something"]
