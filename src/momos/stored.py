"""Stored motifs: the scales that they are multiplied by, and their rounding to few bits.

A parameter of n weights has c scales: one, or one for each output channel (slice along the first
dimension, or the one that its placement names). Weight number i is multiplied by scale number
⌊i / d⌋ mod c, where d is the number of weights for one index of that dimension. Motifs are stored
as they are, as float16, or as whole numbers times one step.
"""

import math

import torch
from jaxtyping import Float, Float32, Float64, Int, Int64
from torch import Tensor

from momos.blocks import Layout, Placement
from momos.config import Scales

SHRINK = tuple(
    1 - 0.05 * i for i in range(19)
)  # steps tried, times the one nothing clips at
TOGETHER = 1 << 20  # values, with which as many of them are tried at once


def num_scales(kind: Scales, shape: tuple[int, ...], axis: int = 0) -> int:
    """How many scales a tensor has; a vector has no channels, so one."""
    return shape[axis] if kind == "channel" and len(shape) > 1 else int(kind != "none")


def spread(
    scale: Float32[Tensor, " c"], place: Placement, start: int, stop: int
) -> Float32[Tensor, " n"]:
    """The scales of the weights `start` to `stop` of a tensor; a single value if it has one scale."""
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
    """Root mean squares as scales: bfloat16 numbers, or 1 where that would not be a normal number."""
    scales = mean_squares.sqrt().bfloat16().float()
    normal = torch.isfinite(scales) & (scales >= torch.finfo(torch.float32).tiny)
    return torch.where(normal, scales, 1.0)


def check_scales(scales: tuple[Tensor, ...], layout: Layout) -> tuple[Tensor, ...]:
    """Copies of `scales`, checked against the parameters of `layout`.

    Raises:
        TypeError: if they are not a tuple.
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


def stored_dtype(bits: int, wide: torch.dtype) -> torch.dtype:
    """The dtype that motifs of `bits` bits are stored in, `wide` being their own."""
    if bits == 32:
        return wide
    return torch.float16 if bits == 16 else torch.int8


def grid_step(
    motifs: Float[Tensor, "k s"], usage: Int[Tensor, " k"], bits: int
) -> Float[Tensor, ""]:
    """The step at which rounding to −(2^(bits−1)−1) … 2^(bits−1)−1 steps has the least error.

    Squared errors are weighted by usage. The step is a bfloat16 number.

    Raises:
        ValueError: if float32 has no normal number for such a step.
    """
    most = 2 ** (bits - 1) - 1
    largest = motifs.abs().max()
    if not bool(largest > 0):
        return torch.ones((), dtype=motifs.dtype, device=motifs.device)
    # Rounded up, so that without shrinking nothing is clipped.
    steps = [(largest * shrink / most * (1 + 2**-8)).bfloat16() for shrink in SHRINK]
    if not bool(torch.isfinite(steps[0])) or steps[-1] < torch.finfo(torch.float32).tiny:
        raise ValueError(
            f"motifs of {bits} bits must be multiples of a float32 number, got motifs up to "
            f"{float(largest)}"
        )
    tried = torch.stack(steps).to(motifs.dtype)
    together = max(1, TOGETHER // motifs.numel())
    errors = [_errors(motifs, usage, some, bits) for some in tried.split(together)]
    return tried[torch.cat(errors).argmin()]


def whole_steps(
    motifs: Float[Tensor, "k s"], step: Float[Tensor, ""], bits: int
) -> Float[Tensor, "k s"]:
    """`motifs` in steps, rounded to whole numbers (halves to even; no −0) and clipped."""
    most = 2 ** (bits - 1) - 1
    return (motifs / step).round().clamp(-most, most) + 0.0


def _errors(motifs: Tensor, usage: Tensor, steps: Tensor, bits: int) -> Tensor:
    steps = steps[:, None, None]
    rounded = whole_steps(motifs, steps, bits) * steps
    errors = (rounded - motifs).double().square().sum(2)
    return (errors * usage).sum(1)
