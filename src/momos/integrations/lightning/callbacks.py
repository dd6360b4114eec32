"""Lightning callbacks: a module is projected onto a mosaic, measured, or learns its motifs.

Lightning validates after the last batch of an epoch and before `on_train_epoch_end`, so the
projection is done at the last batch: validation, checkpoints and the end of training all see
projected weights. With `ddp_notebook`, `ddp_fork` and `ddp_spawn` it trains copies of module and
callbacks in other processes, and returns only weights and metrics: `Returning` brings a learned
mosaic back.
"""

import os
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from momos.config import MosaicConfig, check_whole
from momos.files.api import load, save
from momos.integrations.lightning.plain_states import (
    Held,
    bank_within,
    come_after_averaging,
    load_learning_state,
    save_as_before,
    save_plain_states,
)
from momos.learning import Reassign, freeze_, parametrize_
from momos.learning.bank import Learn
from momos.learning.schedule import schedule_settings
from momos.lengths import description_length
from momos.measures import Measurement, measure
from momos.mosaic import Mosaic
from momos.parameters import check_whole_tensors
from momos.projection import (
    KeepsGenerator,
    Projection,
    check_projectable,
    project_,
    steps_between,
)


class MosaicCallback(KeepsGenerator, Callback):
    """Projects the module every epoch, every optimizer step, or every `every` steps.

    Weights trained since the last projection are projected too whenever validation starts or an
    epoch ends, so nothing but a mosaic is validated or kept. When training ends, the networks
    inside the module are mosaics of their own, ready to be saved. `projection` is the last one. Its
    distortion, moved weights, motifs used and lengths in bits are logged as `mosaic/…`. The
    state is saved in checkpoints: a resumed run draws the same motifs. Where training ran in other
    processes (`ddp_spawn`, `ddp_notebook`), the networks here have the weights but do not know of
    them: `momos.save(network, path, config=config)`.

    Raises:
        ValueError: if `every` is none of these, or `config` has settings for learned motifs.

    Example:
        >>> from momos.integrations.lightning import MosaicCallback
        >>> from lightning import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> callback = MosaicCallback(momos.MosaicConfig(block_size=2, capacity=0.05))
        >>> module = BoringModel()
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> Trainer(fast_dev_run=True, callbacks=[callback], **quiet).fit(module)
        >>> momos.Mosaic.of(module.layer).num_motifs
        1
    """

    def __init__(
        self, config: MosaicConfig, every: Literal["epoch", "step"] | int = "epoch"
    ) -> None:
        self.interval = steps_between(every)
        check_projectable(config)
        self.config = config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.projection: Projection | None = None
        self._step = 0  # optimizer steps when last looked
        self._stale = False  # whether weights were trained since the last projection

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        stepped = trainer.global_step > self._step
        self._stale |= stepped
        self._step = trainer.global_step
        if self.interval is None:
            due = trainer.is_last_batch
        else:
            due = stepped and trainer.global_step % self.interval == 0
        if due:
            self._project(pl_module, on_epoch=self.interval is None)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._stale and not trainer.sanity_checking:
            self._project(pl_module, on_epoch=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._stale:
            self._project(pl_module, on_epoch=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.projection is not None:
            remember_within(pl_module, self.projection.mosaic)

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.get_state(),
            "step": self._step,
            "stale": self._stale,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.generator.set_state(state_dict["generator"].cpu())
        self._step = state_dict["step"]
        self._stale = state_dict["stale"]

    def _project(self, pl_module: LightningModule, *, on_epoch: bool) -> None:
        self.projection = project_(pl_module, self.config, generator=self.generator)
        self._stale = False
        length = description_length(self.projection.mosaic)
        values = {
            "distortion": self.projection.distortion,
            "moved": self.projection.moved,
            "motifs_used": int((self.projection.mosaic.usage() > 0).sum()),
            "bound": length.bound,
            "entropy": length.entropy,
        }
        pl_module.log_dict(
            {f"mosaic/{name}": float(value) for name, value in values.items()},
            on_step=not on_epoch,
            on_epoch=on_epoch,
            batch_size=1,
        )


def remember_within(pl_module: LightningModule, mosaic: Mosaic) -> None:
    """Remembers the mosaic of each network inside a module."""
    for name, child in pl_module.named_children():
        if any(place.name.startswith(f"{name}.") for place in mosaic.layout.placements):
            mosaic.within(name).remember_(child)


class ComplexityCallback(Callback):
    """Measures the trainable weights before training and after every `every` epochs.

    Values are logged as `complexity/…`, codes in bits per weight too, with whichever logger the
    trainer has; `history` keeps the epochs (0 is before training) and their measurements.
    `measures` and `controls` (how many shuffles) are those of `momos.measure`.

    Raises:
        ValueError: when training starts, if a measure is unknown or cannot be taken, or a weight
            is sharded.

    Example:
        >>> from momos.integrations.lightning import ComplexityCallback
        >>> from lightning import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> callback = ComplexityCallback(measures=("signs", "4-bit codes"), every=1)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> Trainer(fast_dev_run=True, callbacks=[callback], **quiet).fit(BoringModel())
        >>> [epoch for epoch, measurement in callback.history]
        [0, 1]
    """

    def __init__(
        self,
        measures: str | tuple[str, ...] = "default",
        every: int = 1,
        *,
        controls: int = 0,
    ) -> None:
        check_whole("every", every, least=1)
        self.measures = measures
        self.every = every
        self.controls = controls
        self.history: list[tuple[int, Measurement]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            values = _logged(self._measure(0, pl_module))
            for logger in trainer.loggers:
                logger.log_metrics(values, step=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0:
            found = self._measure(epoch, pl_module)
            pl_module.log_dict(_logged(found), on_step=False, on_epoch=True, batch_size=1)

    def _measure(self, epoch: int, pl_module: LightningModule) -> Measurement:
        check_whole_tensors(pl_module)
        weights = {
            name: weight
            for name, weight in pl_module.named_parameters()
            if weight.requires_grad
        }
        found = measure(weights, measures=self.measures, controls=self.controls)
        for row in found.rows:
            if row.unavailable:
                raise ValueError(
                    f"every measure must be available, but {row.name!r} is not: "
                    f"{row.unavailable}"
                )
        self.history.append((epoch, found))
        return found


def _logged(found: Measurement) -> dict[str, float]:
    values = {}
    for row in found.rows:
        name = f"complexity/{row.name}"
        values[name] = row.value
        if row.bits_per_weight is not None:
            values[f"{name}, bits per weight"] = row.bits_per_weight
        if row.control is not None:
            values[f"{name}, shuffled"] = row.control.mean
    return {name: float(value) for name, value in values.items() if value is not None}


class LearnedMosaicCallback(Callback):
    """Learns the motifs of the module: calls `parametrize_`, `Reassign` and `freeze_`.

    The module is parametrized when fitting begins, before its optimizers are made, and frozen when
    fitting ends; the networks inside it are then mosaics of their own, ready to be saved, and
    `mosaic` is that of the module. What stays dense is then rounded to `config.dense_dtype`,
    wherever in the module it is. `importance` goes by the names that weights have in the module.
    `schedule` are the settings of `Reassign` (`every`, `dense`, `ramp`, `fixed`), which counts
    optimizer steps; its length is that of the training. With `selection="whole"` the callback adds
    the gradient of `Reassign.penalty` to that of the loss. How many blocks changed, motifs used
    and the rate weight are logged as `mosaic/…`.

    A run resumed from a checkpoint (`ckpt_path`) is the same run. A fit that ended with an
    exception leaves the module parametrized, and fitting again continues from there: the same trainer with
    its schedule, another one with a new schedule.

    The `state_dict` of a checkpoint is that of the module without the callback, with the weights
    that validation saw, so that `trainer.test(ckpt_path="best")` and `load_from_checkpoint` load an
    exact mosaic. What learning needs in addition is under the key `momos` of the checkpoint, and
    gives its mosaic back as `freeze_` would have returned it:

        saved = torch.load(path)
        momos.parametrize_(module, config, learn="weights")
        module.load_state_dict(saved["state_dict"] | saved["momos"]["state_dict"])
        mosaic = momos.freeze_(module)

    With Lightning's `WeightAveraging` (`EMAWeightAveraging`) and `StochasticWeightAveraging`, in
    either order, what is validated, kept and frozen is the mosaic of the averaged latent weights.

    If the strategy starts processes (`ddp_notebook`, `ddp_spawn`), Lightning returns only the
    weights: `callback.mosaic.write_(module)`, or `.within("net").write_(module.net)`
    for a network inside it, then makes the module of the main process the mosaic that it is.

    Raises:
        TypeError: if a setting of the schedule is unknown.
        ValueError: if the settings do not fit together; when fitting begins, if the module
            cannot be parametrized or is so with other settings, or with `learn="weights"`,
            if the trainer does not know how long it will train.

    Example:
        >>> from momos.integrations.lightning import LearnedMosaicCallback
        >>> from lightning import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> callback = LearnedMosaicCallback(momos.MosaicConfig.learned(rate_weight=0.5))
        >>> module = BoringModel()
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> Trainer(fast_dev_run=True, callbacks=[callback], **quiet).fit(module)
        >>> callback.mosaic.num_motifs <= 64
        True
    """

    def __init__(
        self,
        config: MosaicConfig,
        learn: Learn = "weights",
        *,
        importance: Mapping[str, torch.Tensor | float] | None = None,
        **schedule: float,
    ) -> None:
        if learn not in ("motifs", "weights"):
            raise ValueError(f"learn must be 'motifs' or 'weights', got {learn!r}")
        self.settings = schedule_settings(learn, schedule)
        self.config = config
        self.learn: Learn = learn
        self.importance = importance
        self.schedule: Reassign | None = None
        self._mosaic: Mosaic | None = None
        self._returning = Returning()
        self._step = 0  # optimizer steps when last looked
        self._state: dict[str, Any] | None = None  # of the schedule, in a checkpoint
        self._held: Held | None = None  # as the epoch ended
        self._validated: Held | None = None  # as validation began

    @property
    def mosaic(self) -> Mosaic | None:
        """What the last training ended with."""
        returned = self._returning.received()
        if returned is not None:
            self._mosaic = returned
        return self._mosaic

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._state = self._held = None
        bank = bank_within(pl_module)
        if bank is None:
            bank = parametrize_(
                pl_module, self.config, learn=self.learn, importance=self.importance
            )
        elif bank.learn != self.learn:
            raise ValueError(
                f"the module is parametrized already, so learn must be {bank.learn!r}, got "
                f"{self.learn!r}"
            )
        elif bank.config != self.config:
            raise ValueError(
                f"the module is parametrized already, so config must be {bank.config}, got "
                f"{self.config}"
            )
        save_plain_states(pl_module, bank)
        come_after_averaging(self, trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        load_learning_state(trainer, pl_module, checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.learn == "motifs":
            return
        total = trainer.estimated_stepping_batches
        if not 0 < total < float("inf"):
            raise ValueError(
                f"the trainer must know how many steps it will take (max_epochs or "
                f"max_steps), got {total}"
            )
        state = self._state
        if state is None and self.schedule is not None and trainer.global_step:
            state = self.schedule.state_dict()  # the trainer continues where it stopped
        self.schedule = Reassign(pl_module, total_steps=int(total), **self.settings)
        if state is not None:
            self.schedule.load_state_dict(state)
        self._step = trainer.global_step

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.schedule is None:
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        self.schedule.pull_(scale / trainer.accumulate_grad_batches)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.schedule is None or trainer.global_step <= self._step:
            return
        self._step = trainer.global_step
        done = self.schedule.step()
        if done is not None:
            values = {f"mosaic/{name}": float(v) for name, v in asdict(done).items()}
            pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bank = bank_within(pl_module)
        self._validated = None if bank is None else Held(bank)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # Not at the start of the epoch: averages may be swapped in after that.
        if self._validated is not None and batch_idx == dataloader_idx == 0:
            self._validated.settle_()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validated is not None:
            self._validated.restore_()
        self._validated = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._settle()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bank = bank_within(pl_module)
        self._held = None if bank is None else Held(bank)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._settle(keep=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not at the end of training: the last checkpoint may be written after that.
        self._settle()
        mosaic = freeze_(pl_module)
        save_as_before(pl_module)
        remember_within(pl_module, mosaic)
        self._mosaic = mosaic
        self._returning.send(trainer, mosaic)

    def _settle(self, *, keep: bool = False) -> None:
        """Makes the module a mosaic again if averages were written into it since the epoch ended."""
        if self._held is not None:
            self._held.settle_()
        if not keep:
            self._held = None

    def state_dict(self) -> dict[str, Any]:
        return {"schedule": self.schedule.state_dict() if self.schedule else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict["schedule"]


class Returning:
    """Passes a mosaic between processes, by a file that is named before they fork."""

    def __init__(self) -> None:
        self.path = Path(tempfile.gettempdir()) / f"{uuid4()}.momos"
        weakref.finalize(self, _remove, self.path, os.getpid())

    def send(self, trainer: Trainer, mosaic: Mosaic) -> None:
        """Sends from a process that ends with the training; warns that the module is not updated."""
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
        """The mosaic that was sent since the last call, if any."""
        if not self.path.exists():
            return None
        mosaic = load(self.path).mosaic
        self.path.unlink()
        return mosaic


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:  # not in a forked one, which has a copy of it
        path.unlink(missing_ok=True)
