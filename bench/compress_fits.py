"""Curves through measured points, to compare methods at equal quality or equal size.

A measured divergence moves by a third with how rounding happens to fall, so a line from point to
point would compare chance. `bytes_at` fits a parabola instead.
"""

import math
from collections.abc import Sequence

import numpy as np

WINDOW = 40.0  # points whose quality is within this factor of the wanted one are fitted


def bytes_at(
    num_bytes: Sequence[float], values: Sequence[float], wanted: float
) -> tuple[float, float] | None:
    """Bytes at which a falling quantity, such as divergence, is `wanted`, and their relative error.

    By a least-squares parabola of log(value) over log(bytes), or a line below five points; only
    points within a factor of `WINDOW` of `wanted` count. None where they do not enclose it, or are
    fewer than three. The error is the fit's standard error, from its residuals.
    """
    pairs = zip(num_bytes, values, strict=True)
    near = [
        (b, v) for b, v in pairs if v > 0 and abs(math.log(v / wanted)) < math.log(WINDOW)
    ]
    if len(near) < 3:
        return None
    x, y = np.log(np.array(near)).T
    centre, target = x.mean(), math.log(wanted)
    degree = 2 if len(x) >= 5 else 1
    powers = np.vander(x - centre, degree + 1)
    factors = np.linalg.lstsq(powers, y, rcond=None)[0]
    grid = np.linspace(x.min(), x.max(), 4001)
    line = np.polyval(factors, grid - centre)
    if not min(line[0], line[-1]) <= target <= max(line[0], line[-1]):
        return None
    at = grid[np.abs(line - target).argmin()]
    left = y - powers @ factors
    variance = left @ left / max(1, len(x) - degree - 1)
    row = np.vander([at - centre], degree + 1)[0]
    spread = math.sqrt(variance * (row @ np.linalg.solve(powers.T @ powers, row)))
    slope = abs(np.polyval(np.polyder(factors), at - centre))
    return math.exp(at), float(spread / max(slope, 1e-9))


def never_falling(values: Sequence[float]) -> list[float]:
    """The nearest sequence, by squares, that never falls (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (b, m), (a, n) = pools.pop(), pools.pop()
            pools.append(((a * n + b * m) / (n + m), n + m))
    return [value for value, count in pools for _ in range(count)]


def value_at(
    num_bytes: Sequence[float], values: Sequence[float], wanted: float
) -> float | None:
    """A quantity that grows with bytes, such as accuracy, at `wanted` bytes.

    Points are made `never_falling`, then joined by lines over log(bytes). None outside of them.
    """
    x, y = _growing(num_bytes, values)
    if not x or not x[0] <= math.log(wanted) <= x[-1]:
        return None
    return float(np.interp(math.log(wanted), x, y))


def bytes_for(
    num_bytes: Sequence[float], values: Sequence[float], wanted: float
) -> float | None:
    """The fewest bytes at which `value_at` reaches `wanted`; None if all points do, or none."""
    x, y = _growing(num_bytes, values)
    if not y or not y[0] < wanted <= y[-1]:
        return None
    i = int(np.searchsorted(y, wanted))
    share = (wanted - y[i - 1]) / (y[i] - y[i - 1])
    return math.exp(x[i - 1] + share * (x[i] - x[i - 1]))


def _growing(
    num_bytes: Sequence[float], values: Sequence[float]
) -> tuple[list[float], list[float]]:
    pairs = sorted(zip(num_bytes, values, strict=True))
    return [math.log(b) for b, _ in pairs], never_falling([v for _, v in pairs])
