"""The step of a lattice for a file of a wanted size."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from momos.compression.dense import Config
from momos.config import LatticeConfig, MosaicConfig, check_whole
from momos.files.contents import Contents
from momos.files.saving import save_contents
from momos.sources import Source

TRIALS = 8
FINEST, COARSEST = 2.0**-12, 2.0**4
ENOUGH = 0.99  # of the target; no more trials are made above it


def check_target(
    config: Config, target_bytes: int | None, target_factor: float | None
) -> None:
    """Refuses targets that no step can be chosen for.

    Raises:
        ValueError: if both are given, one is out of range, or `config` has no step.
    """
    if target_bytes is None and target_factor is None:
        return
    if target_bytes is not None and target_factor is not None:
        raise ValueError(
            f"one of target_bytes and target_factor must be given, got both: "
            f"{target_bytes} and {target_factor}"
        )
    if target_bytes is not None:
        check_whole("target_bytes", target_bytes, least=1)
    if isinstance(target_factor, bool) or not isinstance(target_factor, int | float | None):
        raise TypeError(f"target_factor must be a number, got {target_factor!r}")
    if target_factor is not None and not 0 < target_factor < math.inf:
        raise ValueError(f"target_factor must be above 0 and finite, got {target_factor}")
    if isinstance(config, MosaicConfig):
        raise ValueError("a target must be given with a LatticeConfig, got a MosaicConfig")


def target_size(
    source: Source, target_bytes: int | None, target_factor: float | None
) -> int | None:
    """The most bytes that the file may have, if any target is given."""
    if target_factor is None:
        return target_bytes
    return int(source.num_bytes / target_factor)


def written_size(contents: Contents) -> int:
    """The bytes of the file that holds `contents`."""
    with tempfile.TemporaryDirectory(prefix="momos-") as folder:
        return save_contents(contents, Path(folder) / "trial.momos").num_bytes


def reaching(
    config: LatticeConfig, target: int | None, size: Callable[[LatticeConfig], int]
) -> LatticeConfig:
    """`config` with the finest step found for which `size` is at most `target`.

    The size falls with the step, by about as many bits as there are weights whenever the step
    doubles, so a straight line through the last sizes says what to try next.

    Raises:
        ValueError: if the size is larger even with the coarsest step; names the least one.
    """
    if target is None:
        return config
    large, small = _ends(config, target, size)
    for _ in range(TRIALS - 2):
        if large is None or ENOUGH * target <= small[1]:
            break
        step = _between(large, small, target)
        found = size(replace(config, step=step))
        if found <= target:
            small = step, found
        else:
            large = step, found
    return replace(config, step=small[0])


def _ends(
    config: LatticeConfig, target: int, size: Callable[[LatticeConfig], int]
) -> tuple[tuple[float, int] | None, tuple[float, int]]:
    """Steps and their sizes on either side of `target`; the first None if it is never reached."""
    step, large = config.step, None
    found = size(config)
    while found > target:
        if step >= COARSEST:
            raise ValueError(
                f"the target must be at least {found:,} bytes, which remain with the coarsest "
                f"step, got {target:,}"
            )
        large, step = (step, found), min(COARSEST, 4 * step)
        found = size(replace(config, step=step))
    small = step, found
    while large is None and step > FINEST:
        step = max(FINEST, step / 4)
        found = size(replace(config, step=step))
        if found > target:
            large = step, found
        else:
            small = step, found
    return large, small


def _between(large: tuple[float, int], small: tuple[float, int], target: int) -> float:
    """A step between two, where a straight line over its logarithm is at the target."""
    aimed = target * (1 + ENOUGH) / 2
    share = (large[1] - aimed) / (large[1] - small[1])
    share = min(0.95, max(0.05, share))
    return large[0] * (small[0] / large[0]) ** share
