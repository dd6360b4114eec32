"""Controls of a measure: shuffles of the same weights, the initialization, symmetries."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True)
class Control:
    """A measure of some tensors against the same measure of their shuffles.

    `deviation` is that of a sample (over repeats - 1). `z` is (value - mean) / deviation; if
    all shuffles measure the same, it is 0 if the value is the same too, else an infinity.

    Example:
        >>> row = momos.measure(torch.randn(64, 64), measures="signs, order 4", controls=3).rows[0]
        >>> row.control.repeats, row.control.value == row.value
        (3, True)
    """

    mean: float
    deviation: float
    z: float
    repeats: int
    value: float

    @classmethod
    def of(cls, value: float, shuffles: Sequence[float]) -> "Control":
        """`value` against the measures of the shuffles.

        Raises:
            ValueError: if there are fewer than 2, or a number is not finite.
        """
        if len(shuffles) < 2:
            raise ValueError(f"shuffles must be at least 2, got {len(shuffles)}")
        # Both are worked out in exact fractions: equal controls have no deviation at all.
        measured = [_finite(number) for number in shuffles]
        mean, deviation = statistics.mean(measured), statistics.stdev(measured)
        excess = _finite(value) - mean
        if deviation > 0:
            z = excess / deviation
        else:
            z = math.copysign(math.inf, excess) if excess else 0.0
        return cls(mean, deviation, z, len(shuffles), float(value))

    @property
    def structure(self) -> float:
        """How much the arrangement saves: mean of the shuffles minus the value."""
        return self.mean - self.value


@dataclass(frozen=True)
class Factors:
    """trained / initial = `arrangement` · `value_distribution`.

    `arrangement` is trained / shuffled trained, `value_distribution` shuffled trained / initial:
    what the order of the values adds, and what the values alone do.

    Example:
        >>> split = momos.complexity.factors(90.0, shuffled_mean=100.0, init_value=120.0)
        >>> split.arrangement, round(split.value_distribution, 3), split.ratio
        (0.9, 0.833, 0.75)
    """

    arrangement: float
    value_distribution: float
    ratio: float


def shuffled(weight: Tensor, generator: torch.Generator) -> Shaped[Tensor, "..."]:
    """The same values in uniformly random places; drawn on the device of the generator.

    Example:
        >>> weight = torch.arange(6.0).view(2, 3)
        >>> other = momos.complexity.shuffled(weight, torch.Generator().manual_seed(0))
        >>> other.shape, other.flatten().sort().values
        (torch.Size([2, 3]), tensor([0., 1., 2., 3., 4., 5.]))
    """
    flat = weight.detach().reshape(-1)
    order = torch.randperm(
        len(flat),
        generator=generator,
        device=generator.device,
        # Half the memory traffic, and faster by a quarter.
        dtype=torch.int32 if len(flat) < 2**31 else torch.int64,
    )
    return flat.index_select(0, order.to(flat.device)).view(weight.shape)


def factors(value: float, *, shuffled_mean: float, init_value: float) -> Factors:
    """`value` against `init_value`, split at the mean of the shuffles of what has `value`.

    Raises:
        ValueError: if a number is negative or not finite, or one to divide by is 0.

    Example:
        >>> momos.complexity.factors(50.0, shuffled_mean=100.0, init_value=100.0)
        Factors(arrangement=0.5, value_distribution=1.0, ratio=0.5)
    """
    for name, number, least in (
        ("value", value, "at least"),
        ("shuffled_mean", shuffled_mean, "above"),
        ("init_value", init_value, "above"),
    ):
        if not math.isfinite(number) or number < 0 or (least == "above" and not number):
            raise ValueError(f"{name} must be finite and {least} 0, got {number}")
    return Factors(
        arrangement=value / shuffled_mean,
        value_distribution=shuffled_mean / init_value,
        ratio=value / init_value,
    )


def symmetry_slack(hidden_widths: Sequence[int]) -> float:
    """Bits by which a code of one network exceeds a code of its function: sum of log2(h!).

    The h units of a hidden layer can stand in h! orders, all of one function.

    Raises:
        ValueError: if a width is below 1.

    Example:
        >>> round(momos.complexity.symmetry_slack([4]), 3)  # log2(4!)
        4.585
    """
    for width in hidden_widths:
        if width < 1:
            raise ValueError(f"hidden widths must be at least 1, got {width}")
    return math.fsum(math.lgamma(width + 1) for width in hidden_widths) / math.log(2)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"measure must give a finite number, got {number}")
    return float(number)
