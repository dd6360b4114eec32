"""What is kept of a run, epoch by epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

import momos
from momos.study.baselines import Treatment
from momos.study.choice import Choice
from momos.study.finishing import finished_copy
from momos.study.learner import Learner
from momos.study.store import HISTORY, write_lines


class History(L.Callback):
    """A line for epochs, 0 being before training; written to the folder as it grows.

    With `measure_every`, the complexity of what the network computes with, and how often each
    motif is used, at epoch 0, at every so many epochs, and at the last.

    Where samples are held out, metric and validation are of what the file would hold, as soon as
    lines count; before, and where none are, of what the network computes with. Training ends
    where the choice says so.
    """

    def __init__(
        self,
        folder: Path,
        treatment: Treatment,
        choice: Choice,
        *,
        epochs: int,
        record_every: int,
        measure_every: int,
        note: Callable[[dict[str, Any]], None],
    ) -> None:
        self.folder, self.treatment, self.choice = folder, treatment, choice
        self.epochs = epochs
        self.record_every, self.measure_every = record_every, measure_every
        self.note = note
        self.lines: list[dict[str, Any]] = []

    @property
    def best(self) -> dict[str, Any] | None:
        """The line that the choice falls on so far."""
        return self.choice.best(self.lines)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = self.choice.stops(self.lines)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.lines:
            self._add(0, pl_module, None)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.record_every == 0 or epoch == self.epochs:
            assert isinstance(pl_module, Learner)
            line = self._add(epoch, pl_module, pl_module.train_loss())
            logged = ("train_loss", "metric", "validation")
            values = {name: line[name] for name in logged if name in line}
            pl_module.log_dict(values, batch_size=1)
            trainer.should_stop = self.choice.stops(self.lines)

    def state_dict(self) -> dict[str, Any]:
        return {"lines": self.lines}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lines = state_dict["lines"]

    def _add(
        self, epoch: int, module: L.LightningModule, loss: float | None
    ) -> dict[str, Any]:
        assert isinstance(module, Learner)
        line: dict[str, Any] = {"epoch": epoch, "train_loss": loss}
        line |= self._scores(epoch, module)
        last = epoch == self.epochs or self.choice.stops([*self.lines, line])
        if self.measure_every and (epoch % self.measure_every == 0 or last):
            line["measures"] = measures_of(weights_of(module.network))
            if usage := usage_of(module.network):
                line["usage"] = usage
        self.lines.append(line)
        write_lines(self.folder / HISTORY, self.lines)
        self.note(line)
        return line

    def _scores(self, epoch: int, module: Learner) -> dict[str, float]:
        network, task = module.network, module.task
        if task.validate is None:
            return {"metric": task.evaluate(network)}
        if epoch >= self.choice.settled:
            network = finished_copy(network, self.treatment)
        return {"metric": task.evaluate(network), "validation": task.validate(network)}


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The weights that the network computes with, under the names that they will have.

    Those of a parametrization are what it makes of them.
    """
    found = {}
    for prefix, module in network.named_modules():
        if ".parametrizations" in f".{prefix}" or isinstance(module, momos.Bank):
            continue
        names = [*module._parameters, *getattr(module, "parametrizations", {})]
        for name in dict.fromkeys(name.removesuffix("_orig") for name in names):
            weight = getattr(module, name)
            if weight is not None:
                found[f"{prefix}.{name}".lstrip(".")] = weight.detach()
    return found


def measures_of(weights: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """The default measures, with few shuffles."""
    kept = ("value", "bits_per_weight", "shuffled_mean", "shuffled_deviation")
    rows = momos.measure(weights, controls=2).to_dict()["rows"]
    return {row["name"]: {name: row[name] for name in kept} for row in rows}


def usage_of(network: nn.Module) -> list[int]:
    """How many blocks use each motif, the most used first; empty if there are no motifs."""
    for module in network.modules():
        if isinstance(module, momos.Bank):
            return _descending(module.usage()) if module.learning else []
    try:
        return _descending(momos.Mosaic.of(network).usage())
    except ValueError:
        return []


def _descending(usage: Tensor) -> list[int]:
    return torch.sort(usage, descending=True).values.tolist()
