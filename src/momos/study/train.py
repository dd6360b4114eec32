"""One run: a network trained by Lightning's Trainer, dense, onto a mosaic or through one.

Runs of one seed share their start and the order of their batches, whatever the treatment.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import momos
from momos.integrations.lightning import LearnedMosaicCallback, MosaicCallback
from momos.study.data import Batches, Split
from momos.study.guest import as_a_guest
from momos.study.models import mlp
from momos.study.recipes.demo import Recipe, Treatment
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
    constraint = _constraint(treatment)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = mlp(recipe.widths)
    num_weights = sum(weight.numel() for weight in network.parameters())
    record = _Record(constraint, num_weights, on_epoch)
    order = torch.Generator().manual_seed(seed)
    with as_a_guest(recipe.threads):
        _trainer(recipe, [record] if constraint is None else [constraint, record]).fit(
            Classifier(network, recipe),
            Batches(data.train, recipe.batch_size, generator=order),
            Batches(data.test, len(data.test)),
        )
    if isinstance(constraint, LearnedMosaicCallback):
        record.epochs[-1] = replace(
            record.epochs[-1],
            accuracy=_accuracy(network, data),
            lengths=Lengths.of(num_weights, constraint.mosaic),
        )
    seconds = time.perf_counter() - start
    return Run(recipe, treatment, str(data), seed, seconds, tuple(record.epochs), network)


Constraint = MosaicCallback | LearnedMosaicCallback


def _constraint(treatment: Treatment) -> Constraint | None:
    if treatment.mosaic is None:
        return None
    if treatment.learning is None:
        return MosaicCallback(treatment.mosaic)
    return LearnedMosaicCallback(treatment.mosaic, **asdict(treatment.learning))


def _mosaic(constraint: Constraint | None) -> momos.Mosaic | None:
    """What the network is now, if it is a mosaic yet."""
    if isinstance(constraint, MosaicCallback):
        return constraint.projection.mosaic if constraint.projection else None
    if constraint is None or constraint.schedule is None:
        return None
    bank = constraint.schedule.bank
    return bank.mosaic() if bank.learning else None


@torch.no_grad()
def _accuracy(network: nn.Module, data: Split) -> float:
    """Of the frozen network, whose dense tensors were rounded after the last validation."""
    right = network(data.test.images).argmax(1) == data.test.labels
    return float(right.double().mean())


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
        self,
        constraint: Constraint | None,
        num_weights: int,
        on_epoch: Callable[[Epoch], None],
    ) -> None:
        self.constraint = constraint
        self.num_weights = num_weights
        self.on_epoch = on_epoch
        self.epochs: list[Epoch] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = Epoch(
            epoch=trainer.current_epoch + 1,
            train_loss=float(trainer.callback_metrics["train_loss"]),
            accuracy=float(trainer.callback_metrics["accuracy"]),
            lengths=Lengths.of(self.num_weights, _mosaic(self.constraint)),
        )
        self.epochs.append(epoch)
        self.on_epoch(epoch)
