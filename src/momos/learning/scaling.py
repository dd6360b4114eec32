"""The scales of a network's weights, and its blocks relative to them."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from momos.blocks import Layout
from momos.config import Scales
from momos.stored import num_scales, rounded_roots, spread


def scales_of(
    weights: list[Tensor], kind: Scales
) -> tuple[Float32[Tensor, " c"], ...] | None:
    """The root mean square of each tensor, or of each of its output channels; None if "none"."""
    if kind == "none":
        return None
    squares = (weight.detach().double().square() for weight in weights)
    return tuple(
        rounded_roots(square.reshape(num_scales(kind, tuple(square.shape)), -1).mean(1))
        for square in squares
    )


def scaled_blocks(
    layout: Layout,
    weights: list[Tensor],
    scales: tuple[Float32[Tensor, " c"], ...] | None,
    dtype: torch.dtype,
) -> Float[Tensor, "m s"]:
    """The blocks of `weights`, divided by their scales."""
    size = layout.block_size
    blocks = weights[0].new_empty(layout.num_blocks, size, dtype=dtype)
    for number, (place, weight) in enumerate(zip(layout.placements, weights, strict=True)):
        own, count = blocks[place.start : place.stop].view(-1), place.num_weights
        flat = weight.detach().reshape(-1)
        if scales is None:
            own[:count] = flat
        else:
            scale = spread(scales[number], place, 0, count).to(dtype)
            torch.div(flat.to(dtype), scale, out=own[:count])
        own[count:] = 0
    return blocks


def check_finite(layout: Layout, weights: list[Tensor]) -> None:
    """Refuses weights that are NaN or infinite, and names the first parameter with any."""
    for place, weight in zip(layout.placements, weights, strict=True):
        if count := int((~torch.isfinite(weight)).sum()):
            raise ValueError(
                f"weights must be finite, got {count} of {weight.numel()} NaN or infinite in "
                f"parameter {place.name!r}"
            )
