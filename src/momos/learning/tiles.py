"""Parametrizations of weights whose motifs are learned, installed into modules and removed again."""

from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from momos.blocks import Layout, Placement, memory
from momos.learning.bank import NAME, Bank
from momos.learning.latents import Latent
from momos.learning.sharding import like, pack, unpack
from momos.learning.states import refresh_
from momos.shards import is_fully_sharded, is_sharded
from momos.stored import spread
from momos.vq.gather import straight_through

MODULES = "parametrizations"  # the child in which torch keeps them
ORDER = "_momos_order"  # the attribute of a module that keeps the order of its parameters
FEW = 64  # motifs; with more whole numbers than that none is clipped
Slot = tuple[nn.Module, str]  # a module and the name of a parameter in it


class Tile(nn.Module):
    """One parameter as part of the bank; the same for every module that shares the parameter.

    The bank is not registered here: it belongs to the root of the network alone.
    """

    bank: Bank
    holder: ParametrizationList
    names: tuple[str, ...]  # all that the parameter has in the network

    def __init__(self, bank: Bank, place: Placement) -> None:
        super().__init__()
        self.place = place
        self.names = (place.name,)
        self.__dict__["bank"] = bank
        self.__dict__["holder"] = None

    def installed(self, holder: ParametrizationList) -> None:
        """Records the list of parametrizations that the tile is in (one of them, if tied)."""
        self.__dict__["holder"] = holder

    @property
    def sharded(self) -> bool:
        """Whether each rank has only a part of the latent weight."""
        return False

    def mark_(self) -> None:
        """Makes the latent weight one that `fully_shard` shards with its indices."""

    def update_(self, stored: Tensor) -> None:
        """Updates the copy of the weight from the `stored` motifs, if the tile keeps one."""

    def extra_repr(self) -> str:
        return repr(self.place.name)


