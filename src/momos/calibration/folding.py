"""Folds the scales of output channels into the normalization that follows.

Blocks from channels of equal scale are closer to each other, so fewer motifs suffice for them. A
normalization undoes the scale of its input's channels: the divisor of a channel's weights moves
into the normalization's parameters and buffers, and the network computes the same.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from momos.calibration.tracing import Trace, undisturbed

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
# Reported as not folded: their statistics are computed from each input.
OTHERS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Folded:
    """A weight and the normalization that absorbed its channels' scales, by name.

    `num_left` channels were left alone: all zeros, or scaled so far from the others that their
    new values would not be finite.
    """

    weight: str
    normalization: str
    num_left: int


@dataclass(frozen=True)
class Skipped:
    """A layer or normalization that was not folded, and the first reason found."""

    name: str
    reason: str


@dataclass(frozen=True)
class Folding:
    """What `fold_scales_` did, in the order of the model's modules.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
        >>> folding = momos.fold_scales_(model, torch.randn(2, 3, 8, 8))
        >>> [(pair.weight, pair.normalization) for pair in folding.pairs]
        [('0.weight', '1')]
    """

    pairs: tuple[Folded, ...]
    skipped: tuple[Skipped, ...]


def fold_scales_(model: nn.Module, *inputs: Any, **options: Any) -> Folding:
    """Makes the output channels of layers before a normalization equal in root mean square.

    Each channel of a linear or convolution layer becomes as large as the layer's channels are
    on average (root mean square of those that are not zero), and the normalization's running
    statistics and gains change such that the model computes the same in evaluation mode, up to
    rounding. While training, where the batch's own variance stands in for the running one, this
    holds as far as `eps` is small compared with both, or these are similar.

    Which normalization follows a layer is seen by running `model(*inputs, **options)` once in
    evaluation mode. A pair is folded only where the very tensor that the layer returned is read
    by one normalization and by nothing else in that run; a model that decides by its inputs
    which modules it runs must be given inputs that show all there is. Layers are `nn.Linear`
    and `nn.Conv1d` to `3d`, normalizations `nn.BatchNorm1d` to `3d`, `nn.SyncBatchNorm` and
    `nn.InstanceNorm1d` to `3d`, all with running statistics, since without these `eps` makes
    the scale matter. Transposed convolutions, subclasses, and modules with hooks are left as
    they are. Gradients and an optimizer's state are not rescaled: fold before training.

    Raises:
        ValueError: if a layer or normalization is parametrized, or a weight not finite or not
            initialised. The model is then unchanged.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
        >>> images = torch.randn(2, 3, 8, 8)
        >>> before = model(images)
        >>> folding = momos.fold_scales_(model, images)
        >>> len(folding.pairs)
        1
        >>> torch.allclose(model(images), before, atol=1e-5)
        True
    """
    layers = _modules(model, LAYERS + TRANSPOSED)
    norms = _modules(model, BATCH_NORMS + INSTANCE_NORMS + OTHERS)
    trace = Trace(layers, norms)
    with undisturbed(model):
        trace.run(model, *inputs, **options)
    _check(layers | norms)
    reasons = _unfit(model, layers | norms)
    pairs = _pairs(trace, layers, norms, reasons)
    with torch.no_grad():
        folded = tuple(
            Folded(f"{layer}.weight", norm, _fold_(layers[layer], norms[norm]))
            for norm, layer in pairs.items()
        )
    done = {*pairs, *pairs.values()}
    order = [name for name, _ in model.named_modules() if name in reasons]
    return Folding(
        folded, tuple(Skipped(name, reasons[name]) for name in order if name not in done)
    )


def _modules(model: nn.Module, types: tuple[type, ...]) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, types)}


def _check(modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        if parametrize.is_parametrized(module):
            found = ", ".join(module.parametrizations)  # pyright: ignore
            raise ValueError(
                f"module {name!r} must not be parametrized, got a parametrization of {found} "
                "(fold before parametrize_)"
            )
        for part, tensor in module.named_parameters(recurse=False):
            if count := int((~torch.isfinite(tensor)).sum()):
                raise ValueError(
                    f"weights must be finite, got {count} of {tensor.numel()} NaN or infinite "
                    f"in parameter '{name}.{part}'"
                )


def _unfit(model: nn.Module, modules: dict[str, nn.Module]) -> dict[str, str]:
    """Reasons that are visible without running the model."""
    memories = Counter(
        memory
        for module in model.modules()
        for memory in map(_memory, (*module.parameters(False), *module.buffers(False)))
    )
    reasons = {}
    for name, module in modules.items():
        reason = _unfit_type(module) or _unfit_state(module)
        tensors = [*module.parameters(False), *module.buffers(False)]
        if reason is None and any(memories[_memory(t)] > 1 for t in tensors if t.numel()):
            reason = "shares memory with another tensor of the model"
        if reason is not None:
            reasons[name] = reason
    return reasons


def _memory(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()


def _unfit_type(module: nn.Module) -> str | None:
    if type(module) in OTHERS:
        return "normalizes by statistics of each input"
    if isinstance(module, TRANSPOSED):
        return "is a transposed convolution"
    if type(module) not in LAYERS + BATCH_NORMS + INSTANCE_NORMS:
        return f"is a {type(module).__name__}, which may compute something else"
    hooked = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    if "forward" in vars(module) or any(getattr(module, kind) for kind in hooked):
        return "has hooks or a forward of its own"
    return None


def _unfit_state(module: Any) -> str | None:
    if isinstance(module, LAYERS):
        changed = [module.weight, module.bias]
    else:
        if not module.track_running_stats or module.running_mean is None:
            return "keeps no running statistics"
        changed = [module.weight]
    if any(part is not None and not part.requires_grad for part in changed):
        return "is frozen"
    return None


def _pairs(
    trace: Trace,
    layers: dict[str, nn.Module],
    norms: dict[str, nn.Module],
    reasons: dict[str, str],
) -> dict[str, str]:
    """Layer of each normalization that can be folded; adds to `reasons` for all others."""
    for name in layers | norms:
        if trace.calls[name] != 1:
            reasons.setdefault(name, f"was called {trace.calls[name]} times, not once")
        elif name in trace.exposed:
            reasons.setdefault(name, "has tensors that something else uses")
    readers = Counter(trace.sources.values())
    pairs = {}
    for name in norms:
        layer = trace.sources.get(name)
        if layer is None:
            reasons.setdefault(name, "is not given what a layer returned")
        elif layer in trace.leaking or readers[layer] > 1:
            reasons.setdefault(layer, "has an output that is used more than once")
        elif not _channels_first(layers[layer], trace.shapes[layer]):
            reasons.setdefault(layer, "has its channels where none are normalized")
        if layer is None:
            continue
        if name in reasons or layer in reasons:
            reasons.setdefault(name, f"follows {layer}, which {reasons.get(layer)}")
            reasons.setdefault(layer, f"is followed by {name}, which {reasons[name]}")
        else:
            pairs[name] = layer
    for name in layers:
        if name not in pairs.values():
            reasons.setdefault(name, "is not followed directly by a normalization")
    return pairs


def _channels_first(layer: Any, shape: tuple[int, ...]) -> bool:
    """Whether dimension 1 of the output is the layer's channels, as normalizations read it."""
    return len(shape) == (2 if isinstance(layer, nn.Linear) else layer.weight.ndim)


