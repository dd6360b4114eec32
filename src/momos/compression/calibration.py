"""Importance of each weight's error, from the sensitivity of the loss to it."""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from momos.blocks import Placement
from momos.compression.dense import Config
from momos.compression.weights import Weights
from momos.config import LatticeConfig
from momos.stored import spread

EXPONENT = 0.5
LEAST = 0.05


def check_calibration(
    source: object, config: Config, calibration: object, loss: object
) -> None:
    """Refuses a calibration that rounding cannot use.

    Raises:
        TypeError: if `loss` is not a function.
        ValueError: if it or the calibration is given alone, the source has no gradients, or
            `config` does not round weight by weight.
    """
    if calibration is None:
        if loss is not None:
            raise ValueError("loss must be given with calibration, got it alone")
        return
    if loss is None:
        raise ValueError(
            "loss must be given with calibration: loss(batch) runs the Module, got none"
        )
    if not callable(loss):
        raise TypeError(f"loss must be a function, got {loss!r}")
    if not isinstance(source, nn.Module):
        raise ValueError(
            "calibration must be given with a Module as the source, got a path"
        )
    if not isinstance(config, LatticeConfig):
        raise ValueError(
            "calibration must be given with a LatticeConfig, got a MosaicConfig"
        )
    if config.block_size != 1 or not config.rate_weight:
        raise ValueError(
            "calibration must be given with a block_size of 1 and a rate_weight above 0, got "
            f"{config.block_size} and {config.rate_weight:g}"
        )


def importance_of(
    weights: Weights, sensitivities: Mapping[str, Tensor] | None
) -> dict[str, Float32[Tensor, " n"]]:
    """Importance of the squared error, in steps, of each weight, by tensor.

    Its mean over the network is 1, so that a rate weight means the same with and without. A
    tensor that has no sensitivities (a buffer, or frozen) has importance 1.

    Raises:
        ValueError: if sensitivities are not finite, or all are 0.
    """
    if sensitivities is None:
        return {}
    raw = {
        place.name: flat.pow_(EXPONENT) for place, flat in _in_steps(weights, sensitivities)
    }
    total = sum(float(flat.double().sum()) for flat in raw.values())
    if not total > 0:
        raise ValueError(
            "the loss must depend on the weights to be rounded, got gradients of 0 for all"
        )
    mean = total / sum(flat.numel() for flat in raw.values())
    return {name: flat.div_(mean).clamp_(min=LEAST) for name, flat in raw.items()}


def _in_steps(
    weights: Weights, sensitivities: Mapping[str, Tensor]
) -> Iterator[tuple[Placement, Float32[Tensor, " n"]]]:
    """The sensitivity of the loss to each weight in units of its step."""
    for number, place in enumerate(weights.layout.placements):
        if place.name not in sensitivities:
            continue
        flat = sensitivities[place.name].detach().cpu().float().reshape(-1).clone()
        if not bool(torch.isfinite(flat).all()):
            raise ValueError(
                f"squared gradients must be finite, got others for tensor {place.name!r}"
            )
        if weights.scales is not None:
            scale = weights.scales[number]
            flat.mul_(spread(scale, place, 0, place.num_weights).square())
        yield place, flat