class MotifTile(Tile):
    """The weight is motifs[indices]: the gradient of a motif is the sum over its blocks."""

    def forward(self) -> Tensor:
        if not torch.compiler.is_compiling():
            refresh_(self.bank)
        return self.bank.weight(self.place)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Keeps nothing of the weight: the bank has everything."""
        return ()


class WeightTile(Tile):
    """A latent weight is trained; the forward pass sees the mosaic (Bengio et al. 2013).

    `value` is the mosaic of the latent weight, recomputed only by `update_`. Where the latent
    weight is sharded there is none: the parameter that the forward pass sees is the mosaic, which
    `received` makes of what ranks have `sent`.
    """

    value: Tensor

    def __init__(self, bank: Bank, place: Placement) -> None:
        super().__init__(bank, place)
        self.register_buffer("value", bank.weight(place).detach(), persistent=False)
        self._sharded: list[nn.Parameter] = []

    @property
    def latent(self) -> nn.Parameter:
        """The weight that is trained."""
        if self.sharded:
            return self._sharded[0]
        return self.holder.original  # type: ignore[return-value]

    @property
    def sharded(self) -> bool:
        original = self.holder.original
        if is_sharded(
            original
        ):  # else fully_shard may have put a whole one there, for a while
            self._sharded[:] = [original]  # type: ignore[list-item]
        return bool(self._sharded)

    @property
    def number(self) -> int:
        """Which of the parameters of the bank it is."""
        return self.bank.layout.number(self.place)

    def mark_(self) -> None:
        original = self.holder.original
        if type(original) is nn.Parameter:
            original.__class__ = Latent

    def shard_(self) -> None:
        """Drops the copy of the weight."""
        self.value = self.value.new_empty(0)

    @torch.no_grad()
    def sent(self, held: Tensor, size: torch.Size, mesh: Any, dtype: torch.dtype | None):
        """What this rank sends for a forward pass, from the latent weights that it has `held`."""
        shards, ranks = self.bank.shards, mesh.size()
        assert shards is not None
        padded = (-(-size[0] // ranks), *size[1:])
        if not self.bank.learning:
            whole = held.new_zeros(padded, dtype=dtype)
            whole[: len(held)] = held
            return whole
        indices = shards.sent(self.number, self.bank.indices)
        # FSDP asks for the shape of the shard where the last one is padded.
        even = (max(shards.counts[self.number]),)
        shape = padded if size[0] % ranks else even
        return pack(indices, len(self.bank.motifs), shape).to(held.device)

    @torch.no_grad()
    def received(
        self, gathered: Tensor, dtype: torch.dtype, out: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """The weight that a forward pass sees, from what all ranks have sent; or writes it."""
        shards, place = self.bank.shards, self.place
        assert shards is not None
        if not self.bank.learning:  # FSDP has the memory of what was gathered
            return None if out is not None else (gathered, ())
        indices = unpack(gathered, shards.counts[self.number])
        value = self.bank.values(place, indices, 0, place.num_weights).view(place.shape)
        if (
            out is None
        ):  # FSDP frees the memory, which numpy, by which values are made, forbids
            value = value.to(dtype, copy=True)
            return value, (value,)
        with _unsafe_preserve_version_counter(out):
            out.copy_(value)
        return None

    @torch.no_grad()
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WeightTile":
        super()._apply(fn, recurse)
        # Undoes the rounding of a part that was converted to another dtype and back.
        place, motifs = self.place, self.bank.motifs
        if (self.value.dtype, self.value.device) == (place.dtype, motifs.device):
            self.update_(self.bank.stored())
        return self

    @torch.no_grad()
    def update_(self, stored: Tensor) -> None:
        """Recomputes the weight from the `stored` motifs."""
        if self._sharded:
            return
        self.bank.write_(self.value, self.place, stored)

    def forward(self, latent: Tensor) -> Tensor:
        refresh_(self.bank)
        if self._sharded:
            return self._seen(latent)
        if not self.bank.learning:
            if self.bank.whole and self.bank.wrapper() is not None:
                return _Dense.apply(latent, self.bank.stretch)  # type: ignore[return-value]
            return latent
        if self.bank.whole:
            limit = None if len(self.bank.motifs) >= FEW else self._limit()
            growth = self.bank.growth(self.place)
            return _Scaled.apply(latent, growth, self.value, limit)
        return straight_through(latent, self.value)

    def _seen(self, latent: Tensor) -> Tensor:
        """What a forward pass sees, which FSDP has gathered; outside of one, a sharded mosaic."""
        if not is_sharded(latent) or not self.bank.learning:
            return latent
        return self.sharded_value()

    @torch.no_grad()
    def sharded_value(self) -> Tensor:
        """The mosaic as a DTensor, as the latent weight is."""
        shards = self.bank.shards
        assert shards is not None
        return like(self.latent, shards.values(self.bank, self.number))

    def _limit(self) -> Tensor:
        """Magnitudes beyond which a latent weight is clipped, for all weights or each, flat."""
        scale = self.bank.scales[slice(*self.bank.span(self.place))]
        scale = spread(scale, self.place, 0, self.place.num_weights)
        return (len(self.bank.motifs) // 2 + 0.5) * scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class _Scaled(torch.autograd.Function):
    """`value`, whose gradient goes straight through to the latent weight, and on to the scale.

    A scale that grows moves the value by the rounding error, and by the whole value if it is
    clipped (learned step size quantization, Esser et al. 2020).
    """

    @staticmethod
    def forward(
        latent: Tensor, growth: Tensor, value: Tensor, limit: Tensor | None
    ) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        latent, growth, value, limit = inputs
        ctx.single = len(growth) == 1
        ctx.save_for_backward(latent, value, limit)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        latent, value, limit = ctx.saved_tensors
        moved = (value - latent).view(-1)
        if limit is not None:
            clipped = latent.reshape(-1).abs() > limit
            moved = torch.where(clipped, value.reshape(-1), moved)
        flat = gradient.reshape(-1).to(moved.dtype)
        own = torch.dot(flat, moved)[None] if ctx.single else flat * moved
        return gradient, own.float(), None, None


class _Dense(torch.autograd.Function):
    """`latent`, and a gradient of 0 for scales that it does not use yet.

    DistributedDataParallel waits for the gradients of all parameters.
    """

    @staticmethod
    def forward(latent: Tensor, stretch: Tensor) -> Tensor:
        return latent.view_as(latent)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor]:
        return gradients[0], torch.zeros_like(ctx.saved_tensors[0])


def slots_of(model: nn.Module, layout: Layout) -> dict[str, list[Slot]]:
    """Every place where each parameter of the layout is registered."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = {memory(parameters[place.name]): place.name for place in layout.placements}
    slots: dict[str, list[Slot]] = {place.name: [] for place in layout.placements}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and memory(parameter) in names:
                slots[names[memory(parameter)]].append((module, name))
    return slots


