"""A small network with a convolution, a normalization and a bias, treated for a few steps."""

import torch
from torch import nn

from momos.study.tasks.archives import Images
from momos.study.tasks.task import Optimization, Task, image_task, seeded
from momos.study.training.learner import loss_of
from momos.study.treatments.treatment import Treatment


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    )


def points() -> Task:
    """Four classes of small images, six batches an epoch."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (60,), generator=generator)
    pixels = torch.randn(60, 1, 6, 6, generator=generator) + labels[:, None, None, None]
    data = Images(pixels, labels)
    optimization = Optimization(learning_rate=1e-2, batch_size=10, epochs=2)
    return image_task(
        "points", data, data, seeded(small), optimization, prepared=lambda pixels: pixels
    )


def stepped(task: Task, treatment: Treatment, network: nn.Module, steps: int) -> None:
    """Some steps of training."""
    optimizer = task.optimization.optimizer_of(network)
    batches = list(task.batches(torch.Generator().manual_seed(0)))
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(network, *batches[step % len(batches)]).backward()
        treatment.after_backward()
        optimizer.step()
        treatment.after_step()


def treated(
    task: Task, treatment: Treatment, *, epochs: float = 1, seed: int = 0
) -> nn.Module:
    """The network of the seed, from its start to its end under a treatment."""
    network = task.network(seed)
    steps = round(epochs * task.steps_per_epoch)
    treatment.start(network, steps, epochs=epochs, seed=seed)
    stepped(task, treatment, network, steps)
    treatment.finish()
    return network
