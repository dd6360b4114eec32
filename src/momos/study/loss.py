"""What networks are trained to lower."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

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
