"""Rounds weights to whole motifs: the whole numbers, in the order 0, -1, 1, -2, 2, ..."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from momos.learning import _slopes as native
from momos.stored import spread

if TYPE_CHECKING:
    from momos.learning.bank import Bank


def whole_indices(
    blocks: Float[Tensor, "m 1"], num_motifs: int, threshold: float = 0.5
) -> Int32[Tensor, " m"]:
    """Each block's nearest among the first whole numbers; of two as near, the one nearer to 0.

    Blocks of a magnitude up to `threshold` become 0, and others never do. `num_motifs` is odd.
    """
    flat = blocks[:, 0]
    size = flat.abs()
    number = (size - 0.5).ceil_()
    if threshold > 0.5:
        number.mul_((size > threshold).to(number.dtype))
    elif threshold < 0.5:
        number = torch.maximum(number, (size > threshold).to(number.dtype))
    place = number.clamp_(max=num_motifs // 2).mul_(2)  # 2v, or -2v - 1 below 0
    return place.sub_((flat < 0).to(place.dtype)).clamp_(min=0).int()


def round_(
    latent: Tensor,
    scale: Float32[Tensor, " n"],
    indices: Int32[Tensor, " n"],
    value: Tensor,
    *,
    num_motifs: int,
    threshold: float,
) -> int:
    """Fills `indices` and `value` by rounding `latent` to multiples of `scale` (one, or one each).

    Returns how many indices changed. All float32 on the CPU and contiguous, it is one pass of
    compiled code; `whole_indices` and a product are its definition.
    """
    tensors = (latent, indices, value)
    on_cpu = all(t.device.type == "cpu" and t.is_contiguous() for t in tensors)
    if on_cpu and len(scale) == 1 and latent.dtype == value.dtype == torch.float32:
        return native.round(
            latent.detach().reshape(-1).numpy(),
            indices.numpy(),
            value.view(-1).numpy(),
            num_motifs,
            float(scale),
            threshold,
        )
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    scaled = latent.detach().reshape(-1).to(wide) / scale.to(wide)
    found = whole_indices(scaled[:, None], num_motifs, threshold)
    changed = int((found != indices).sum())
    indices.copy_(found)
    number = torch.where(found % 2 == 1, -(found + 1) // 2, found // 2).to(wide)
    value.copy_((number * scale.to(wide)).to(value.dtype).view(value.shape))
    return changed


def round_tiles_(bank: "Bank", scales: tuple[Float32[Tensor, " c"], ...]) -> int:
    """Rounds all latent weights of a bank by these scales; how many indices changed."""
    changed = 0
    for tile, scale in zip(bank.tiles, scales, strict=True):
        place = tile.place
        changed += round_(
            tile.latent,
            spread(scale, place, 0, place.num_weights),
            bank.indices[place.start : place.stop],
            tile.value,
            num_motifs=len(bank.motifs),
            threshold=float(bank.threshold),
        )
    return changed


def stretched(bank: "Bank") -> tuple[Float32[Tensor, " c"], ...]:
    """The scales of all parameters of a bank as its `stretch` says, as a file holds them.

    Raises:
        ValueError: if one is not a normal bfloat16 number (names the parameter).
    """
    scales = (bank.base * bank.stretch.detach().exp()).bfloat16().float()
    normal = torch.isfinite(scales) & (scales >= torch.finfo(torch.float32).tiny)
    for name, (start, stop) in bank._spans.items():
        if not bool(normal[start:stop].all()):
            raise ValueError(
                f"scales must be finite and above 0, but training moved one of parameter "
                f"{name!r} to {float(scales[start:stop][~normal[start:stop]][0])}"
            )
    return tuple(scales[start:stop] for start, stop in bank._spans.values())
