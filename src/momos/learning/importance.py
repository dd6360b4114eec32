"""How much errors matter: in one weight more than in another, or in one tensor than in another."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from momos.blocks import Layout, Placement
from momos.stored import spread

LEAST = 1e-6  # the least importance of a tensor, so that none is given up altogether


@dataclass(frozen=True, eq=False)
class Importance:
    """Weights of the squared errors of scaled blocks.

    Where every weight of a tensor matters alike, `by_tensor` says all; else `by_weight` has a
    number for each. The weights of the whole network have the geometric mean 1, tensor by
    tensor, so that a rate weight means the same with importance and without.
    """

    by_tensor: dict[str, float]
    by_weight: Float32[Tensor, "m s"] | None = None

    @classmethod
    def of(
        cls,
        layout: Layout,
        given: Mapping[str, Tensor | float],
        scales: tuple[Float32[Tensor, " c"], ...] | None,
        *,
        device: torch.device | str = "cpu",
    ) -> "Importance":
        """The importance `given` by name, of the unscaled weights: a number, or one for each.

        It is on the `device` of the scales, wherever the numbers are from.

        Raises:
            ValueError: if a parameter of the layout has none, or it does not fit its shape, is
                negative or not finite.
        """
        flat = {
            place.name: _flat(
                place, given, None if scales is None else scales[number], device
            )
            for number, place in enumerate(layout.placements)
        }
        means = {
            place.name: max(float(flat[place.name].double().mean()), 0.0)
            for place in layout.placements
        }
        largest = max(means.values())
        if largest <= 0:
            raise ValueError("importance must be above 0 somewhere, got 0 everywhere")
        means = {name: max(mean, LEAST * largest) for name, mean in means.items()}
        total = sum(p.num_weights * math.log(means[p.name]) for p in layout.placements)
        middle = math.exp(total / layout.num_weights)
        by_tensor = {name: mean / middle for name, mean in means.items()}
        if all(len(values) == 1 for values in flat.values()):
            return cls(by_tensor)
        rows = [_rows(layout, p, flat[p.name] / middle) for p in layout.placements]
        return cls(by_tensor, torch.cat(rows))


def _flat(
    place: Placement,
    given: Mapping[str, Tensor | float],
    scale: Tensor | None,
    device: torch.device | str,
) -> Float32[Tensor, " n"]:
    if place.name not in given:
        raise ValueError(f"importance must have parameter {place.name!r}, got none")
    values = torch.as_tensor(given[place.name]).detach().to(device, torch.float32)
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(
            f"importance of parameter {place.name!r} must be finite and at least 0"
        )
    if values.numel() == 1 and (scale is None or len(scale) == 1):
        return values.reshape(1) if scale is None else values.reshape(1) * scale.square()
    try:
        values = values.broadcast_to(place.shape).reshape(-1)
    except RuntimeError:
        raise ValueError(
            f"importance of parameter {place.name!r} must broadcast to {place.shape}, got "
            f"shape {tuple(values.shape)}"
        ) from None
    if scale is None:
        return values
    return values * spread(scale, place, 0, place.num_weights).square()


def _rows(layout: Layout, place: Placement, values: Tensor) -> Tensor:
    values = values.expand(place.num_weights) if len(values) == 1 else values
    padding = place.num_blocks * layout.block_size - place.num_weights
    return nn.functional.pad(values, (0, padding)).view(-1, layout.block_size)
