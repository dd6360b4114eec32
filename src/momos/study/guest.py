"""Lightning as a guest of the process: it is left as it was found."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def as_a_guest(threads: int) -> Iterator[None]:
    """Leaves the process as Lightning found it, and the terminal to us.

    Lightning announces devices, turns deterministic algorithms on for good, and answers Ctrl-C
    by leaving the process with code 1.
    """
    announcer = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level, num_threads = announcer.level, torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    announcer.setLevel(logging.WARNING)
    torch.set_num_threads(threads)
    try:
        with warnings.catch_warnings():
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
