"""How well a network does on samples in memory, a piece at a time."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from momos.study.archives import Images

CONTEXT = 128  # characters that the transformer sees
PIECE = 500  # samples evaluated at once


def accuracy(
    network: nn.Module, images: Images, prepared: Callable[[Tensor], Tensor]
) -> float:
    """Share of images whose class gets the highest output, from 0 to 1."""
    right = 0
    with torch.inference_mode(), evaluating(network):
        for start in range(0, len(images), PIECE):
            outputs = network(prepared(images.pixels[start : start + PIECE]))
            right += int((outputs.argmax(1) == images.labels[start : start + PIECE]).sum())
    return right / len(images)


def bits_per_character(network: nn.Module, characters: Int[Tensor, " n"]) -> float:
    """Mean of −log2 of what the network gives each character, in windows that do not overlap."""
    count = (len(characters) - 1) // CONTEXT
    inputs = characters[: count * CONTEXT].view(count, CONTEXT)
    targets = characters[1 : count * CONTEXT + 1].view(count, CONTEXT)
    nats = 0.0
    with torch.inference_mode(), evaluating(network):
        for rows in torch.arange(count).split(PIECE // 4):
            outputs = network(inputs[rows]).flatten(0, 1)
            loss = cross_entropy(outputs, targets[rows].flatten(), reduction="sum")
            nats += float(loss)
    return nats / math.log(2) / (count * CONTEXT)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A network in evaluation mode for a while."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
