"""One network trained for one task under one treatment, in a plain loop.

Runs of one seed share their start and the order of their batches, whatever the treatment.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.nn.utils import clip_grad_norm_

from momos.study.baselines import Treatment
from momos.study.optimization import Optimization
from momos.study.sizes import dense_bytes
from momos.study.tasks import Batch, Task

TEMPERATURE = 2.0  # of distillation


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished network, how well it does, and the size of its file."""

    network: nn.Module
    metric: float
    file_bytes: int
    dense_bytes: int
    seconds: float

    @property
    def factor(self) -> float:
        """How many times smaller the file is than all parameters in 32 bits."""
        return self.dense_bytes / self.file_bytes


def train(
    task: Task,
    treatment: Treatment,
    seed: int,
    *,
    epochs: float,
    optimization: Optimization | None = None,
    start: nn.Module | None = None,
    teacher: nn.Module | None = None,
    folder: Path | None = None,
) -> Outcome:
    """Trains the network that the seed gives, or one with the weights of `start`.

    With a teacher, half of the loss is how far outputs are from the teacher's (Hinton et al.
    2015). The file is kept if a folder is given.
    """
    begun = time.perf_counter()
    optimization = task.optimization if optimization is None else optimization
    network = task.network(seed)
    if start is not None:
        network.load_state_dict(start.state_dict())
    parameters = dense_bytes(network)
    total_steps = max(1, round(epochs * task.steps_per_epoch))
    treatment.start(network, total_steps, epochs=epochs, seed=seed)
    _fit(task, treatment, network, optimization, total_steps, seed, teacher)
    treatment.finish()
    metric = task.evaluate(network)
    with TemporaryDirectory() as temporary:
        file_bytes = treatment.file_bytes(network, folder or Path(temporary))
    seconds = time.perf_counter() - begun
    return Outcome(network, metric, file_bytes, parameters, seconds)


def _fit(
    task: Task,
    treatment: Treatment,
    network: nn.Module,
    optimization: Optimization,
    total_steps: int,
    seed: int,
    teacher: nn.Module | None,
) -> None:
    optimizer = optimization.optimizer_of(network)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: optimization.rate_at(step, total_steps)
    )
    order = torch.Generator().manual_seed(seed)
    if teacher is not None:
        teacher.eval()
    network.train()
    for inputs, targets in islice(_endless(task, order), total_steps):
        optimizer.zero_grad()
        loss_of(network, inputs, targets, teacher).backward()
        if optimization.clip is not None:
            clip_grad_norm_(network.parameters(), optimization.clip)
        optimizer.step()
        schedule.step()
        treatment.after_step()


def _endless(task: Task, order: torch.Generator) -> Iterator[Batch]:
    """The batches of epoch after epoch."""
    while True:
        yield from task.batches(order)


def loss_of(
    network: nn.Module, inputs: Tensor, targets: Tensor, teacher: nn.Module | None = None
) -> Tensor:
    """Cross entropy; with a teacher, its mean with what is lost against the teacher.

    In float32, whatever the precision of the networks.
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
