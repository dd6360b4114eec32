"""Checkpoints that a run resumes from after a kill, and the best network so far; whole or absent."""

import os
import warnings
import zlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from momos.study.execution import ranks
from momos.study.store import PART, sync
from momos.study.training.history import History
from momos.study.training.learner import Learner

CHECKPOINT = "last.ckpt"
BEFORE = "before.ckpt"  # the one before the last
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
    """Those of a finished run, and all files whose names begin with theirs."""
    for name in (CHECKPOINT, BEFORE, BEST):
        for path in folder.glob(f"{name}*"):
            path.unlink()


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint to go on from; None to begin anew.

    Damaged ones get another name, and a warning says so; all of them where the best network is.
    """
    last, before, best = (folder / name for name in (CHECKPOINT, BEFORE, BEST))
    anew = "the run begins anew"
    if best.exists() and not _is_whole(best):
        for path in (best, last, before):
            _set_aside(path, f"{anew}, as the best network is needed in the end")
        return None
    for path, words in (
        (last, "the run goes on from the one before, or begins anew"),
        (before, anew),
    ):
        if path.exists() and _is_whole(path):
            return path
        _set_aside(path, words)
    return None


def _is_whole(path: Path) -> bool:
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except (BadZipFile, OSError, EOFError, NotImplementedError, zlib.error):
        return False


def _set_aside(path: Path, then: str) -> None:
    if path.exists():
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        warnings.warn(f"{path} is damaged and is now {aside.name}: {then}", stacklevel=4)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are there whole, or as they were before; the last one also stays."""

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        part, path = Path(f"{path}{PART}"), Path(path)
        super().save_checkpoint(checkpoint, part, storage_options)
        sync(part)
        if path.name == CHECKPOINT and path.exists():
            os.replace(path, path.with_name(BEFORE))
        os.replace(part, path)

    def load_checkpoint(self, path, map_location=None, weights_only=None):
        """Loads tensors and plain values only: a folder's checkpoint may be a stranger's."""
        return super().load_checkpoint(path, map_location, weights_only=True)


class KeepBest(L.Callback):
    """Keeps network and treatment of the best line in a file; called before checkpoints are made."""

    def __init__(self, history: History) -> None:
        self.path, self.history = history.folder / BEST, history

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        epoch, best = trainer.current_epoch + 1, self.history.best
        if best is None or best["epoch"] != epoch or ranks.rank():
            return
        state = {
            "epoch": epoch,
            "network": pl_module.network.state_dict(),
            "treatment": self.history.treatment.state_dict(),
        }
        WholeCheckpoints().save_checkpoint(state, self.path)

    def load_(self, network: nn.Module) -> None:
        """Brings a treated network and its treatment back to the best line."""
        ranks.of_first(None)  # which has written it
        best, state = (
            self.history.best,
            torch.load(self.path, map_location="cpu", weights_only=True),
        )
        if best is None or state["epoch"] != best["epoch"]:
            raise ValueError(
                f"{self.path} must be of the best epoch, {best and best['epoch']}, got "
                f"{state['epoch']}"
            )
        network.load_state_dict(state["network"])
        self.history.treatment.load_state_dict(state["treatment"])
