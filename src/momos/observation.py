"""Running a model to see what its modules are given, and leaving it as it was.

Whatever the model's forward changes in its buffers, its mode or the random state is undone,
also where the run raises. State that is neither (a counter in plain Python) is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from momos.parameters import check_whole_tensors


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """In it, every module of `model` is in evaluation mode and nothing records gradients.

    The flags are set one by one, so that a `train` or `eval` of the model's own is not called.

    Raises:
        ValueError: if a parameter or buffer is sharded, not initialised or on the meta device.
    """
    check_whole_tensors(model)
    held = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in held:
        if is_lazy(tensor) or tensor.is_meta:
            kind = "an uninitialised" if is_lazy(tensor) else "a meta"
            raise ValueError(f"{name!r} must hold values to be run, got {kind} tensor")
    gpus = sorted({tensor.device.index for _, tensor in held if tensor.is_cuda})
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    before = {
        tensor: tensor.clone()
        for _, own in buffers
        for tensor in own.values()
        if tensor is not None
    }
    with torch.no_grad(), torch.random.fork_rng(gpus):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training
            for module, own in buffers:
                module._buffers.clear()
                module._buffers.update(own)
            for tensor, values in before.items():
                if not torch.equal(tensor, values):
                    tensor.copy_(values)
