"""Makes a network compact, so that it runs from motifs and packed indices, and dense again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

import torch
from torch import Tensor, nn

from momos.blocks import Layout, Placement, memory
from momos.compact.bitpack import index_bits, num_packed_bytes, pack, unpack
from momos.compact.layers import CompactLayer, install_, uninstall_, why_not
from momos.compact.packed_weight import NAME, MotifBank, Origin, PackedWeight
from momos.config import LatticeConfig, MosaicConfig
from momos.mosaic import Mosaic, forget_, index_dtype
from momos.parameters import check_dense

Slot = tuple[str, nn.Module, str]  # full name, module, and the parameter's name in it


@dataclass(frozen=True)
class Compacted:
    """What became compact, and what of the mosaic stayed dense and why.

    Sizes are bytes in memory: `packed_bytes` of indices, scales and the bank, `dense_bytes` of the
    same weights when dense.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
        >>> _ = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16, min_ndim=2))
        >>> report = momos.compact_(model)
        >>> report.weights, report.bits, report.packed_bytes < report.dense_bytes / 20
        (('0.weight', '2.weight'), 4, True)
    """

    weights: tuple[str, ...]
    dense: Mapping[str, str] = field(default_factory=dict)
    bits: int = 0
    packed_bytes: int = 0
    dense_bytes: int = 0

    def __str__(self) -> str:
        lines = [
            f"{len(self.weights)} weights compact, {self.packed_bytes:,} bytes instead of "
            f"{self.dense_bytes:,}"
        ]
        return "\n".join(
            lines + [f"dense: {name}: {why}" for name, why in self.dense.items()]
        )


def compact_(model: nn.Module, *, exact: bool = False) -> Compacted:
    """Makes `model`, which must be a mosaic, run from motifs and packed indices, in place.

    Dense weights are freed. Every layer computes what it computed before: bit for bit where a weight is
    decoded to be used, and within float32 rounding in products of few inputs with a linear layer, which
    sum in another order. `exact` decodes there too; `model.momos.exact` changes that later. The bank of
    motifs becomes the submodule `momos` of `model`. Vectors, and what cannot run compact, stay dense;
    the result names each with the reason.

    Raises:
        ValueError: if `model` is not a mosaic, is compact already, has another submodule `momos`, or
            its weights are on several devices.

    Example:
        >>> model = nn.Linear(64, 256)
        >>> _ = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16, min_ndim=2))
        >>> inputs = torch.randn(2, 64)
        >>> before = model(inputs)
        >>> _ = momos.compact_(model)
        >>> torch.allclose(model(inputs), before, atol=1e-5)
        True
    """
    check_not_compact(model)
    mosaic = Mosaic.of(model)
    indices = {
        place.name: pack(
            mosaic.indices[place.start : place.stop], index_bits(mosaic.num_motifs)
        )
        for place in mosaic.layout.placements
    }
    origin = mosaic.layout, mosaic.config
    return install_packed_(
        model, mosaic.motifs, indices, scales_of(mosaic), *origin, exact=exact
    )


def expand_(model: nn.Module) -> None:
    """Makes a compact `model` dense again, in place; it remembers its mosaic as before.

    Raises:
        ValueError: if `model` is not compact, or several networks in it are.

    Example:
        >>> model = nn.Linear(64, 256)
        >>> _ = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16, min_ndim=2))
        >>> weight = model.weight.detach().clone()
        >>> _ = momos.compact_(model)
        >>> momos.expand_(model)
        >>> torch.equal(model.weight, weight)
        True
    """
    bank = bank_of(model)
    mosaic = mosaic_of(model)
    dense: dict[PackedWeight, nn.Parameter] = {}
    layers = [module for module in model.modules() if isinstance(module, CompactLayer)]
    for layer in layers:
        for name in type(layer).names:
            packed = layer.packed(name)
            if packed not in dense:
                values = packed.dense().detach()
                dense[packed] = nn.Parameter(values, requires_grad=packed.trainable)
    for layer in layers:
        uninstall_(layer, dense)
    for module in model.modules():
        if module._modules.get(NAME) is bank:
            del module._modules[NAME]
    if mosaic is not None:
        mosaic.remember_(model)


def is_compact(model: nn.Module) -> bool:
    """Whether `model` runs from a bank of motifs."""
    return any(isinstance(module, MotifBank) for module in model.modules())


def bank_of(model: nn.Module) -> MotifBank:
    """The bank of a compact network.

    Raises:
        ValueError: if `model` is not compact, or several networks in it are.
    """
    banks = {n: m for n, m in model.named_modules() if isinstance(m, MotifBank)}
    if not banks:
        what = "is not (momos.compact_ makes it so)"
        if any(isinstance(module, CompactLayer) for module in model.modules()):
            what = "is a part of one: pass the whole"
        raise ValueError(
            f"model must be a compact network, but {type(model).__name__} {what}"
        )
    if len(banks) > 1:
        raise ValueError(
            f"model must have one bank of motifs, but {type(model).__name__} has {len(banks)}: "
            f"{', '.join(map(repr, banks))} (pass the submodules that have one each)"
        )
    return next(iter(banks.values()))


def check_not_compact(model: nn.Module) -> None:
    """Refuses a model that is compact, or has no room for a bank.

    Raises:
        ValueError: if it is.
    """
    check_dense(model)
    if hasattr(model, NAME):
        raise ValueError(
            f"model must have no attribute {NAME!r} of its own, but {type(model).__name__} has"
        )


def scales_of(mosaic: Mosaic) -> dict[str, Tensor | None]:
    """The scales of each parameter of a mosaic."""
    return {place.name: mosaic.scale(place) for place in mosaic.layout.placements}


def install_packed_(
    model: nn.Module,
    motifs: Tensor,
    indices: Mapping[str, Tensor],
    scales: Mapping[str, Tensor | None],
    layout: Layout,
    config: MosaicConfig | LatticeConfig | None = None,
    *,
    exact: bool = False,
    aliases: Mapping[str, str] = MappingProxyType({}),
    root: nn.Module | None = None,
    device: torch.device | str | None = None,
) -> Compacted:
    """Installs the packed indices of the parameters of `layout`, and frees their dense weights.

    `aliases` has further names of parameters, and their first. Those that must stay dense are left as
    they are. The bank becomes a submodule of `root` (`model` itself), and all is put on `device` (that
    of the weights; the CPU instead of the meta device).

    Raises:
        ValueError: if their weights are on several devices; the model is then unchanged.
    """
    slots = _slots(model, layout, aliases)
    dense = {
        place.name: _why_dense(place, slots[place.name], len(motifs))
        for place in layout.placements
    }
    dense = {name: why for name, why in dense.items() if why}
    chosen = [place for place in layout.placements if place.name not in dense]
    if device is None:
        device = _device({place.name: slots[place.name] for place in chosen})
    rest = {name: (indices[name], scales[name]) for name in dense}
    bank = MotifBank(motifs.to(device), exact=exact, origin=Origin(layout, config, rest))
    for place in chosen:
        scale = scales[place.name]
        packed = PackedWeight(
            bank,
            indices[place.name].to(device),
            None if scale is None else scale.to(device),
            place.shape,
            place.dtype,
            axis=place.axis,
            trainable=_parameter_at(slots[place.name][0]).requires_grad,
        )
        for number, (_, module, name) in enumerate(slots[place.name]):
            install_(module, name, packed, owner=number == 0)
    (model if root is None else root).add_module(NAME, bank)
    for module in model.modules():
        forget_(module)
    return report_on(model, dense)


def report_on(model: nn.Module, dense: Mapping[str, str] | None = None) -> Compacted:
    """What of `model` is compact."""
    bank, found = bank_of(model), dict(packed_weights(model))
    total = sum(packed.num_bytes() for packed in found.values())
    return Compacted(
        tuple(found),
        dict(dense or {}),
        bank.bits,
        total + bank.motifs.nbytes,
        sum(prod(packed.shape) * packed.dtype.itemsize for packed in found.values()),
    )


def packed_weights(model: nn.Module) -> Iterator[tuple[str, PackedWeight]]:
    """The first name of each compact weight, and what holds it."""
    seen = set()
    for prefix, module in model.named_modules():
        if isinstance(module, CompactLayer):
            for name in type(module).names:
                packed = module.packed(name)
                if id(packed) not in seen:
                    seen.add(id(packed))
                    yield f"{prefix}.{name}".lstrip("."), packed


def mosaic_of(model: nn.Module) -> Mosaic | None:
    """The mosaic that a compact network is, if all of it is known."""
    bank = bank_of(model)
    if bank.origin is None:
        return None
    layout, found = bank.origin.layout, dict(packed_weights(model))
    dtype = index_dtype(len(bank.motifs))
    indices = torch.empty(layout.num_blocks, dtype=dtype, device="cpu")
    scales = []
    for place in layout.placements:
        if place.name in found:
            own = found[place.name]
            if own.dtype != place.dtype:
                return None
            packed, scale = own.indices, own.scales
        elif place.name in bank.origin.rest:
            packed, scale = bank.origin.rest[place.name]
        else:
            return None
        indices[place.start : place.stop] = unpack(packed, bank.bits, 0, place.num_blocks)
        scales.append(scale)
    own = tuple(scale for scale in scales if scale is not None)
    about = layout, own if len(own) == len(scales) else None, bank.origin.config
    return Mosaic(bank.motifs, indices.to(bank.motifs.device), *about)


def _slots(
    model: nn.Module, layout: Layout, aliases: Mapping[str, str]
) -> dict[str, list[Slot]]:
    """Each parameter of the layout, and every place where it is registered, the named one first."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    slots: dict[str, list[Slot]] = {place.name: [] for place in layout.placements}
    firsts = {name: name for name in slots} | dict(aliases)
    names = {
        memory(parameters[name]): first
        for name, first in firsts.items()
        if name in parameters and first in slots
    }
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and memory(parameter) in names:
                full = f"{prefix}.{name}".lstrip(".")
                slots[names[memory(parameter)]].append((full, module, name))
    return {
        first: sorted(found, key=lambda slot: slot[0] != first)
        for first, found in slots.items()
    }


