"""Networks of the study as Lightning trains them."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities import types
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel as DDP

from momos.study.execution import ranks
from momos.study.tasks.task import Batch, Task
from momos.study.training.preparation import Prepared
from momos.study.treatments.treatment import Treatment

TEMPERATURE = 2.0  # of distillation


def loss_of(
    network: nn.Module,
    inputs: Tensor,
    targets: Int[Tensor, "..."],
    teacher: nn.Module | None = None,
) -> Float[Tensor, ""]:
    """Cross entropy, in nats; with a teacher, its mean with what is lost against the teacher.

    That is half of the loss (Hinton et al. 2015). In float32, whatever the precision of networks.
    """
    outputs = network(inputs).flatten(0, -2).float()
    loss = cross_entropy(outputs, targets.flatten())
    if teacher is None:
        return loss
    with torch.no_grad():
        wanted = log_softmax(teacher(inputs).flatten(0, -2).float() / TEMPERATURE, 1)
    own = log_softmax(outputs / TEMPERATURE, 1)
    lost = kl_div(own, wanted, reduction="batchmean", log_target=True)
    return (loss + TEMPERATURE**2 * lost) / 2


class Epoch:
    """The batches of one epoch, in the order that seed and epoch give, or the first of them."""

    def __init__(self, task: Task, seed: int, epoch: int, steps: int) -> None:
        self.task, self.seed, self.epoch, self.steps = task, seed, epoch, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        seed = drawn_seed(self.seed, self.epoch)
        return islice(self.task.batches(torch.Generator().manual_seed(seed)), self.steps)


def drawn_seed(seed: int, number: int) -> int:
    """The seed of one epoch: a resumed run draws as if it had never been interrupted."""
    generator = torch.Generator().manual_seed(seed)
    return int(torch.randint(2**62, (number + 1,), generator=generator)[-1])


def channels_last_of(inputs: Tensor) -> Tensor:
    """Images with the values of a pixel side by side; what is no image as it is."""
    if inputs.ndim != 4:
        return inputs
    return inputs.contiguous(memory_format=torch.channels_last)


def compile_(network: nn.Module, compiled: str) -> None:
    """Has a network compiled at its next call, under its names: "no", "yes", or with "graphs"."""
    if compiled == "no":
        network._compiled_call_impl = None
    else:
        network.compile(mode="reduce-overhead" if compiled == "graphs" else "default")


def normalize_together_(network: nn.Module) -> None:
    """Makes batch normalization that of whole batches, of which each rank has a share.

    Torch's SyncBatchNorm is for GPUs only. Modules stay what they are; `normalize_alone_` ends it.
    """
    for module in network.modules():
        if ranks.count() > 1 and isinstance(module, _BatchNorm):
            vars(module)["forward"] = partial(_normalized, module)


def normalize_alone_(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            vars(module).pop("forward", None)


def _normalized(norm: _BatchNorm, inputs: Float[Tensor, "n c ..."]) -> Tensor:
    if not (norm.training or norm.running_mean is None):
        return type(norm).forward(norm, inputs)
    dims = [0, *range(2, inputs.ndim)]
    values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    own = values.new_tensor([inputs.numel() // inputs.shape[1]])
    sums = ranks.Summed.apply(torch.cat([values.sum(dims), own]))
    shape = (1, -1, *[1] * (inputs.ndim - 2))
    count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
    centred = values - mean.view(shape)
    variance = ranks.Summed.apply(centred.square().sum(dims)) / count
    if norm.training and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            tracked = float(norm.num_batches_tracked)
            part = 1 / tracked if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean, part)
            norm.running_var.lerp_(variance * count / (count - 1), part)
    outputs = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.weight is not None:
        outputs = outputs * norm.weight.view(shape) + norm.bias.view(shape)
    return outputs.to(inputs.dtype)


class Learner(L.LightningModule):
    """A network that learns a task as planned, from a teacher too if there is one.

    With `channels_last` network, teacher and images are laid out in memory so.
    """

    def __init__(
        self, network: nn.Module, plan: Prepared, teacher: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.network, self.task, self.optimization = network, plan.task, plan.optimization
        self.total_steps, self.seed = plan.total_steps, plan.cell.seed
        self.channels_last, self.compiled = plan.cell.channels_last, plan.cell.compiled
        self._losses: list[Tensor] = []  # of the epoch, times the samples of their batch
        self._samples = 0
        # Not a child: its weights belong into no optimizer and no checkpoint.
        self.__dict__["teacher"] = None if teacher is None else teacher.eval()
        for each in (network, teacher) if self.channels_last else ():
            if each is not None:
                each.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def on_train_epoch_start(self) -> None:
        self._losses, self._samples = [], 0
        # For dropout, which is another one on each rank.
        torch.manual_seed(drawn_seed(self.seed, self.current_epoch) + ranks.rank())

    def train_dataloader(self) -> Epoch:
        # Not max_steps: with it Lightning counts the epochs of a resumed run wrongly.
        per_epoch = self.task.steps_per_epoch
        left = self.total_steps - self.current_epoch * per_epoch
        return Epoch(self.task, self.seed, self.current_epoch, min(left, per_epoch))

    def training_step(self, batch: Batch) -> Tensor:
        """The loss, whose mean over ranks is that of the whole batch, of which each has a share."""
        whole, (inputs, targets) = len(batch[0]), map(ranks.share, batch)
        if self.channels_last:
            inputs = channels_last_of(inputs)
        loss = loss_of(self.network, inputs, targets, self.__dict__["teacher"])
        # Not self.log, which takes a fifth of the time of a small network's step.
        if len(inputs):
            self._losses.append(loss.detach() * len(inputs))
            self._samples += len(inputs)
        return loss if ranks.count() == 1 else loss * (ranks.count() * len(inputs) / whole)

    def train_loss(self) -> float:
        """Mean over the samples of the epoch so far."""
        own = float(torch.stack(self._losses).sum()) if self._losses else 0.0
        sums = torch.tensor([own, self._samples], dtype=torch.float64, device=self.device)
        loss, samples = ranks.sum_(sums).tolist()
        return loss / samples

    def configure_optimizers(self) -> types.OptimizerLRSchedulerConfig:
        optimizer = self.optimization.optimizer_of(self.network)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.optimization.rate_at(step, self.total_steps)
        )
        config: types.LRSchedulerConfigType = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": config}


class Treating(L.Callback):
    """Calls a treatment's hooks during training; its state goes into checkpoints.

    A network is treated before its optimizer is made, and before a checkpoint is loaded.
    """

    def __init__(self, treatment: Treatment, *, epochs: float) -> None:
        self.treatment, self.epochs, self._step = treatment, epochs, 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, Learner)
        about = {"epochs": self.epochs, "seed": pl_module.seed}
        self.treatment.start(pl_module.network, pl_module.total_steps, **about)
        normalize_together_(pl_module.network)
        # Buffers are equal on all ranks, so nothing need send them at every step.
        buffers = [name for name, _ in pl_module.named_buffers()]
        DDP._set_params_and_buffers_to_ignore_for_model(pl_module, buffers)
        compile_(pl_module.network, pl_module.compiled)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.treatment.after_backward()

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any, **named: Any) -> None:
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self.treatment.after_step()

    def state_dict(self) -> dict:
        return self.treatment.state_dict()

    def load_state_dict(self, state_dict: dict) -> None:
        self.treatment.load_state_dict(state_dict)  # the network's is loaded before
