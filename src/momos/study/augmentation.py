"""Random crops and flips of whole batches."""

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import pad

PADDING = 4


def crop_and_flip(
    pixels: UInt8[Tensor, "n c h w"], *, generator: torch.Generator
) -> UInt8[Tensor, "n c h w"]:
    """Each image moved by up to 4 pixels, black moving in, and half of them mirrored."""
    total, _, height, width = pixels.shape
    down, right = torch.randint(2 * PADDING + 1, (2, total, 1), generator=generator)
    mirrored = torch.rand(total, 1, generator=generator) < 0.5
    rows = torch.arange(height) + down  # n h
    columns = torch.arange(width).expand(total, -1)
    columns = torch.where(mirrored, columns.flip(1), columns) + right  # n w
    padded = pad(pixels, (PADDING,) * 4)
    each = torch.arange(total)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None]].permute(
        0, 3, 1, 2
    )
