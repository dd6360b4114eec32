"""One run: a network trained by Lightning's Trainer, dense or onto a mosaic.

Runs of one seed share their start and the order of their batches, whatever the treatment.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from momos.integrations.lightning import MosaicCallback
from momos.study.data import Batches, Split
from momos.study.models import mlp
from momos.study.recipes import Recipe, Treatment
from momos.study.runs import Epoch, Lengths, Run

Batch = tuple[Float[Tensor, "b pixels"], Int[Tensor, " b"]]


def train(
    recipe: Recipe,
    treatment: Treatment,
    *,
    seed: int,
    data: Split,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Run:
    """Trains one network from the start that `seed` gives; motifs are drawn by it too.

    Raises:
        KeyboardInterrupt: on Ctrl-C, which Lightning would turn into an exit of the process.
    """
    start = time.perf_counter()
    if treatment.mosaic is not None:
        treatment = replace(treatment, mosaic=replace(treatment.mosaic, seed=seed))
    projecting = MosaicCallback(treatment.mosaic) if treatment.mosaic is not None else None
    record = _Record(projecting, on_epoch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = mlp(recipe.widths)
    order = torch.Generator().manual_seed(seed)
    with _as_a_guest(recipe.threads):
        _trainer(recipe, [record] if projecting is None else [projecting, record]).fit(
            Classifier(network, recipe),
            Batches(data.train, recipe.batch_size, generator=order),
            Batches(data.test, len(data.test)),
        )
    seconds = time.perf_counter() - start
    return Run(recipe, treatment, str(data), seed, seconds, tuple(record.epochs), network)


def _trainer(recipe: Recipe, callbacks: list[L.Callback]) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=recipe.epochs,
        deterministic=True,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


class Classifier(L.LightningModule):
    """A network, cross entropy, and the optimizer of a recipe."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe

    def training_step(self, batch: Batch) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self.network(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: Batch) -> None:
        images, labels = batch
        right = (self.network(images).argmax(1) == labels).double().mean()
        self.log("accuracy", right, batch_size=len(labels))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.recipe.epochs)
        return [optimizer], [schedule]


class _Record(L.Callback):
    """Keeps every epoch, and tells of it."""

    def __init__(
        self, projecting: MosaicCallback | None, on_epoch: Callable[[Epoch], None]
    ) -> None:
        self.projecting = projecting
        self.on_epoch = on_epoch
        self.epochs: list[Epoch] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        projection = None if self.projecting is None else self.projecting.projection
        epoch = Epoch(
            epoch=trainer.current_epoch + 1,
            train_loss=float(trainer.callback_metrics["train_loss"]),
            accuracy=float(trainer.callback_metrics["accuracy"]),
            lengths=Lengths.of(pl_module, projection),
        )
        self.epochs.append(epoch)
        self.on_epoch(epoch)


@contextmanager
def _as_a_guest(threads: int) -> Iterator[None]:
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
