"""Sums of float64 whose result does not depend on the order of the values.

Each value is rounded to a multiple of a power of two, so large that sums of these are exact, and
what is left is rounded and summed in the same way (Demmel and Nguyen 2015, with two levels). So
any order, any number of threads and any number of processes gives the same bits.
"""

from dataclasses import dataclass
from math import frexp, ldexp

from jaxtyping import Float, Float64
from torch import Tensor

DIGITS = 53  # of float64
LEAST = -1074  # exponent of the smallest float64 above zero


@dataclass(frozen=True)
class Grid:
    """The powers of two to which values are rounded, as the numbers that do it when added.

    Example:
        >>> grid = Grid.of(bound=8.0, count=1000)
        >>> values = torch.randn(1000, dtype=torch.float64)
        >>> high, low = grid.split(values)
        >>> bool(high.sum() == high.flip(0).sum()), bool(low.sum() == low.flip(0).sum())
        (True, True)
    """

    coarse: float
    fine: float

    @classmethod
    def of(cls, bound: float, count: int) -> "Grid":
        """The grid for sums of at most `count` values of at most `bound` in magnitude.

        Where such a sum might overflow, values are not rounded: it depends on the order.
        """
        spare = count.bit_length()
        top = frexp(bound)[1] + spare
        if top > 1022:
            return cls(0.0, 0.0)
        step = max(LEAST, top + 1 - DIGITS)
        below = max(LEAST, step - 1 + spare + 1 - DIGITS)
        return cls(ldexp(1.5, step + DIGITS - 1), ldexp(1.5, below + DIGITS - 1))

    def split(
        self, values: Float[Tensor, "*n"]
    ) -> tuple[Float64[Tensor, "*n"], Float64[Tensor, "*n"]]:
        """Two terms of each value, each of which may be summed in any order."""
        wide = values.double()
        high = (wide + self.coarse) - self.coarse
        low = ((wide - high) + self.fine) - self.fine
        return high, low
