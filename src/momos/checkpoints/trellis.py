"""Rounds weights to whole numbers of steps: on a trellis, or each on its own.

A tensor is rounded stream by stream, as the file codes it: output channel by output channel, every
stream a path of its own. So memory holds the streams of the file and the weights of a few.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from momos._util.work import Progress, in_parallel
from momos.blocks import PIECE, Placement
from momos.checkpoints.weights import Piece, Weights, check_squares, sums_of_squares
from momos.codec import STREAM_SYMBOLS, lattice, raw
from momos.codec.lattice import MOST_VALUE
from momos.config import LatticeConfig
from momos.files.coding import (
    ByValue,
    CodedMosaic,
    by_channel,
    by_position,
    encoded,
    geometry_of,
)
from momos.mosaic import Mosaic, scaled

HALF_STEP = 0.65  # relative to the step with as many bits a weight without a trellis
STATES = {
    1_000_000: 256,
    10_000_000: 64,
}  # of the trellis, by the most weights for which it is used
# Of the squared sum of errors in a kernel and in an output channel, relative to squared errors.
KERNEL_WEIGHT, ROW_WEIGHT = 0.4, 0.1
FEWEST_STATES = 8  # for more weights, which would take too long


@dataclass(frozen=True)
class Stretch:
    """Weights of one stream, in its order; the scale of each or of all, and their importance."""

    place: Placement
    first: int
    flat: Float[Tensor, " n"]
    scale: Float32[Tensor, " n"] | None
    importance: Float32[Tensor, " n"] | None


def states_of(config: LatticeConfig, num_weights: int) -> int:
    """States of the trellis; 1 means no trellis."""
    if config.states is not None:
        return config.states
    if config.block_size > 1:
        return 1
    fitting = (states for most, states in STATES.items() if num_weights <= most)
    return next(fitting, FEWEST_STATES)


@dataclass(frozen=True, eq=False)
class Rounded:
    """A mosaic, distortion and sum of squares of each tensor, and the SHA-256 of all if known."""

    mosaic: CodedMosaic | Mosaic
    distortions: dict[str, float]
    energies: dict[str, float]
    sha256: str | None = None


def quantized(
    weights: Weights,
    config: LatticeConfig,
    states: int,
    importance: Mapping[str, Float32[Tensor, " n"]],
    dense: Callable[[str], Iterator[Tensor]],
    progress: Progress,
) -> Rounded:
    """The mosaic of weights relative to their steps.

    `dense` returns the values of a tensor that stays dense, as the file will have them.
    """
    names = [place.name for place in weights.layout.placements]
    distortions, energies = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    streams: dict[str, list[bytes]] = {name: [] for name in names}
    counts: dict[str, Counter[int]] = {name: Counter() for name in names}
    digest = _Digest(list(weights.tensors), dense)
    done = 0

    def work(stretch: Stretch) -> tuple[Stretch, bytes, Counter[int], Tensor, float, float]:
        values = lattice.quantize(
            _in_steps(stretch, weights.dtype),
            memory=states.bit_length() - 1,
            rate_weight=_rate_weight(config, states),
            importance=stretch.importance,
            geometry=geometry_of(stretch.place, stretch.first),
            kernel_weight=KERNEL_WEIGHT if config.balance else 0.0,
            row_weight=ROW_WEIGHT if config.balance else 0.0,
        )
        data = encoded(values, states, stretch.place, stretch.first)
        return stretch, data, _counted(values), *_lost(stretch, values)

    for stretch, data, used, found, distortion, energy in in_parallel(
        work, _stretches(weights, importance)
    ):
        name = stretch.place.name
        streams[name].append(data)
        counts[name] += used
        distortions[name] += distortion
        energies[name] += energy
        digest.add(stretch.place, found)
        done += len(found)
        progress("rounding", done, weights.layout.num_blocks)
    mosaic = _mosaic(weights, config, states, streams, counts)
    return Rounded(mosaic, distortions, energies, digest.hexdigest())


class _Digest:
    """SHA-256 of the values of all tensors in the order of `names`."""

    def __init__(self, names: list[str], dense: Callable[[str], Iterator[Tensor]]) -> None:
        self._names, self._dense = names, dense
        self._digest = hashlib.sha256()
        self._held: list[Tensor] = []
        self._at = self._done = 0

    def add(self, place: Placement, values: Tensor) -> None:
        """The next values of a tensor of blocks, in the order of its stream."""
        self._pass_dense(place.name)
        self._done += len(values)
        if place.axis:
            self._held.append(values)
        else:
            self._update(values)
        if self._done == place.num_weights:
            if place.axis:
                self._update(by_position(torch.cat(self._held), place))
            self._held, self._done, self._at = [], 0, self._at + 1

    def hexdigest(self) -> str:
        self._pass_dense(None)
        return self._digest.hexdigest()

    def _pass_dense(self, until: str | None) -> None:
        while self._at < len(self._names) and self._names[self._at] != until:
            for values in self._dense(self._names[self._at]):
                self._update(values)
            self._at += 1

    def _update(self, values: Tensor) -> None:
        self._digest.update(raw(values).numpy().data)


def _rate_weight(config: LatticeConfig, states: int) -> float:
    """The rate weight in squares of the unit of the rounded numbers."""
    return config.rate_weight / HALF_STEP**2 if states > 1 else config.rate_weight


def _stretches(
    weights: Weights, importance: Mapping[str, Float32[Tensor, " n"]]
) -> Iterator[Stretch]:
    """All weights, one stream after another."""
    for place in weights.layout.placements:
        own = importance.get(place.name)
        for pieces in _gathered(weights.only([place]), whole=place.axis > 0):
            first = pieces[0]
            flat = torch.cat([piece.flat for piece in pieces])
            scale = _scale_of(pieces)
            some = None if own is None else own[first.start : first.start + len(flat)]
            if not place.axis:
                yield Stretch(place, first.start, flat, scale, some)
                continue
            parts = [
                None if part is None else by_channel(part, place).split(STREAM_SYMBOLS)
                for part in (flat, scale if scale is None or len(scale) > 1 else None, some)
            ]
            for number, values in enumerate(parts[0] or ()):
                yield Stretch(
                    place,
                    number * STREAM_SYMBOLS,
                    values,
                    scale if parts[1] is None else parts[1][number],
                    None if parts[2] is None else parts[2][number],
                )


def _gathered(weights: Weights, *, whole: bool) -> Iterator[list[Piece]]:
    """Successive pieces of one tensor that form a stream; all of them if `whole`."""
    held: list[Piece] = []
    for piece in weights.pieces():
        held.append(piece)
        if not whole and sum(len(one.flat) for one in held) == STREAM_SYMBOLS:
            yield held
            held = []
    if held:
        yield held


def _scale_of(pieces: list[Piece]) -> Float32[Tensor, " n"] | None:
    scales = [piece.scale for piece in pieces if piece.scale is not None]
    if not scales:
        return None
    return scales[0] if len(scales[0]) == 1 < len(pieces[0].flat) else torch.cat(scales)


def _in_steps(stretch: Stretch, dtype: torch.dtype) -> Float[Tensor, " n"]:
    """The weights of a stream, relative to their steps."""
    check_squares(stretch.flat, stretch.place.name)
    steps, most = torch.empty(len(stretch.flat), dtype=dtype, device="cpu"), 0.0
    for part, scale, flat in _slices(steps, stretch):
        part.copy_(flat)
        if scale is not None:
            part.div_(scale.to(dtype))
        most = max(most, *(abs(float(end)) for end in part.aminmax()))
    if most >= MOST_VALUE:
        raise ValueError(
            f"weights must be below {MOST_VALUE:,} steps, got {most:g} in tensor "
            f"{stretch.place.name!r} (exclude it to store it as it is)"
        )
    return steps


def _lost(stretch: Stretch, values: Int32[Tensor, " n"]) -> tuple[Tensor, float, float]:
    """The rounded weights, their squared error, and the sum of squares of the weights."""
    dtype, distortion, energy = stretch.place.dtype, 0.0, 0.0
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    result = torch.empty(len(values), dtype=dtype, device="cpu")
    numbers = values.split(PIECE)
    for (part, scale, flat), own in zip(_slices(result, stretch), numbers, strict=True):
        part.copy_(scaled(own.to(wide), scale, dtype))
        distortion += float(sums_of_squares((flat - part)[None]))
        energy += float(sums_of_squares(flat[None]))
    if not math.isfinite(distortion) and not bool(torch.isfinite(result).all()):
        raise ValueError(
            f"rounded weights must fit the {dtype} of tensor {stretch.place.name!r} (exclude "
            "it to store it as it is)"
        )
    return result, distortion, energy


def _slices(
    values: Tensor, stretch: Stretch
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Slices of `values`, scales and weights, small enough to stay in caches."""
    scale = stretch.scale
    each = None if scale is None or len(scale) == 1 else scale.split(PIECE)
    parts = zip(values.split(PIECE), stretch.flat.split(PIECE), strict=True)
    for number, (part, flat) in enumerate(parts):
        yield part, scale if each is None else each[number], flat