def _names_of(model: nn.Module, layout: Layout) -> dict[str, tuple[str, ...]]:
    """Every name of each parameter of the layout."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names: dict[object, list[str]] = {}
    for name, parameter in parameters.items():
        names.setdefault(memory(parameter), []).append(name)
    return {
        place.name: tuple(names[memory(parameters[place.name])])
        for place in layout.placements
    }


def install(model: nn.Module, bank: Bank, slots: dict[str, list[Slot]]) -> None:
    """Puts tiles of `bank` into all slots, or into none if interrupted."""
    kind = MotifTile if bank.learn == "motifs" else WeightTile
    held = [
        (module, name, module._parameters[name])
        for places in slots.values()
        for module, name in places
    ]
    names = _names_of(model, bank.layout)
    orders = [(module, tuple(module._parameters)) for module, _, _ in held]

    def take_back() -> None:
        model._modules.pop(NAME, None)
        for module, order in orders:
            module.__dict__[ORDER] = order
        for module, name, parameter in held:
            restore(module, name, parameter)

    with ExitStack() as undo:
        undo.callback(take_back)
        for place in bank.layout.placements:
            tile = kind(bank, place)
            tile.names = names[place.name]
            bank.tiles.append(tile)
            for module, name in slots[place.name]:
                module.__dict__.setdefault(ORDER, tuple(module._parameters))
                register_parametrization(module, name, tile)
                if isinstance(module, nn.RNNBase):
                    type(module).__deepcopy__ = _copied  # type: ignore[attr-defined]
                tile.installed(module.parametrizations[name])  # type: ignore[index]
                tile.mark_()
        model.add_module(NAME, bank)
        bank.__dict__["root"] = ref(model)
        undo.pop_all()


def _copied(module: nn.RNNBase, memo: dict[int, Any]) -> nn.RNNBase:
    """A deep copy of a recurrent module, without its list of weights.

    While it is parametrized, these are results of the last forward pass, which torch does not copy.
    The next forward pass rebuilds the list.
    """
    other = module.__new__(type(module))
    memo[id(module)] = other
    nothing = [None] * len(module._flat_weights)
    other.__dict__ = deepcopy(module.__dict__ | {"_flat_weights": nothing}, memo)
    return other


def tiled(model: nn.Module, bank: Bank) -> list[tuple[nn.Module, str, Tile]]:
    """The places in `model` that have tiles of `bank`."""
    found = []
    for module in model.modules():
        held = module._modules.get(MODULES)
        if not isinstance(held, nn.ModuleDict):
            continue
        for name, tiles in held.items():
            if not isinstance(tiles, ParametrizationList) or not len(tiles):
                continue
            tile = tiles[0]
            if isinstance(tile, Tile) and tile.bank is bank:
                found.append((module, name, tile))
    return found


def held_in(module: nn.Module, name: str) -> ParametrizationList:
    """The list of parametrizations of a weight."""
    return module._modules[MODULES][name]  # type: ignore[index,return-value]


def restore(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    """Replaces a parametrized weight by the ordinary `parameter`.

    Copies of a module share its class. So the class is replaced, not changed as
    `remove_parametrizations` does: freezing a copy does not affect the original.
    """
    held = module._modules.get(MODULES)
    if isinstance(held, nn.ModuleDict):
        if name in held:
            del held[name]
        kind = type(module)
        wrapped = is_fully_sharded(
            module
        )  # its class is one of FSDP's and the module's own
        own = kind.__bases__[1] if wrapped else kind
        if held:
            kept = {key: value for key, value in vars(own).items() if key != name}
            before = type(own.__name__, own.__bases__, kept)
        else:
            del module._modules[MODULES]
            before = own.__bases__[0]
        if wrapped:
            bases = (kind.__bases__[0], before)
            before = type(f"FSDP{before.__name__}", bases, dict(vars(kind)))
        module.__class__ = before  # type: ignore[assignment]
    module.__dict__.pop(name, None)
    module._parameters[name] = parameter
    _reorder(module)


def _reorder(module: nn.Module) -> None:
    """Restores the order of parameters, by which optimizers identify them."""
    if MODULES in module._modules:
        return  # another parametrization is left
    held = module._parameters
    for name in module.__dict__.pop(ORDER, ()):
        if name in held:
            held[name] = held.pop(name)
