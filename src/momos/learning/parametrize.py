"""Training through the mosaic: `parametrize_` begins it, `freeze_` ends it.

In between, every chosen weight is a torch parametrization: anything that reads `module.weight` sees
a mosaic. The bank of motifs is registered once, at the root, as the submodule `momos`. A network
that already is a mosaic by the same config (loaded from a file, or frozen before) continues from it.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from momos.blocks import Layout
from momos.config import MosaicConfig
from momos.learning.bank import NAME, Bank, Learn
from momos.learning.fitting import (
    Fitting,
    Importance,
    check_finite,
    scaled_blocks,
    scales_of,
)
from momos.learning.fully_sharded import release_
from momos.learning.latents import Latent
from momos.learning.replicas import WRAP_LAST
from momos.learning.sharding import FIRST
from momos.learning.states import moved, refresh_
from momos.learning.tiles import (
    Slot,
    Tile,
    WeightTile,
    held_in,
    install,
    restore,
    slots_of,
    tiled,
)
from momos.mosaic import Mosaic, bits, remembered
from momos.parameters import check_used
from momos.shards import Ranks, is_sharded, local, reshard_, without_replicas


@dataclass(frozen=True, eq=False)
class Start:
    """Initial motifs, indices and scales of a bank, and the step of its grid if known."""

    motifs: Float[Tensor, "k s"]
    indices: Int32[Tensor, " m"]
    scales: tuple[Float32[Tensor, " c"], ...] | None
    step: Float32[Tensor, ""] | None = None


def mosaic_to_continue(
    model: nn.Module, layout: Layout, config: MosaicConfig
) -> Mosaic | None:
    """The mosaic that `model` already is, if it was made by `config`."""
    if not remembered(model):
        return None
    try:
        mosaic = Mosaic.of(model)
    except ValueError:  # it has changed since
        return None
    return mosaic if (mosaic.config, mosaic.layout) == (config, layout) else None


def continued(mosaic: Mosaic, fitting: Fitting, weights: list[Tensor]) -> Start | None:
    """The start of a bank that equals `mosaic`, bit for bit; None if there is no such bank."""
    config, device = fitting.config, weights[0].device
    placed = _placed(mosaic, fitting, device)
    if placed is None:
        return None
    motifs, indices = placed
    wide = torch.float64 if fitting.layout.dtype == torch.float64 else torch.float32
    scales, step = mosaic.scales, None
    if scales is not None:
        scales = tuple(scale.to(device) for scale in scales)
    if config.selection == "whole":
        return Start(motifs, indices, scales)
    if config.bits <= 8:
        if scales is None or mosaic.motifs.dtype != torch.int8:
            return None
        step, scales = _parted(scales, scales_of(weights, config.scales))
        if step is None:
            return None
        motifs = motifs * step
    elif (scales is None) != (config.scales == "none"):
        return None
    return Start(motifs.to(wide), indices, scales, step)


def _placed(
    mosaic: Mosaic, fitting: Fitting, device: torch.device
) -> tuple[Float[Tensor, "k s"], Int32[Tensor, " m"]] | None:
    """Motifs and indices of a mosaic in the rows of a bank; a zero motif is first in its group."""
    if fitting.config.selection == "whole":
        return _placed_whole(mosaic, fitting, device)
    wide = torch.float64 if mosaic.motifs.dtype == torch.float64 else torch.float32
    given, numbers = mosaic.motifs.to(device, wide), mosaic.indices.to(device).long()
    motifs = given.new_zeros(fitting.num_motifs, given.shape[1])
    indices = torch.empty_like(numbers)
    for share in fitting.shares:
        own = numbers[share.rows]
        used = own.unique()
        if fitting.config.zero_motif:
            zeros = used[~given[used].any(1)][:1]
            used = torch.cat([used.new_full((1,), -1), used[~torch.isin(used, zeros)]])
            own = torch.where(torch.isin(own, zeros), -1, own)
        if len(used) > share.num_motifs:
            return None
        real = used >= 0  # the zero motif is there already, used or not
        rows = share.first + torch.arange(len(used), device=device)
        motifs[rows[real]] = given[used[real]]
        indices[share.rows] = share.first + torch.searchsorted(used, own)
    return motifs, indices.int()


def _placed_whole(
    mosaic: Mosaic, fitting: Fitting, device: torch.device
) -> tuple[Float[Tensor, "k s"], Int32[Tensor, " m"]] | None:
    """The same where motifs are whole numbers; None if one is beyond those of the bank."""
    blocks = mosaic.motifs.index_select(0, mosaic.indices.int()).to(device).float()
    generator = torch.Generator()  # nothing is drawn
    motifs, indices = fitting.start(blocks, generator=generator)
    return (motifs, indices) if torch.equal(motifs[indices], blocks) else None


def _check_whole(learn: Learn, importance: Mapping[str, Tensor | float] | None) -> None:
    if learn != "weights":
        raise ValueError(f"learn must be 'weights' for selection='whole', got {learn!r}")
    if importance is not None:
        raise ValueError(
            "importance must be None for selection='whole', whose rate weight is in units of "
            "the loss, which knows what is important"
        )


def _parted(
    products: tuple[Float32[Tensor, " c"], ...],
    scales: tuple[Float32[Tensor, " c"], ...] | None,
) -> tuple[Float32[Tensor, ""] | None, tuple[Float32[Tensor, " c"], ...] | None]:
    """Splits `products` of step and scales, with scales near those of the weights.

    Both are bfloat16 numbers, so almost always few pairs have exactly these products.
    """
    flat = torch.cat(products)
    if scales is None:
        return (flat[0], None) if bool((flat == flat[0]).all()) else (None, None)
    wanted = (flat / torch.cat(scales)).median()
    near = torch.arange(-128, 129, dtype=torch.int16, device=flat.device)
    steps = (wanted.bfloat16().view(torch.int16) + near).view(torch.bfloat16).float()
    steps = steps[torch.isfinite(steps) & (steps > 0)]
    exact = [step for step in steps if bool((_scales(flat, step) * step == flat).all())]
    if not exact:
        return None, None
    step = min(exact, key=lambda step: float((step / wanted).log().abs()))
    return step, tuple(_scales(product, step) for product in products)


def _scales(products: Tensor, step: Tensor) -> Float32[Tensor, " c"]:
    return (products / step).bfloat16().float()


@torch.inference_mode(False)
@torch.no_grad()
def parametrize_(
    model: nn.Module,
    config: MosaicConfig,
    *,
    learn: Learn = "motifs",
    importance: Mapping[str, Tensor | float] | None = None,
    generator: torch.Generator | None = None,
) -> Bank:
    """Makes the chosen weights of `model` a mosaic that can be trained, in place.

    Motifs start from k-means of the current weights; a model that is a mosaic made by the same
    `config` (frozen, or loaded by `load_`) begins as that mosaic. With `learn="motifs"` they
    are the trainable parameter (make the optimizer afterwards) and indices stay as they are.
    With `learn="weights"` the weights stay the trainable parameters, the forward pass sees their
    mosaic, gradients go straight through, and `Reassign` says when motifs and indices follow.
    `freeze_` ends either.

    Weights of fewer than two dimensions stay dense unless `config.min_ndim` says otherwise.
    `importance` weights squared errors, by name of the weight: a number for each tensor
    (`sensitivities` measures them) or one for each weight.

    The bank is the child `momos` of `model`, and its forward the identity: a root that is an
    nn.Sequential, ModuleList or ModuleDict has one element more until it is frozen.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if no parameter is chosen, one cannot be parametrized (names it and says why),
            a weight is not finite, or the motifs of `model` are learned already. The model is
            then unchanged.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> config = momos.MosaicConfig.learned(rate_weight=0.5)
        >>> bank = momos.parametrize_(model, config, learn="weights")
        >>> model(torch.randn(3, 64)).sum().backward()  # to the weights, through the mosaic
        >>> mosaic = momos.freeze_(model)
    """
    _check_types(model, config, importance)
    if learn not in ("motifs", "weights"):
        raise ValueError(f"learn must be 'motifs' or 'weights', got {learn!r}")
    if config.selection == "whole":
        _check_whole(learn, importance)
    if without_replicas(model) is not model:
        raise ValueError(WRAP_LAST)
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            raise ValueError(FIRST.format(name))
    layout = Layout.of(
        model,
        block_size=config.block_size,
        include=config.include,
        exclude=config.exclude,
        min_ndim=2 if config.min_ndim is None else config.min_ndim,
    )
    slots = slots_of(model, layout)
    _check(model, slots)
    check_used(model, slots)
    weights = [tensor for _, tensor in layout.tensors(model)]
    check_finite(layout, weights)
    if generator is None:
        generator = torch.Generator().manual_seed(config.seed)
    bank = _bank(model, Fitting(layout, config), learn, weights, importance, generator)
    install(model, bank, slots)
    if learn == "weights":
        bank.begin()
    return bank


def _bank(
    model: nn.Module,
    fitting: Fitting,
    learn: Learn,
    weights: list[Tensor],
    importance: Mapping[str, Tensor | float] | None,
    generator: torch.Generator,
) -> Bank:
    """A bank of the mosaic that the model already is, or else by k-means."""
    layout, config = fitting.layout, fitting.config
    scales = scales_of(weights, config.scales)
    if importance is not None:
        weighed = Importance.of(layout, importance, scales, device=weights[0].device)
        fitting = replace(fitting, importance=weighed)
    mosaic = mosaic_to_continue(model, layout, config)
    start = None if mosaic is None else continued(mosaic, fitting, weights)
    if start is not None:
        bank = Bank(fitting, learn, start.motifs, start.indices, start.scales, start.step)
        pairs = zip(layout.placements, weights, strict=True)
        if all(torch.equal(bits(bank.weight(place)), bits(w)) for place, w in pairs):
            return bank
    blocks = scaled_blocks(layout, weights, scales, _wide(layout))
    return Bank(fitting, learn, *fitting.start(blocks, generator=generator), scales)


@torch.inference_mode(False)
@torch.no_grad()
def freeze_(model: nn.Module) -> Mosaic:
    """Ends learning: the weights of `model` are ordinary parameters again, an exact mosaic.

    They are, bit for bit, what the last forward pass saw. Floating tensors that are not blocks
    (biases, norms, running statistics) are rounded to `config.dense_dtype`. The model can then
    be pickled, saved by `momos.save`, and read by `Mosaic.of`.

    An averaged copy of a model (`torch.optim.swa_utils.AveragedModel`) is frozen as the mosaic
    of its averaged weights. A warning says so if latent weights moved, but motifs and indices
    never followed them.

    Raises:
        ValueError: if the motifs of `model` are not being learned, learning has not started
            (the dense part of `Reassign`), a tensor does not fit `config.dense_dtype`, or a
            weight that the forward pass saw is not what motifs and indices say. The model is
            then unchanged.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> config = momos.MosaicConfig(block_size=2, num_motifs=16)
        >>> bank = momos.parametrize_(model, config)
        >>> mosaic = momos.freeze_(model)  # after training
        >>> torch.equal(mosaic.dense()["weight"], model.weight)
        True
    """
    model = without_replicas(model)
    bank = bank_of(model)
    refresh_(bank)
    reshard_(model)
    if not bank.learning:
        raise ValueError(
            "learning must have started, but the schedule is still in its dense part"
        )
    mosaic = bank.mosaic()
    with Ranks.of(model).together():
        rounded = _rounded(model, bank)
    slots = tiled(model, bank)
    for _, _, tile in slots:
        if isinstance(tile, WeightTile) and tile.latent.dtype != tile.place.dtype:
            raise ValueError(
                f"parameter {tile.place.name!r} must have dtype {tile.place.dtype}, got "
                f"{tile.latent.dtype} (convert the whole model, not a part)"
            )
    weights = {tile: _weight(bank, tile) for _, _, tile in slots}
    if bank.shards is None:
        _check_seen(weights)
    _warn_unless_followed(bank)
    parameters = {tile: _parameter(tile, weight) for tile, weight in weights.items()}
    # If this is interrupted, freezing again completes it: the bank goes last.
    for tensor, value in rounded:
        tensor.copy_(value)
    if bank.shards is not None:
        release_(
            model, {held_in(module, name): (module, name) for module, name, _ in slots}
        )
    for module, name, tile in slots:
        local(parameters[tile]).copy_(weights[tile])
        restore(module, name, parameters[tile])
    mosaic.remember_(model)
    del model._modules[NAME]
    return mosaic


def _weight(bank: Bank, tile: Tile) -> Tensor:
    """What this rank holds of a frozen weight: all, if it is not sharded."""
    if bank.shards is None:
        return bank.weight(tile.place)
    return bank.shards.values(bank, bank.layout.number(tile.place))


def _parameter(tile: Tile, weight: Tensor) -> nn.Parameter:
    """The latent weight if there is one, since optimizers refer to it."""
    if not isinstance(tile, WeightTile):
        return nn.Parameter(weight.clone())
    latent = tile.latent
    if isinstance(latent, Latent):
        latent.__class__ = nn.Parameter  # type: ignore[assignment]
    return latent


def _check_seen(weights: dict[Tile, Tensor]) -> None:
    """Refuses weights that differ from those that the forward pass saw."""
    for tile, weight in weights.items():
        if not isinstance(tile, WeightTile):
            continue
        if count := int((bits(tile.value) != bits(weight)).sum()):
            raise ValueError(
                f"parameter {tile.place.name!r} must be what its motifs and indices say, got "
                f"{count} of {weight.numel()} values that differ: its buffers were written "
                "from outside (Reassign.step makes it a mosaic again)"
            )


def _warn_unless_followed(bank: Bank) -> None:
    if bank.followed or not moved(bank):
        return
    warnings.warn(
        "latent weights moved, but motifs and indices never followed them, so the frozen "
        "network is the one that parametrize_ made: call momos.Reassign(model, "
        "total_steps=...).step() after each step of the optimizer",
        UserWarning,
        stacklevel=5,  # the caller of freeze_ and its two decorators
    )


def bank_of(model: nn.Module) -> Bank:
    """The bank of a model whose motifs are being learned, or of the one that DDP wraps.

    Raises:
        ValueError: if it has none, or it is that of a submodule (says which).
    """
    model = without_replicas(model)
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


def _check_types(model: object, config: object, importance: object) -> None:
    for name, value, kind in (
        ("model", model, nn.Module),
        ("config", config, MosaicConfig),
        ("importance", {} if importance is None else importance, Mapping),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")


def _check(model: nn.Module, slots: dict[str, list[Slot]]) -> None:
    """Refuses models that cannot be parametrized, before anything is changed."""
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


def _rounded(model: nn.Module, bank: Bank) -> list[tuple[Tensor, Tensor]]:
    """The floating tensors that are not blocks, with their rounded values."""
    dtype = getattr(torch, bank.config.dense_dtype)
    if dtype == torch.float32:
        return []
    inside = {id(module) for tile in (bank, *bank.tiles) for module in tile.modules()}
    names = {place.name for place in bank.layout.placements}
    blocks = {
        id(p) for n, p in model.named_parameters(remove_duplicate=False) if n in names
    }
    rounded = []
    for prefix, module in model.named_modules():
        if id(module) in inside or isinstance(module, ParametrizationList):
            continue
        held = {**module._parameters, **module._buffers}
        for name, tensor in held.items():
            if tensor is None or not tensor.is_floating_point() or id(tensor) in blocks:
                continue
            if torch.promote_types(dtype, tensor.dtype) == dtype:
                continue
            tensor = local(tensor)
            value = tensor.to(dtype).to(tensor.dtype)
            if not torch.equal(torch.isfinite(value), torch.isfinite(tensor)):
                raise ValueError(
                    f"dense tensors must fit dense_dtype {bank.config.dense_dtype}, got "
                    f"{float(tensor.abs().max())} in {f'{prefix}.{name}'.lstrip('.')!r}"
                )
            rounded.append((tensor, value))
    return rounded