def _counted(values: Int32[Tensor, " n"]) -> Counter[int]:
    """How often each value occurs."""
    low, high = (int(end) for end in values.aminmax())
    if high - low >= PIECE:
        found, counts = values.unique(return_counts=True)
    else:
        every = torch.zeros(high - low + 1, dtype=torch.int64, device="cpu")
        for part in values.split(PIECE):
            every += torch.bincount(part - low, minlength=len(every))
        found = every.nonzero()[:, 0]
        found, counts = found + low, every[found]
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _mosaic(
    weights: Weights,
    config: LatticeConfig,
    states: int,
    streams: dict[str, list[bytes]],
    counts: dict[str, Counter[int]],
) -> CodedMosaic:
    """The mosaic whose motifs are the numbers that occur, and 0."""
    usage = sum(counts.values(), Counter({0: 0}))
    usage[0] += 0
    values = sorted(usage, key=lambda value: (abs(value), value > 0))
    motifs = torch.tensor(values, dtype=torch.int32, device="cpu")
    assert weights.scales is not None
    return CodedMosaic(
        motifs=narrowest(motifs)[:, None],
        layout=weights.layout,
        scales=weights.scales,
        config=config,
        code=ByValue(motifs, states),
        streams=streams,
        counts=torch.tensor([usage[value] for value in values], device="cpu"),
        used={name: len(found) for name, found in counts.items()},
    )


def narrowest(motifs: Tensor) -> Tensor:
    """Whole numbers in the narrowest dtype that holds them exactly."""
    for dtype in (torch.int8, torch.float16, torch.float32):
        narrow = motifs.to(dtype)
        if torch.equal(narrow.double(), motifs.double()):
            return narrow
    return motifs.double()
