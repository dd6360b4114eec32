"""Searches the step of a `LatticeConfig`: for a file of a given size, or by a metric of the user's.

The metric may be noisy and not quite monotone: only a step that was itself evaluated, and kept the
metric high enough, is ever chosen.
"""

import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from momos._util.atomic import replacing
from momos._util.work import Progress
from momos.checkpoints.dense import Config
from momos.checkpoints.source import Source
from momos.config import LatticeConfig, MosaicConfig, check_whole
from momos.files.contents import Contents
from momos.files.report import SaveReport
from momos.files.writer import write

TRIALS = 8
FINEST, COARSEST = 2.0**-12, 2.0**4
ENOUGH = 0.99  # share of the target above which no more trials are made
EVALUATIONS = 12  # at most, including that of the dense weights
NEAR = 0.99  # share of the smallest file above which no step in between is tried
NAMED = 3  # tensors named in an error


def check_target(
    config: Config, target_bytes: int | None, target_factor: float | None
) -> None:
    """Refuses targets for which no step can be chosen.

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
    return int(min(source.num_bytes / target_factor, 2**62))


class _Unwritten(Exception):
    """Ends an attempt to write a file before it replaces another."""


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuses a path that cannot be written, before long work.

    Raises:
        OSError: if it cannot.
    """
    with suppress(_Unwritten), replacing(path):
        raise _Unwritten


def written_size(contents: Contents, path: str | os.PathLike[str]) -> int:
    """The bytes of the file that would hold `contents`, tried in the folder of `path`."""
    size = 0
    with torch.device("cpu"), suppress(_Unwritten), replacing(path) as file:
        write(file, contents)
        size = file.seek(0, os.SEEK_END)
        raise _Unwritten
    return size


