"""Training through the mosaic: `parametrize_` begins it, `freeze_` ends it.

Between the two every chosen weight is a torch parametrization: whatever reads `module.weight` sees
a mosaic. The bank of motifs is registered once, at the root, as the submodule `momos`.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from momos.blocks import Layout, memory
from momos.config import MosaicConfig
from momos.learning.bank import NAME, Bank, Learn
from momos.learning.fitting import Fitting
from momos.learning.importance import Importance
from momos.learning.scaling import scaled_blocks, scales_of
from momos.learning.tiles import MotifTile, Tile, WeightTile
from momos.mosaic import Mosaic

ORDER = "_momos_order"  # the attribute of a module that keeps the order of its parameters
_MODULES = "parametrizations"
Slot = tuple[nn.Module, str]  # a module and the name of a parameter in it


def parametrize_(
    model: nn.Module,
    config: MosaicConfig,
    *,
    learn: Learn = "motifs",
    importance: Mapping[str, Tensor | float] | None = None,
    generator: torch.Generator | None = None,
) -> Bank:
    """Makes the chosen weights of `model` a mosaic that can be trained, in place.

    Motifs start from k-means of the current weights. With `learn="motifs"` they are the trainable
    parameter (make the optimizer afterwards) and indices stay as they are. With `learn="weights"`
    the weights stay the trainable parameters, the forward pass sees their mosaic, gradients go
    straight through, and `Reassign` says when motifs and indices follow. `freeze_` ends either.

    Weights of fewer than two dimensions stay dense unless `config.min_ndim` says otherwise.
    `importance` weighs squared errors, by name of the weight: a number for each tensor
    (`sensitivities` measures them) or for each weight (`input_moments`).

    Raises:
        ValueError: if no parameter is chosen, one cannot be parametrized (names it and says why),
            a weight is not finite, or the motifs of `model` are learned already. The model is
            then unchanged.
    """
    if learn not in ("motifs", "weights"):
        raise ValueError(f"learn must be 'motifs' or 'weights', got {learn!r}")
    layout = Layout.of(
        model,
        block_size=config.block_size,
        include=config.include,
        exclude=config.exclude,
        min_ndim=2 if config.min_ndim is None else config.min_ndim,
    )
    slots = _slots(model, layout)
    _check(model, slots)
    weights = [tensor for _, tensor in layout.tensors(model)]
    _check_finite(layout, weights)
    scales = scales_of(weights, config.scales)
    fitting = Fitting(
        layout, config, Importance.of(layout, importance, scales) if importance else None
    )
    blocks = scaled_blocks(layout, weights, scales, _wide(layout))
    if generator is None:
        generator = torch.Generator().manual_seed(config.seed)
    motifs, indices = fitting.start(blocks, generator=generator)
    bank = Bank(fitting, learn, motifs, indices, scales)
    _install(model, bank, slots)
    return bank


@torch.no_grad()
def freeze_(model: nn.Module) -> Mosaic:
    """Ends learning: the weights of `model` are ordinary parameters again, an exact mosaic.

    They are, bit for bit, what the last forward pass saw. Floating tensors that are no blocks
    (biases, norms, running statistics) are rounded to `config.dense_dtype`. The model can then
    be pickled, saved by `momos.save`, and read by `Mosaic.of`.

    Raises:
        ValueError: if the motifs of `model` are not being learned, learning has not started
            (the dense part of `Reassign`), or a tensor does not fit `config.dense_dtype`. The
            model is then unchanged.
    """
    bank = bank_of(model)
    if not bank.learning:
        raise ValueError(
            "learning must have started, but the schedule is still in its dense part"
        )
    mosaic = bank.mosaic()
    rounded = _rounded(model, bank)
    slots = [
        (module, name) for module in list(model.modules()) for name in _ours(module, bank)
    ]
    values: dict[int, nn.Parameter] = {}
    for module, name in slots:
        _restore(module, name, values)
    del model._modules[NAME]
    for tensor, value in rounded:
        tensor.copy_(value)
    mosaic.remember_(model)
    return mosaic


def bank_of(model: nn.Module) -> Bank:
    """The bank of a model whose motifs are being learned.

    Raises:
        ValueError: if it has none, or it is that of a submodule (says which).
    """
    bank = model._modules.get(NAME)
    if isinstance(bank, Bank):
        return bank
    inside = [
        name.rpartition(".")[0]
        for name, module in model.named_modules()
        if isinstance(module, Bank)
    ]
    raise ValueError(
        f"the motifs of the model must be learned (momos.parametrize_), but those of "
        f"{type(model).__name__} are not"
        + (f"; those of its submodule {inside[0]!r} are" if inside else "")
    )


def _wide(layout: Layout) -> torch.dtype:
    return torch.float64 if layout.dtype == torch.float64 else torch.float32


def _slots(model: nn.Module, layout: Layout) -> dict[str, list[Slot]]:
    """Every place where each parameter of the layout is registered."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = {memory(parameters[place.name]): place.name for place in layout.placements}
    slots: dict[str, list[Slot]] = {place.name: [] for place in layout.placements}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and memory(parameter) in names:
                slots[names[memory(parameter)]].append((module, name))
    return slots


