"""Scales: what the motifs of a parameter are multiplied by, whole or channel by channel.

A parameter of n weights has c scales: one, or one for each output channel (slice along the first
dimension, or the one that its placement names). Weight number i is multiplied by scale number
⌊i / d⌋ mod c, where d is the number of weights behind one index of that dimension.
"""

import math

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from momos.blocks import Layout, Placement
from momos.config import Scales


def num_scales(kind: Scales, shape: tuple[int, ...], axis: int = 0) -> int:
    """How many scales a tensor has; one of a single dimension has no channels, so one."""
    return shape[axis] if kind == "channel" and len(shape) > 1 else int(kind != "none")


def spread(
    scale: Float32[Tensor, " c"], place: Placement, start: int, stop: int
) -> Float32[Tensor, " n"]:
    """The scales of the weights `start` to `stop` of a tensor; one value where there is one."""
    if len(scale) == 1:
        return scale
    if place.axis:
        return scale[channels_of(place, start, stop).to(scale.device)]
    first, last, counts = _channels_between(len(scale), place.num_weights, start, stop)
    return scale[first:last].repeat_interleave(counts.to(scale.device))


def channels_of(place: Placement, start: int, stop: int) -> Int64[Tensor, " n"]:
    """The output channel of each of the weights `start` to `stop` of a tensor."""
    if place.axis:
        inner = math.prod(place.shape[place.axis + 1 :])
        number = torch.arange(start, stop, device="cpu").div_(inner, rounding_mode="floor")
        return number.remainder_(place.shape[place.axis])
    first, last, counts = _channels_between(place.shape[0], place.num_weights, start, stop)
    return torch.arange(first, last, device="cpu").repeat_interleave(counts)


def _channels_between(
    num_channels: int, num_weights: int, start: int, stop: int
) -> tuple[int, int, Tensor]:
    """First and last channel (exclusive) of a range of weights, and how many it has of each."""
    size = num_weights // num_channels
    first, last = start // size, -(-stop // size)
    edges = (torch.arange(first, last + 1, device="cpu") * size).clamp(start, stop)
    return first, last, edges.diff()


def rounded_roots(mean_squares: Float64[Tensor, " c"]) -> Float32[Tensor, " c"]:
    """Root mean squares as scales: bfloat16 numbers, and 1 where that is no normal one."""
    scales = mean_squares.sqrt().bfloat16().float()
    normal = torch.isfinite(scales) & (scales >= torch.finfo(torch.float32).tiny)
    return torch.where(normal, scales, 1.0)


def check_scales(scales: tuple[Tensor, ...], layout: Layout) -> tuple[Tensor, ...]:
    """Copies of `scales`, if they are those of the parameters of `layout`.

    Raises:
        TypeError: if they are no tuple.
        ValueError: if their number, shapes or values are wrong; names the parameter.
    """
    if not isinstance(scales, tuple):
        raise TypeError(
            "scales must be a tuple of tensors, one for each parameter, got "
            f"{type(scales).__name__}"
        )
    if len(scales) != len(layout.placements):
        raise ValueError(
            f"scales must be {len(layout.placements)} tensors, one for each parameter, got "
            f"{len(scales)}"
        )
    for place, scale in zip(layout.placements, scales, strict=True):
        _check_scale(scale, place)
    return tuple(scale.detach().clone() for scale in scales)


def _check_scale(scale: Tensor, place: Placement) -> None:
    counts = {1, *(n for n in place.shape[place.axis : place.axis + 1] if n)}
    if scale.dtype != torch.float32 or scale.ndim != 1 or len(scale) not in counts:
        allowed = " or ".join(map(str, sorted(counts)))
        raise ValueError(
            f"scales of parameter {place.name!r} must be {allowed} float32 values, got "
            f"{scale.dtype} of shape {tuple(scale.shape)}"
        )
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ValueError(
            f"scales must be finite and above 0, got others for parameter {place.name!r}"
        )
