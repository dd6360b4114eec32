"""How sensitive a network's loss is to its weights, tensor by tensor."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from momos.calibration.tracing import undisturbed
from momos.shards import Ranks, unsynchronized, without_replicas

Batch = TypeVar("Batch")
Term = TypeVar("Term", float, Tensor)


def sensitivities(
    model: nn.Module, batches: Iterable[Batch], loss: Callable[[Batch], Tensor]
) -> dict[str, float]:
    """Mean squared gradient of each trainable parameter: how much an error in it matters.

    To first order, errors of variance σ² in a tensor of n weights raise the loss by n·σ²/2 times
    the curvature, which the mean square of single samples' gradients stands for (the empirical
    Fisher information; LeCun, Denker and Solla 1990 use the exact one). `loss(batch)` runs
    `model`; batches of few samples tell more than large ones, whose gradients cancel. The model
    is evaluated in evaluation mode, and left as it was, gradients included. Of replicas
    (DistributedDataParallel) each rank has its own batches, and all get the mean over those of
    all ranks; a model that is sharded must be gathered before.

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

    def mean_square(gradient: Tensor) -> float:
        return float(gradient.double().square().sum()) / max(1, gradient.numel())

    return _means(model, batches, loss, mean_square)


def weight_sensitivities(
    model: nn.Module, batches: Iterable[Batch], loss: Callable[[Batch], Tensor]
) -> dict[str, Tensor]:
    """Squared gradient of each weight, on average over `batches`, as `sensitivities` takes them."""

    def square(gradient: Tensor) -> Tensor:
        return gradient.float().square()

    return _means(model, batches, loss, square)


def _means(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Callable[[Batch], Tensor],
    term: Callable[[Tensor], Term],
) -> dict[str, Term]:
    """The mean over batches of `term` of the gradient of each trainable parameter."""
    inner, ranks = without_replicas(model), Ranks.of(model)
    parameters = {
        name: parameter
        for name, parameter in inner.named_parameters()
        if parameter.requires_grad
    }
    count = 0
    with ranks.together(), undisturbed(model), unsynchronized(model), torch.enable_grad():
        sums = {name: term(torch.zeros_like(own)) for name, own in parameters.items()}
        for batch in batches:
            value = loss(batch)
            if (
                not isinstance(value, Tensor)
                or value.numel() != 1
                or not value.requires_grad
            ):
                raise ValueError(
                    "loss must return one number that depends on the parameters, got "
                    f"{_shown(value)}"
                )
            if not bool(torch.isfinite(value)):
                raise ValueError(f"the loss must be finite, got {float(value.detach())}")
            gradients = torch.autograd.grad(
                value, list(parameters.values()), allow_unused=True
            )
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] += term(gradient.to_dense())
            count += 1
    if ranks.groups:
        count = int(ranks.sum(torch.tensor(count, device="cpu")))
        sums = {name: _of_all(total, ranks) for name, total in sums.items()}
    if not count:
        raise ValueError("there must be at least one batch, got none")
    return {name: total / count for name, total in sums.items()}


def _of_all(total: Term, ranks: Ranks) -> Term:
    """The sum of all ranks' terms."""
    if isinstance(total, Tensor):
        return ranks.sum(total)
    return float(ranks.sum(torch.tensor(total, dtype=torch.float64, device="cpu")))


def _shown(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    gradient = "with" if value.requires_grad else "without"
    return f"a tensor of shape {tuple(value.shape)} {gradient} a gradient"