def why_not_packed(place: Placement, num_motifs: int) -> str:
    """Why a parameter must stay dense, whatever module it is in, if it must."""
    if len(place.shape) < 2:
        return "fewer than 2 dimensions"
    bits = index_bits(num_motifs)
    packed = num_packed_bytes(place.num_blocks, bits)
    if packed >= place.num_weights * place.dtype.itemsize:
        return f"{bits} bits for each of its blocks are not fewer than those of its weights"
    return ""


def _why_dense(place: Placement, slots: list[Slot], num_motifs: int) -> str:
    if not slots:
        return "not a parameter"
    reasons = (why_not(module, name) for _, module, name in slots)
    return why_not_packed(place, num_motifs) or next(filter(None, reasons), "")


def _parameter_at(slot: Slot) -> nn.Parameter:
    _, module, name = slot
    parameter = module._parameters[name]
    assert parameter is not None
    return parameter


def _device(slots: Mapping[str, list[Slot]]) -> torch.device:
    """The one device of all parameters that become compact; the CPU for the meta device."""
    devices = {
        _parameter_at(slot).device: slot[0] for found in slots.values() for slot in found
    }
    if len(devices) > 1:
        found = " and ".join(f"{device} ({name!r})" for device, name in devices.items())
        raise ValueError(
            f"all weights of a compact model must be on one device, got {found}"
        )
    device = next(iter(devices), torch.device("cpu"))
    return torch.device("cpu") if device.type == "meta" else device
