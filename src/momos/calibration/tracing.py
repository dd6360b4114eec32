"""Runs a model to observe it: without side effects, or recording which operations read a tensor.

`undisturbed` undoes whatever a forward pass changes in buffers, modes or the random state, even if
it raises. Other state (a counter in plain Python) is not restored.

`Trace` sees every operation that reads a watched tensor, whoever calls it: either `torch`
dispatches it, or it is a method that hands out memory. It misses only compiled extensions that get
a raw pointer in some other way.
"""

import gc
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from momos.parameters import check_whole_tensors

# Methods that read no values. Attributes (`__get__`) do so too, or are dispatched.
METADATA = {
    "__get__", "__len__", "dim", "element_size", "get_device", "is_contiguous",
    "is_floating_point", "ndimension", "nelement", "numel", "size", "stride",
}  # fmt: skip


class Trace:
    """One run of a model: what its layers returned, and which modules used it.

    `layers` are the modules whose outputs are watched, `readers` those that may use them.
    Parameters and buffers of both are watched too. After `run`:

    - `calls`: how often each of them was called, by name;
    - `sources`: the layer whose output, the very tensor, each reader was given last;
    - `shapes`: the shape of each layer's last output;
    - `leaking`: layers whose output was used by anything but the readers that received it,
      was returned by the model, or is still referenced after the run;
    - `exposed`: modules with a tensor that was used outside their own calls.
    """

    def __init__(self, layers: dict[str, nn.Module], readers: dict[str, nn.Module]) -> None:
        self.layers = layers
        self.readers = readers
        self.calls: Counter[str] = Counter()
        self.sources: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.leaking: set[str] = set()
        self.exposed: set[str] = set()
        self._running: list[str] = []
        self._outputs: dict[int, tuple[ref[Tensor], str]] = {}
        self._owners = {
            id(tensor): name
            for name, module in (layers | readers).items()
            for tensor in (*module.parameters(False), *module.buffers(False))
        }

    def run(self, model: nn.Module, *inputs: Any, **options: Any) -> None:
        """Runs the model once, and removes all hooks afterwards."""
        with ExitStack() as stack:
            for name, module in (self.layers | self.readers).items():
                for handle in self._hooked(name, module):
                    stack.callback(handle.remove)
            stack.enter_context(_Functions(self))
            stack.enter_context(_Operations(self))
            result = model(*inputs, **options)
        gc.collect()  # what nothing but a cycle holds is not held
        for output, name in self._outputs.values():
            if output() is not None:
                self.leaking.add(name)
        del result

    def used(self, tensor: Tensor) -> None:
        """Records one use of any tensor."""
        owner = self._owners.get(id(tensor))
        if owner is not None and owner not in self._running:
            self.exposed.add(owner)
        layer = self._producer(tensor)
        if layer is not None and not any(
            self.sources.get(name) == layer for name in self._running
        ):
            self.leaking.add(layer)

    def _hooked(self, name: str, module: nn.Module) -> list:
        def starts(_: nn.Module, args: tuple) -> None:
            self.calls[name] += 1
            if name in self.readers:
                self.sources.pop(name, None)
                layer = self._producer(args[0]) if args else None
                if layer is not None:
                    self.sources[name] = layer
            self._running.append(name)

        def ends(_: nn.Module, args: tuple, output: object) -> None:
            self._running.pop()
            if name in self.layers and isinstance(output, Tensor):
                self.shapes[name] = tuple(output.shape)
                self._outputs[id(output)] = ref(output), name

        return [
            module.register_forward_pre_hook(starts),
            module.register_forward_hook(ends),
        ]

    def _producer(self, tensor: object) -> str | None:
        output, name = self._outputs.get(id(tensor), (None, None))
        return name if output is not None and output() is tensor else None


class _Operations(TorchDispatchMode):
    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in _tensors((args, kwargs)):
            self.trace.used(tensor)
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Sees what is not dispatched: `tolist`, `data_ptr`, `untyped_storage` and similar methods."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") not in METADATA:
            for tensor in _tensors((args, kwargs)):
                self.trace.used(tensor)
        return func(*args, **(kwargs or {}))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _tensors(part)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Context in which every module of `model` is in evaluation mode, without gradients.

    The flags are set one by one, so that an overridden `train` or `eval` is not called.

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
