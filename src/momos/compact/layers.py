"""Layers whose weights are decoded when they are read.

A layer keeps its class's own `forward`, attributes and identity: its class is replaced by a subclass
in which `weight` (or any other name) is a property. Linear layers and embeddings also compute from
packed indices directly.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from momos.compact.packed_weight import PackedWeight

SUFFIX = "_mosaic"  # of the submodule that holds the packed indices of a weight
ORDER = "_momos_order"  # the attribute of a module that keeps the order of its parameters
INDEXED = (nn.ParameterList, nn.ParameterDict)


def why_not(module: nn.Module, name: str) -> str:
    """Why the parameter `name` of `module` must stay dense, if it must."""
    if isinstance(module, INDEXED):
        return f"in a {type(module).__name__}, which reads its own parameters"
    if isinstance(module, torch.jit.ScriptModule):
        return "in a scripted module"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
        return "of an embedding whose max_norm changes it"
    if hasattr(type(module), name):
        return f"{type(module).__name__} defines {name!r} itself"
    if hasattr(module, name + SUFFIX):
        return f"{type(module).__name__} has an attribute {name + SUFFIX!r} already"
    return ""


def install_(module: nn.Module, name: str, packed: PackedWeight, *, owner: bool) -> None:
    """Replaces the parameter `name` of `module` by `packed`, registered there if it is the owner."""
    base, names = type(module), (name,)
    if issubclass(base, CompactLayer):
        base, names = base.base, (*base.names, name)
    module.__dict__.setdefault(ORDER, list(module._parameters))
    del module._parameters[name]
    if owner:
        module._modules[name + SUFFIX] = packed
    else:
        module.__dict__[name + SUFFIX] = packed
    module.__class__ = compact_class(base, names)
    if isinstance(module, nn.RNNBase):
        module.__dict__["_flat_weights"] = []


def uninstall_(layer: "CompactLayer", dense: dict[PackedWeight, nn.Parameter]) -> None:
    """Gives a compact layer its class and its parameters back."""
    module: nn.Module = layer
    kind = type(layer)
    found = {}
    for name in kind.names:
        found[name] = dense[layer.packed(name)]
        module._modules.pop(name + SUFFIX, None)
        module.__dict__.pop(name + SUFFIX, None)
    held = module._parameters | found
    order = module.__dict__.pop(ORDER)
    names = [*(n for n in order if n in held), *(n for n in held if n not in order)]
    module.__class__ = kind.base  # pyright: ignore[reportAttributeAccessIssue]
    module._parameters.clear()
    module._parameters.update({name: held[name] for name in names})
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


class CompactLayer(nn.Module):
    """What all compact layers are, beside their own class."""

    base: type[nn.Module]
    names: tuple[str, ...]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        kind = type(self)
        state = {k: v for k, v in self.__dict__.items() if k != "_flat_weight_refs"}
        return _empty, (kind.base, kind.names), state

    def packed(self, name: str) -> PackedWeight:
        """The packed indices of the parameter `name`."""
        return getattr(self, name + SUFFIX)


class _Linear(CompactLayer):
    weight_mosaic: PackedWeight
    bias: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        return self.weight_mosaic.linear(input, self.bias)


class _Embedding(CompactLayer):
    weight_mosaic: PackedWeight

    def forward(self, input: Tensor) -> Tensor:
        return self.weight_mosaic.rows(input)


class _Recurrent(CompactLayer):
    """A recurrent layer, whose cached list of weights is made anew whenever it is read."""

    _flat_weights_names: list[str]

    @property
    def _flat_weights(self) -> list[Tensor | None]:
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, weights: list[Tensor]) -> None:
        """Keeps nothing."""

    def _init_flat_weights(self) -> None:
        """Keeps nothing."""

    def _update_flat_weights(self) -> None:
        """Keeps nothing."""

    def flatten_parameters(self) -> None:
        """Does nothing: the weights are decoded apart from each other."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)


@cache
def compact_class(base: type[nn.Module], names: tuple[str, ...]) -> type[CompactLayer]:
    """The subclass of `base` in which the parameters `names` are decoded."""
    kind: type[CompactLayer] = CompactLayer
    if issubclass(base, nn.RNNBase):
        kind = _Recurrent
    elif names == ("weight",) and base.forward is nn.Linear.forward:
        kind = _Linear
    elif names == ("weight",) and base.forward is nn.Embedding.forward:
        kind = _Embedding
    own = {name: property(_reader(name)) for name in names}
    about = {"base": base, "names": names, "__module__": __name__}
    made: Any = type(f"Compact{base.__name__}", (kind, base), about | own)
    return made


def _reader(name: str) -> Any:
    key = name + SUFFIX

    def read(self: nn.Module) -> Tensor:
        return getattr(self, key).dense()

    return read


def _empty(base: type[nn.Module], names: tuple[str, ...]) -> CompactLayer:
    kind = compact_class(base, names)
    return kind.__new__(kind)
