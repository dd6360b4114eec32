"""Where parameters are registered, and tiles put in their place and taken away again."""

from contextlib import ExitStack
from copy import deepcopy
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from momos.blocks import Layout, memory
from momos.learning.bank import NAME, Bank
from momos.learning.tiles import MotifTile, Tile, WeightTile

MODULES = "parametrizations"  # the child in which torch keeps them
ORDER = "_momos_order"  # the attribute of a module that keeps the order of its parameters
Slot = tuple[nn.Module, str]  # a module and the name of a parameter in it


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
    """Puts tiles of `bank` into all slots, or, where that is interrupted, into none."""
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
        model.add_module(NAME, bank)
        undo.pop_all()


def _copied(module: nn.RNNBase, memo: dict[int, Any]) -> nn.RNNBase:
    """A deep copy of a recurrent module, without its list of weights.

    While it is parametrized these are what the last forward pass computed, which torch does not
    copy. The next one finds that they have changed, and lists them anew.
    """
    other = module.__new__(type(module))
    memo[id(module)] = other
    nothing = [None] * len(module._flat_weights)
    other.__dict__ = deepcopy(module.__dict__ | {"_flat_weights": nothing}, memo)
    return other


def tiled(model: nn.Module, bank: Bank) -> list[tuple[nn.Module, str, Tile]]:
    """Where in `model` tiles of `bank` are."""
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


def restore(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    """Makes a parametrized weight the ordinary `parameter`.

    Copies of a module share its class, so the class is replaced, never changed as
    `remove_parametrizations` does: freezing a copy leaves the original as it was.
    """
    held = module._modules.get(MODULES)
    if isinstance(held, nn.ModuleDict):
        if name in held:
            del held[name]
        kind = type(module)
        if held:
            kept = {key: value for key, value in vars(kind).items() if key != name}
            module.__class__ = type(kind.__name__, kind.__bases__, kept)  # type: ignore[assignment]
        else:
            del module._modules[MODULES]
            module.__class__ = kind.__bases__[0]
    module.__dict__.pop(name, None)
    module._parameters[name] = parameter
    _reorder(module)


def _reorder(module: nn.Module) -> None:
    """Parameters in the order that they had: optimizers know them by it."""
    if MODULES in module._modules:
        return  # another parametrization is left
    held = module._parameters
    for name in module.__dict__.pop(ORDER, ()):
        if name in held:
            held[name] = held.pop(name)