def _fold_(layer: Any, norm: Any) -> int:
    """Folds one pair; returns how many channels were left alone."""
    power = layer.weight.double().square().reshape(len(layer.weight), -1).mean(1)
    held = power > 0
    ratio = (power / power[held].mean()).sqrt()
    new = _rescaled(layer, norm, ratio)
    for _, values in new:
        held &= torch.isfinite(values).reshape(len(values), -1).all(1)
    if norm.weight is None:
        held &= norm.running_var.double() + norm.eps >= norm.eps * ratio.square()
    for old, values in new:
        old[held] = values[held]
    return int((~held).sum())


def _rescaled(layer: Any, norm: Any, ratio: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Tensors of a pair and their new values, with channels divided by `ratio`.

    With y the layer's output, μ and v the running statistics, and γ the gain, the network has
    γ·(y − μ)/√(v + ε). From y/r, μ/r and v/r² comes γ'·(y − μ)/√(v + ε·r²), hence γ'. Without
    gains it is ε that has to be undone in the variance: v' + ε = (v + ε)/r².
    """
    variance, eps = norm.running_var.double(), norm.eps
    new = [
        (layer.weight, _divided(layer.weight, ratio)),
        (norm.running_mean, _divided(norm.running_mean, ratio)),
    ]
    if layer.bias is not None:
        new.append((layer.bias, _divided(layer.bias, ratio)))
    square = ratio.square()
    if norm.weight is None:
        new.append((norm.running_var, (variance + eps) / square - eps))
    else:
        gain = ((variance + eps * square) / (variance + eps)).sqrt()
        new += [
            (norm.running_var, variance / square),
            (norm.weight, norm.weight.double() * gain),
        ]
    return [(old, values.to(old.dtype)) for old, values in new]


def _divided(values: Float[Tensor, "c ..."], ratio: Float[Tensor, " c"]) -> Tensor:
    return values.double() / ratio.view(-1, *[1] * (values.ndim - 1))
