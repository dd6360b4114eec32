"""Scales: what the motifs of a parameter are multiplied by, whole or channel by channel.

A parameter of n weights has c scales: one, or one for each output channel (slice along the first
dimension). Weight number i is multiplied by scale number i // (n / c).
"""

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from momos.blocks import Layout, Placement
from momos.config import Scales


def num_scales(kind: Scales, shape: tuple[int, ...]) -> int:
    """How many scales a tensor has; one of a single dimension has no channels, so one."""
    return shape[0] if kind == "channel" and len(shape) > 1 else int(kind != "none")


def spread(
    scale: Float32[Tensor, " c"], num_weights: int, start: int, stop: int
) -> Float32[Tensor, " n"]:
    """The scales of the weights `start` to `stop` of a tensor; one value where there is one."""
    if len(scale) == 1:
        return scale
    first, last, counts = channels_between(len(scale), num_weights, start, stop)
    return scale[first:last].repeat_interleave(counts.to(scale.device))


def channels_between(
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
    counts = {1, *(n for n in place.shape[:1] if n)}
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
