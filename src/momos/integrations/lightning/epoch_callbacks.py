"""Projects a module onto a mosaic during training.

Lightning validates after the last batch of an epoch and before `on_train_epoch_end`, so the
projection is done at the last batch: validation, checkpoints and the end of training all see
projected weights.
"""

from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from momos.config import MosaicConfig, check_whole
from momos.lengths import description_length
from momos.measures import Measurement, measure
from momos.mosaic import Mosaic
from momos.parameters import check_whole_tensors
from momos.projection import KeepsGenerator, Projection, check_projectable, project_


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
        if every not in ("epoch", "step") and not isinstance(every, int):
            raise ValueError(f"every must be 'epoch', 'step' or an int, got {every!r}")
        if isinstance(every, int) and every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        check_projectable(config)
        self.config = config
        self.interval = None if every == "epoch" else 1 if every == "step" else int(every)
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
