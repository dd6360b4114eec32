"""What a run goes on from after a kill, and the best network so far; there whole, or not at all."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from momos.study.baselines import Treatment
from momos.study.history import History
from momos.study.learner import Learner

CHECKPOINT = "last.ckpt"
BEST = "best.ckpt"


def checkpoints(folder: Path, every: int) -> ModelCheckpoint:
    """One after every so many epochs, the last alone kept."""
    return ModelCheckpoint(
        dirpath=folder,
        every_n_epochs=every,
        filename=CHECKPOINT.removesuffix(".ckpt"),
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def remove_checkpoints(folder: Path) -> None:
    """Those of a finished run, and one that was half written."""
    for name in (CHECKPOINT, BEST):
        for path in folder.glob(f"{name}*"):
            path.unlink()


class Whole(TorchCheckpointIO):
    """Checkpoints that are there whole, or as they were before."""

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        part = f"{path}.part"
        super().save_checkpoint(checkpoint, part, storage_options)
        os.replace(part, path)


class KeepBest(L.Callback):
    """Keeps network and treatment of the best line of the history in a file.

    To be called between the history and checkpoints: whatever the last checkpoint knows of is
    then in the file.
    """

    def __init__(self, folder: Path, treatment: Treatment, history: History) -> None:
        self.path, self.treatment, self.history = folder / BEST, treatment, history

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        epoch, best = trainer.current_epoch + 1, self.history.best
        if best is None or best["epoch"] != epoch:
            return
        state = {
            "epoch": epoch,
            "network": pl_module.network.state_dict(),
            "treatment": self.treatment.state_dict(),
        }
        Whole().save_checkpoint(state, self.path)

    def load_(self, network: nn.Module) -> None:
        """Brings a treated network and its treatment back to the best line.

        Raises:
            ValueError: if the file is of another epoch.
            OSError: if it cannot be read.
        """
        best, state = self.history.best, self._state()
        if best is None or state["epoch"] != best["epoch"]:
            raise ValueError(
                f"{self.path} must be of the best epoch, {best and best['epoch']}, got "
                f"{state['epoch']}"
            )
        network.load_state_dict(state["network"])
        self.treatment.load_state_dict(state["treatment"])

    def _state(self) -> dict[str, Any]:
        return torch.load(self.path, weights_only=True)
