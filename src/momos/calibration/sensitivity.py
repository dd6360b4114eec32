"""How sensitive a network's loss is to its weights, tensor by tensor."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from momos.calibration.tracing import undisturbed
from momos.shards import Ranks, unsynchronized, without_replicas

Batch = TypeVar("Batch")


def sensitivities(
    model: nn.Module, batches: Iterable[Batch], loss: Callable[[Batch], Tensor]
) -> dict[str, float]:
    """Mean squared gradient of each trainable parameter: how much an error in it matters.

    To first order, errors of variance σ² in a tensor of n weights raise the loss by n·σ²/2 times
    the curvature, which the mean square of single samples' gradients stands for (the empirical
    Fisher information; LeCun, Denker and Solla 1990 use the exact one). `loss(batch)` runs
    `model`; batches of few samples tell more than large ones, whose gradients cancel. The model
    is evaluated in evaluation mode, and left as it was, gradients included.

    With `DistributedDataParallel` each rank has batches of its own, and the means are over those of
    all ranks, the same on each. Names are those of the wrapped module. A model that is sharded
    must be gathered before.

    Raises:
        ValueError: if there are no batches, or a loss is not one finite number with a gradient.

    Example:
        >>> model = nn.Linear(8, 3)
        >>> batches = [(torch.randn(4, 8), torch.randint(3, (4,))) for _ in range(5)]
        >>> def loss(batch):
        ...     inputs, labels = batch
        ...     return nn.functional.cross_entropy(model(inputs), labels)
        >>> importance = momos.sensitivities(model, batches, loss)
        >>> sorted(importance)
        ['bias', 'weight']
    """

    ranks, inner = Ranks.of(model), without_replicas(model)
    names = [name for name, own in inner.named_parameters() if own.requires_grad]
    rows: list[list[float]] = []
    with ranks.together():
        for gradients in _gradients(model, batches, loss):
            rows.append([_mean_square(gradients.get(name)) for name in names])
    own = torch.tensor(rows, dtype=torch.float64, device="cpu").view(-1, len(names))
    of_all = torch.cat(ranks.gather(own))
    _check_count(len(of_all))
    # Rounded once, so it does not matter which rank had which batch.
    sums = [math.fsum(column) for column in of_all.T.tolist()]
    return {name: total / len(of_all) for name, total in zip(names, sums, strict=True)}


def weight_sensitivities(
    model: nn.Module, batches: Iterable[Batch], loss: Callable[[Batch], Tensor]
) -> dict[str, Tensor]:
    """Squared gradient of each weight, on average over `batches`, as `sensitivities` takes them."""
    ranks, inner, count = Ranks.of(model), without_replicas(model), 0
    sums = {
        name: torch.zeros_like(own, dtype=torch.float32)
        for name, own in inner.named_parameters()
        if own.requires_grad
    }
    with ranks.together():
        for gradients in _gradients(model, batches, loss):
            for name, gradient in gradients.items():
                sums[name] += gradient.float().square()
            count += 1
    count = int(ranks.sum(torch.tensor(count, device="cpu")))
    _check_count(count)
    sums = {name: ranks.sum(total) for name, total in sums.items()}
    return {name: total / count for name, total in sums.items()}


def _gradients(
    model: nn.Module, batches: Iterable[Batch], loss: Callable[[Batch], Tensor]
) -> Iterator[dict[str, Tensor]]:
    """The gradient of each trainable parameter that has one, for each batch."""
    inner = without_replicas(model)
    parameters = {n: own for n, own in inner.named_parameters() if own.requires_grad}
    with unsynchronized(model), undisturbed(inner), torch.enable_grad():
        for batch in batches:
            value = loss(batch)
            _check_loss(value)
            found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            pairs = zip(parameters, found, strict=True)
            yield {name: own.to_dense() for name, own in pairs if own is not None}


def _mean_square(gradient: Tensor | None) -> float:
    if gradient is None:
        return 0.0
    return float(gradient.double().square().sum()) / max(1, gradient.numel())


def _check_count(count: int) -> None:
    if not count:
        raise ValueError("there must be at least one batch, got none")


def _check_loss(value: object) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise ValueError(
            f"loss must return one number that depends on the parameters, got {_shown(value)}"
        )
    if not bool(torch.isfinite(value)):
        raise ValueError(f"the loss must be finite, got {float(value.detach())}")


def _shown(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    gradient = "with" if value.requires_grad else "without"
    return f"a tensor of shape {tuple(value.shape)} {gradient} a gradient"