def reaching(
    config: LatticeConfig,
    target: int,
    size: Callable[[LatticeConfig], int],
    dense_bytes: int,
) -> LatticeConfig:
    """`config` with the finest step found for which `size` is at most `target`.

    The size falls with the step, by about as many bits as there are weights whenever the step
    doubles, so a straight line through the last sizes says what to try next.

    Raises:
        ValueError: if the size is larger even with the coarsest step; names the least one.
    """
    large, small = _ends(config, target, size, dense_bytes)
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
    config: LatticeConfig,
    target: int,
    size: Callable[[LatticeConfig], int],
    dense_bytes: int,
) -> tuple[tuple[float, int] | None, tuple[float, int]]:
    """Steps and their sizes on either side of `target`; the first None if it is never reached."""
    step, large = config.step, None
    found = size(config)
    while found > target:
        if step >= COARSEST:
            raise ValueError(
                f"the target must be at least {found:,} bytes ({dense_bytes / found:.3g} times "
                f"smaller), which remain with the coarsest step, got {target:,}"
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


@dataclass(frozen=True)
class Trial:
    """One evaluation of a search: with the dense weights, or with those rounded by `step`.

    `num_bytes` is the size of the file, or of the dense tensors; `kept` says whether the metric
    is high enough.

    Example:
        >>> model = nn.Linear(64, 10)
        >>> def metric(model):  # of your own; higher is better
        ...     return 1.0
        >>> report = momos.compress(model, "net.momos", evaluate=metric, max_drop=0.1)
        >>> trials = report.trials
        >>> trials[0].name, trials[0].metric, trials[0].kept
        ('dense', 1.0, True)
    """

    step: float | None
    num_bytes: int
    metric: float
    kept: bool

    @property
    def name(self) -> str:
        """What was evaluated: "dense" or the step."""
        return "dense" if self.step is None else f"step {self.step:.4g}"

    def __str__(self) -> str:
        kept = "kept" if self.kept else "too low"
        return f"{self.name}: {self.num_bytes:,} bytes, metric {self.metric:.6g}, {kept}"


@dataclass(frozen=True)
class CompressionReport(SaveReport):
    """What `compress` wrote; `trials` are the evaluations that chose the step, if any did.

    Example:
        >>> report = momos.compress(nn.Linear(100, 100), "net.momos")
        >>> report.num_bytes < report.dense_bytes / 4
        True
        >>> [(tensor.name, tensor.stored) for tensor in report.tensors]
        [('weight', 'blocks'), ('bias', 'dense')]
    """

    trials: tuple[Trial, ...] = ()


def check_evaluation(
    config: Config, evaluate: object, max_drop: object, *, targeted: bool
) -> None:
    """Refuses an evaluation by which no step can be chosen.

    Raises:
        TypeError: if `evaluate` is not a function or `max_drop` not a number.
        ValueError: if one is given without the other, with a target, or without a step.
    """
    if evaluate is None:
        if max_drop is not None:
            raise ValueError(
                f"max_drop must be given with evaluate, got {max_drop!r} alone"
            )
        return
    if not callable(evaluate):
        raise TypeError(f"evaluate must be a function, got {evaluate!r}")
    if targeted:
        raise ValueError(
            "one of evaluate and a target size or factor must be given, got both"
        )
    if not isinstance(config, LatticeConfig):
        raise ValueError("evaluate must be given with a LatticeConfig, got a MosaicConfig")
    if max_drop is None:
        raise ValueError(
            "max_drop must be given with evaluate: how much lower than with the dense weights "
            "the metric may be, in its own units (0.5 of an accuracy in percent)"
        )
    if isinstance(max_drop, bool) or not isinstance(max_drop, int | float):
        raise TypeError(f"max_drop must be a number, got {max_drop!r}")
    if not 0 <= max_drop <= sys.float_info.max:
        raise ValueError(f"max_drop must be at least 0 and finite, got {max_drop}")


@dataclass(frozen=True)
class Search:
    """Searches the coarsest step with which a metric is at most `max_drop` lower.

    `contents` returns the contents of a file for a config, `size` the bytes of their file, and
    `measure` their metric, or that of the dense weights (of `dense_bytes` bytes) for None.
    `on_trial` is called with each trial.
    """

    config: LatticeConfig
    max_drop: float
    dense_bytes: int
    contents: Callable[[LatticeConfig], Contents]
    size: Callable[[Contents], int]
    measure: Callable[[Contents | None], object]
    on_trial: Callable[[Trial], object]
    progress: Progress

    def run(self) -> tuple[Contents, tuple[Trial, ...]]:
        """The contents of the smallest file whose metric was high enough, and all trials in order.

        Starting at the config's step, it goes by factors of 4: up while the metric is high enough,
        or down until it is. Then it searches between the two.

        Raises:
            TypeError, ValueError: if a metric is not one finite number.
            ValueError: if no step was good enough; lists the metric of each.
        """
        dense = number_of(self.measure(None), "the dense weights")
        trials = [Trial(None, self.dense_bytes, dense, True)]
        self._note(trials)
        best = found = self._tried(trials, self.config.step)
        while len(trials) < EVALUATIONS:
            if (step := _next(trials)) is None:
                break
            found = self._tried(trials, step)
            if trials[-1].kept and trials[-1].num_bytes <= _least(trials):
                best = found
        self.progress("evaluating", EVALUATIONS, EVALUATIONS)
        if not any(trial.kept for trial in trials[1:]):
            raise self._failure(trials, found)
        return best, tuple(trials)

    def _tried(self, trials: list[Trial], step: float) -> Contents:
        """The contents by `step`, whose trial is appended."""
        contents = self.contents(replace(self.config, step=step))
        num_bytes = self.size(contents)
        metric = number_of(self.measure(contents), f"step {step:.4g}")
        kept = metric >= trials[0].metric - self.max_drop
        trials.append(Trial(step, num_bytes, metric, kept))
        self._note(trials)
        return contents

    def _note(self, trials: list[Trial]) -> None:
        self.on_trial(trials[-1])
        self.progress("evaluating", len(trials), EVALUATIONS)

    def _failure(self, trials: list[Trial], finest: Contents) -> ValueError:
        """The error for when no step was good enough, not even the last and finest."""
        dense, *others = trials
        errors = {
            record.name: record.distortion / record.energy
            for record in finest.records
            if record.distortion and record.energy
        }
        worst = sorted(errors, key=lambda name: -errors[name])[:NAMED]
        named = ", ".join(f"{name} ({errors[name]:.2g})" for name in worst)
        return ValueError(
            f"the metric must stay at {dense.metric - self.max_drop:.6g} or above (the dense "
            f"weights give {dense.metric:.6g}, max_drop is {self.max_drop:g}), got "
            + ", ".join(f"{trial.metric:.6g} with {trial.name}" for trial in others)
            + "; exclude the tensors that it depends on, keep dense ones as they are "
            "(dense_dtype float32), or allow a larger max_drop"
            + (f" (largest relative errors at the finest step: {named})" if named else "")
        )


def _least(trials: list[Trial]) -> int:
    """Bytes of the smallest file whose metric was high enough."""
    return min(trial.num_bytes for trial in trials[1:] if trial.kept)


def _next(trials: list[Trial]) -> float | None:
    """The next step to try; None if no other can make the file much smaller."""
    own = [(one.step, one) for one in trials if one.step is not None]
    kept = [one for one in own if one[1].kept]
    if not kept:
        finest = min(step for step, _ in own)
        return max(FINEST, finest / 4) if finest > FINEST else None
    low, small = max(kept, key=lambda one: one[0])
    above = [one for one in own if one[0] > low]
    if not above:
        return min(COARSEST, 4 * low) if low < COARSEST else None
    high, smaller = min(above, key=lambda one: one[0])
    if smaller.num_bytes >= NEAR * small.num_bytes:
        return None
    return math.sqrt(low * high)


def number_of(value: Any, of: str) -> float:
    """The one number that an evaluation returned.

    Raises:
        TypeError: if it is something else.
        ValueError: if it is not finite.
    """
    found = value.detach() if isinstance(value, Tensor) else value
    if isinstance(found, Tensor | np.ndarray | np.generic) and math.prod(found.shape) == 1:
        found = found.item()
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise TypeError(f"evaluate must return a number, got {_shown(value)} for {of}")
    if not abs(found) <= sys.float_info.max:
        raise ValueError(f"evaluate must return a finite number, got {found} for {of}")
    return float(found)


def _shown(value: object) -> str:
    """A value in few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"
