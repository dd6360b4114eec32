"""The end of training: what a treatment leaves, in place or of a copy."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from momos.study.baselines import Treatment


def finish_(network: nn.Module, treatment: Treatment) -> None:
    """Makes a treated network the ordinary one that the file will hold."""
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    treatment.finish()


def finished_copy(network: nn.Module, treatment: Treatment) -> nn.Module:
    """What `finish_` would make of the network now, bit for bit; both arguments stay as they are."""
    # Weights that hooks compute, as those of pruning do, belong to a graph and cannot be copied.
    computed = {
        id(value): value.detach().clone()
        for module in network.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor)
    }
    network, treatment = deepcopy((network, treatment), computed)
    for module in network.modules():
        if is_parametrized(module):  # a copy shares its class, which finishing changes
            kind = type(module)
            module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))  # type: ignore[assignment]
    finish_(network, treatment)
    return network
