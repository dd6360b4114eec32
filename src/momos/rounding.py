"""Motifs as they are stored: as they are, as float16, or as whole numbers times one step."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

SHRINK = tuple(
    1 - 0.05 * i for i in range(19)
)  # steps tried, times the one nothing clips at
TOGETHER = 1 << 20  # values, with which as many of them are tried at once


def stored_dtype(bits: int, wide: torch.dtype) -> torch.dtype:
    """The dtype that motifs of `bits` bits are stored in, `wide` being their own."""
    if bits == 32:
        return wide
    return torch.float16 if bits == 16 else torch.int8


def grid_step(
    motifs: Float[Tensor, "k s"], usage: Int[Tensor, " k"], bits: int
) -> Float[Tensor, ""]:
    """The step at which rounding to −(2^(bits−1)−1) … 2^(bits−1)−1 steps loses least.

    Squared errors are weighed by usage. The step is a bfloat16 number.

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