def _check(model: nn.Module, slots: dict[str, list[Slot]]) -> None:
    """Refuses what cannot be parametrized, before anything is changed."""
    if any(isinstance(module, Bank) for module in model.modules()):
        raise ValueError(
            "the motifs of the model must not be learned already (momos.freeze_ ends that)"
        )
    if hasattr(model, NAME):
        raise ValueError(
            f"the model must leave the name {NAME!r} free, but has one so named"
        )
    for parameter, places in slots.items():
        for module, _ in places:
            if why := _why_not(module):
                raise ValueError(
                    f"parameter {parameter!r} must be in a module that torch can parametrize, "
                    f"but {type(module).__name__} {why} (exclude it to leave it dense)"
                )


def _why_not(module: nn.Module) -> str:
    if isinstance(module, ParametrizationList):
        return "belongs to another parametrization"
    if isinstance(module, torch.jit.ScriptModule):
        return "is compiled by TorchScript"
    return ""


def _check_finite(layout: Layout, weights: list[Tensor]) -> None:
    for place, weight in zip(layout.placements, weights, strict=True):
        if count := int((~torch.isfinite(weight)).sum()):
            raise ValueError(
                f"weights must be finite, got {count} of {weight.numel()} NaN or infinite in "
                f"parameter {place.name!r}"
            )


def _install(model: nn.Module, bank: Bank, slots: dict[str, list[Slot]]) -> None:
    kind = MotifTile if bank.learn == "motifs" else WeightTile
    for place in bank.layout.placements:
        tile = kind(bank, place)
        bank.tiles.append(tile)
        for module, name in slots[place.name]:
            module.__dict__.setdefault(ORDER, tuple(module._parameters))
            register_parametrization(module, name, tile)
            tile.installed(module.parametrizations[name])  # type: ignore[index]
    model.add_module(NAME, bank)


def _ours(module: nn.Module, bank: Bank) -> list[str]:
    """Names of the parameters of `module` that are tiles of `bank`."""
    held = module._modules.get(_MODULES)
    if not isinstance(held, nn.ModuleDict):
        return []
    return [
        name
        for name, found in held.items()
        if isinstance(found, ParametrizationList)
        and isinstance(found[0], Tile)
        and found[0].bank is bank
    ]


def _restore(module: nn.Module, name: str, values: dict[int, nn.Parameter]) -> None:
    """Makes a parametrized weight an ordinary parameter, the latent one where there is one.

    Copies of a module share its class, so the class is replaced, never changed as
    `remove_parametrizations` does: freezing a copy leaves the original as it was.
    """
    held: nn.ModuleDict = module._modules[_MODULES]  # type: ignore[assignment]
    found: ParametrizationList = held[name]  # type: ignore[assignment]
    tile = found[0]
    if id(tile) not in values:
        weight = found().detach().clone()
        latent = found.original if isinstance(tile, WeightTile) else None
        if isinstance(latent, nn.Parameter):
            latent.copy_(weight)
            values[id(tile)] = latent
        else:
            values[id(tile)] = nn.Parameter(weight)
    del held[name]
    kind = type(module)
    if held:
        kept = {key: value for key, value in vars(kind).items() if key != name}
        module.__class__ = type(kind.__name__, kind.__bases__, kept)
    else:
        del module._modules[_MODULES]
        module.__class__ = kind.__bases__[0]
    module.register_parameter(name, values[id(tile)])
    _reorder(module)


def _reorder(module: nn.Module) -> None:
    """Parameters in the order that they had: optimizers know them by it."""
    if _MODULES in module._modules:
        return  # another parametrization is left
    held = module._parameters
    for name in module.__dict__.pop(ORDER):
        if name in held:
            held[name] = held.pop(name)


def _rounded(model: nn.Module, bank: Bank) -> Iterator[tuple[Tensor, Tensor]]:
    """The floating tensors that are no blocks, and what rounding makes of them."""
    dtype = getattr(torch, bank.config.dense_dtype)
    if dtype == torch.float32:
        return iter(())
    inside = {id(module) for tile in (bank, *bank.tiles) for module in tile.modules()}
    rounded = []
    for prefix, module in model.named_modules():
        if id(module) in inside or isinstance(module, ParametrizationList):
            continue
        held = {**module._parameters, **module._buffers}
        for name, tensor in held.items():
            if tensor is None or not tensor.is_floating_point():
                continue
            if torch.promote_types(dtype, tensor.dtype) == dtype:
                continue
            value = tensor.to(dtype).to(tensor.dtype)
            if not torch.equal(torch.isfinite(value), torch.isfinite(tensor)):
                raise ValueError(
                    f"dense tensors must fit dense_dtype {bank.config.dense_dtype}, got "
                    f"{float(tensor.abs().max())} in {f'{prefix}.{name}'.lstrip('.')!r}"
                )
            rounded.append((tensor, value))
    return iter(rounded)
