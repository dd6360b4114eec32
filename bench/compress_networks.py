"""The networks that compress.py compares methods on, with inputs and what they decide for them.

CIFAR ResNets are published weights in MOMOS_DATA; two MLPs are trained here, once, with fixed
seeds; networks for speech are in compress_speech.py.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from compress_methods import State
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from momos.study.tasks.architectures import ResNet, mlp
from momos.study.tasks.archives import Images, cifar10, digits, fashion_mnist

DEPTHS = (20, 32, 44, 56)  # of the ResNets; weights of some may not be in MOMOS_DATA
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the ResNets' training


@dataclass(frozen=True)
class Quality:
    """What a changed network still does, against the dense one and against labels."""

    accuracy: float | None  # percent, where there are labels
    changed: float  # percent of decisions
    divergence: float  # Kullback–Leibler, of the dense network's outputs to these, in nats


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to compress, with fixed inputs.

    `run` gives scores of classes, one row for each input; the decision is the largest. Classes
    that are no further than `slack` from each other count as one decision.
    """

    name: str
    state: State
    inputs: Tensor
    run: Callable[[State, Tensor], Tensor]
    labels: Tensor | None = None
    slack: int = 0

    @property
    def dense_bytes(self) -> int:
        return sum(v.nbytes for v in self.state.values() if v.is_floating_point())

    @cached_property
    def key(self) -> str:
        """A digest of weights, inputs and labels."""
        found = hashlib.sha256()
        for tensor in (*self.state.values(), self.inputs, self.labels):
            if tensor is not None:
                found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()[:12]

    def outputs(self, state: State) -> Tensor:
        with torch.inference_mode():
            return self.run(self.state | state, self.inputs).double()

    def quality(self, state: State, dense: Tensor) -> Quality:
        """Of the network with weights `state`, against the `dense` network's outputs."""
        found = self.outputs(state)
        chosen, before = found.argmax(1), dense.argmax(1)
        changed = ((chosen - before).abs() > self.slack).double().mean()
        logs = found.log_softmax(1), dense.log_softmax(1)
        divergence = kl_div(*logs, log_target=True, reduction="batchmean")
        accuracy = None
        if self.labels is not None:
            accuracy = 100 * float((chosen == self.labels).double().mean())
        return Quality(accuracy, 100 * float(changed), float(divergence))


def resnet_subjects(num_images: int) -> Iterator[tuple[str, Callable[[], Subject]]]:
    """Those whose weights are in MOMOS_DATA, with the first images of CIFAR-10's test set."""
    weights = Path(os.environ.get("MOMOS_DATA", "")) / "weights"
    for depth in DEPTHS:
        path = weights / f"resnet{depth}_cifar10.safetensors"
        if os.environ.get("MOMOS_DATA") and path.exists():
            yield f"resnet{depth}", partial(resnet, depth, path, num_images)


def resnet(depth: int, path: Path, num_images: int) -> Subject:
    network = ResNet(depth)
    network.load_state_dict(load_file(path), strict=False)
    images = cifar10()[1]
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
    pixels = (images.pixels[:num_images].float() / 255 - mean) / deviation
    # a third faster
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return _classifier(f"ResNet-{depth}", network, pixels, images.labels[:num_images])


def digits_mlp(folder: Path) -> Subject:
    train, test = digits()
    network = mlp((64, 128, 64, 10))
    _trained(network, folder / "digits.safetensors", train.pixels, train.labels, epochs=60)
    return _classifier("digits MLP", network, test.pixels, test.labels)


def fashion_mlp(folder: Path) -> Subject:
    train, test = fashion_mnist()
    network = mlp((784, 256, 256, 10))
    path = folder / "fashion.safetensors"
    _trained(network, path, _centred(train), train.labels, epochs=6)
    return _classifier("Fashion-MNIST MLP", network, _centred(test), test.labels)


def _centred(images: Images) -> Tensor:
    return images.pixels.flatten(1).float() / 255 - 0.286


def _trained(
    network: nn.Module, path: Path, inputs: Tensor, labels: Tensor, *, epochs: int
) -> None:
    """Loads the weights at `path`, or trains from a fixed seed and saves them there."""
    if path.exists():
        network.load_state_dict(load_file(path))
        return
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():  # as nn.Linear starts
            fan_in = parameter.shape[1] if parameter.ndim > 1 else parameter.shape[0]
            parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = epochs * -(-len(inputs) // 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=generator).split(128):
            optimizer.zero_grad()
            cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), path)


def _classifier(name: str, network: nn.Module, inputs: Tensor, labels: Tensor) -> Subject:
    form = torch.contiguous_format
    state = {k: v.clone(memory_format=form) for k, v in network.state_dict().items()}
    return Subject(name, state, inputs, in_batches(network.eval()), labels)


def in_batches(network: nn.Module, size: int = 250) -> Callable[[State, Tensor], Tensor]:
    """Runs `network` with given weights, so many inputs at a time."""

    def run(state: State, inputs: Tensor) -> Tensor:
        network.load_state_dict(state)
        return torch.cat([network(part) for part in inputs.split(size)])

    return run
