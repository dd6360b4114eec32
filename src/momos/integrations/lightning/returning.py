"""A mosaic on its way from the process that trained it to the one that called `fit`.

With `ddp_notebook`, `ddp_fork` and `ddp_spawn` Lightning trains copies of module and callbacks in
processes of its own, and of what they end with only weights and metrics come back.
"""

import os
import tempfile
import warnings
import weakref
from pathlib import Path
from uuid import uuid4

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from momos.files.api import load, save
from momos.mosaic import Mosaic


class Returning:
    """One file that both processes know of, since it is named before they part."""

    def __init__(self) -> None:
        self.path = Path(tempfile.gettempdir()) / f"{uuid4()}.momos"
        weakref.finalize(self, _remove, self.path, os.getpid())

    def send(self, trainer: Trainer, mosaic: Mosaic) -> None:
        """From a process that ends with the training; warns that the module stays behind."""
        strategy = trainer.strategy
        if not isinstance(strategy.launcher, _MultiProcessingLauncher):
            return
        if trainer.is_global_zero:
            save(mosaic, self.path)
            warnings.warn(
                "training in processes of their own returns only weights to the module: "
                "callback.mosaic.write_(module), or .within('net').write_(module.net) for a "
                "network inside it, makes it the mosaic that momos.save takes",
                UserWarning,
                stacklevel=2,
            )

    def received(self) -> Mosaic | None:
        """What was sent since this was last called, if anything was."""
        if not self.path.exists():
            return None
        mosaic = load(self.path).mosaic
        self.path.unlink()
        return mosaic


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:  # not in a forked one, which has a copy of it
        path.unlink(missing_ok=True)
