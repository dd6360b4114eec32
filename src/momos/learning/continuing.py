"""Where learning goes on: from the mosaic that a network is, as loaded from a file or frozen before."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor, nn

from momos.blocks import Layout
from momos.config import MosaicConfig
from momos.learning.fitting import Fitting
from momos.learning.scaling import scales_of
from momos.mosaic import Mosaic, remembered


@dataclass(frozen=True, eq=False)
class Start:
    """Motifs, indices and scales that a bank begins with, and the step of its grid if known."""

    motifs: Float[Tensor, "k s"]
    indices: Int32[Tensor, " m"]
    scales: tuple[Float32[Tensor, " c"], ...] | None
    step: Float32[Tensor, ""] | None = None


def mosaic_to_continue(
    model: nn.Module, layout: Layout, config: MosaicConfig
) -> Mosaic | None:
    """The mosaic that `model` is, if it was made by `config`."""
    if not remembered(model):
        return None
    try:
        mosaic = Mosaic.of(model)
    except ValueError:  # it has changed since
        return None
    return mosaic if (mosaic.config, mosaic.layout) == (config, layout) else None


def continued(mosaic: Mosaic, fitting: Fitting, weights: list[Tensor]) -> Start | None:
    """What a bank that is `mosaic`, bit for bit, begins with; None if there is no such bank."""
    config, device = fitting.config, weights[0].device
    placed = _placed(mosaic, fitting, device)
    if placed is None:
        return None
    motifs, indices = placed
    wide = torch.float64 if fitting.layout.dtype == torch.float64 else torch.float32
    scales, step = mosaic.scales, None
    if scales is not None:
        scales = tuple(scale.to(device) for scale in scales)
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
    """Motifs and indices of a mosaic in the rows of a bank, a zero motif first in its group."""
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


def _parted(
    products: tuple[Float32[Tensor, " c"], ...],
    scales: tuple[Float32[Tensor, " c"], ...] | None,
) -> tuple[Float32[Tensor, ""] | None, tuple[Float32[Tensor, " c"], ...] | None]:
    """Step and scales whose products a mosaic has, scales being about those of its weights.

    Both are bfloat16 numbers, so that almost always few pairs have just these products.
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
