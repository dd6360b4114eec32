"""Measures and logs the complexity of the weights during training."""

from lightning.pytorch import Callback, LightningModule, Trainer

from momos.config import check_whole
from momos.measures import Measurement, measure
from momos.parameters import check_whole_tensors


class ComplexityCallback(Callback):
    """Measures the trainable weights before training and after every `every` epochs.

    Values are logged as `complexity/…`, codes in bits per weight too, with whichever logger the
    trainer has; `history` keeps the epochs (0 is before training) and their measurements.
    `measures` and `controls` (how many shuffles) are those of `momos.measure`.

    Raises:
        ValueError: when training starts, if a measure is unknown or cannot be taken, or a weight
            is sharded.
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
