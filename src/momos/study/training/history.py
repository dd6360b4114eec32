"""What is kept of a run, epoch by epoch, and what follows from it: the best line, and the end.

Both follow from the lines alone, which are in every checkpoint. Lightning's EarlyStopping forgets
a stop that was decided before a kill, and compares in float32.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from math import inf, isnan
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

import momos
from momos.study.execution import ranks
from momos.study.store import HISTORY, write_lines
from momos.study.training.learner import Learner, normalize_alone_
from momos.study.training.preparation import Prepared
from momos.study.treatments.treatment import Treatment

Line = dict[str, Any]
Note = Callable[[Line], None]


@dataclass(frozen=True)
class Choice:
    """By `validation` of lines; those before `settled`, an epoch, and before training do not count.

    `patience` is how many lines in a row may be no better than the best before them; 0: all.
    """

    settled: int
    patience: int
    higher_is_better: bool

    def best(self, lines: Sequence[Line]) -> Line | None:
        """The first of the best lines; None if none counts."""
        return max(self._counted(lines), key=self._worth, default=None)

    def stops(self, lines: Sequence[Line]) -> bool:
        """Whether training ends with the last of these lines, for want of a better one."""
        counted = self._counted(lines)
        if not self.patience or not counted:
            return False
        worths = [self._worth(line) for line in counted]
        return len(worths) - 1 - worths.index(max(worths)) >= self.patience

    def _counted(self, lines: Sequence[Line]) -> list[Line]:
        return [line for line in lines if line["epoch"] >= max(1, self.settled)]

    def _worth(self, line: Line) -> float:
        value = line["validation"]
        if isnan(value):
            return -inf
        return value if self.higher_is_better else -value


def finish_(network: nn.Module, treatment: Treatment) -> None:
    """Makes a treated network the ordinary one that the file will hold."""
    network._compiled_call_impl = None
    normalize_alone_(network)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    treatment.finish()


def finished_copy(network: nn.Module, treatment: Treatment) -> nn.Module:
    """What `finish_` would make of the network now, bit for bit; both arguments stay as they are."""
    # Weights that hooks compute, as those of pruning do, belong to a graph and cannot be copied.
    computed = {
        id(value): value.detach().clone()
        for module in network.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor)
    }
    network, treatment = deepcopy((network, treatment), computed)
    for module in network.modules():
        if is_parametrized(module):  # a copy shares its class, which finishing changes
            kind = type(module)
            module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))  # type: ignore[assignment]
    finish_(network, treatment)
    return network


class History(L.Callback):
    """A line for epochs, 0 being before training; written to the folder as it grows.

    With `measure_every`, lines at 0, every so many epochs and the last have complexity and usage.
    Where samples are held out and lines count, metric and validation are of what the file would
    hold; else of what the network computes with. `check` is called before anything is written.
    """

    def __init__(
        self,
        folder: Path,
        prepared: Prepared,
        note: Note,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.check = check
        cell, self.task, self.treatment = prepared.cell, prepared.task, prepared.treatment
        better = self.task.higher_is_better
        self.choice = Choice(prepared.settled_epoch, cell.patience, better)
        self.folder, self.last_epoch, self.note = folder, prepared.last_epoch, note
        self.record_every, self.measure_every = cell.record_every, cell.measure_every
        self.lines: list[Line] = []

    @property
    def best(self) -> Line | None:
        """The line that the choice falls on so far."""
        return self.choice.best(self.lines)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = self.choice.stops(self.lines)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.lines:
            self._add(0, pl_module, None)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.record_every == 0 or epoch == self.last_epoch:
            assert isinstance(pl_module, Learner)
            line = self._add(epoch, pl_module, pl_module.train_loss())
            logged = ("train_loss", "metric", "validation")
            values = {name: line[name] for name in logged if name in line}
            if not ranks.rank():
                pl_module.log_dict(values, batch_size=1)
            trainer.should_stop = self.choice.stops(self.lines)

    def state_dict(self) -> dict[str, Any]:
        return {"lines": self.lines}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lines = state_dict["lines"]

    def _add(self, epoch: int, module: L.LightningModule, loss: float | None) -> Line:
        assert isinstance(module, Learner)
        line: Line = {"epoch": epoch, "train_loss": loss}
        line |= self._scores(epoch, module.network)
        last = epoch == self.last_epoch or self.choice.stops([*self.lines, line])
        measured = self.measure_every and (epoch % self.measure_every == 0 or last)
        if measured and not ranks.rank():
            line["measures"] = measures_of(weights_of(module.network))
            if usage := usage_of(module.network):
                line["usage"] = usage
        if not ranks.agree(partial(digest, module.network)):
            raise RuntimeError(
                f"replicas must be equal on all {ranks.count()} devices, but differ after epoch "
                f"{epoch}"
            )
        line = ranks.of_first(line)
        self.lines.append(line)
        if not ranks.rank():
            self.check()
            write_lines(self.folder / HISTORY, self.lines)
            self.note(line)
        return line

    def _scores(self, epoch: int, network: nn.Module) -> dict[str, float]:
        if self.task.validate is None:
            return {"metric": self.task.evaluate(network)}
        if epoch >= self.choice.settled:
            network = finished_copy(network, self.treatment)
        validation = self.task.validate(network)
        return {"metric": self.task.evaluate(network), "validation": validation}


def digest(network: nn.Module) -> str:
    """A hash of all parameters and buffers."""
    found = sha256()
    for tensor in network.state_dict().values():
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


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
