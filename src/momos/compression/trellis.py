"""Weights to whole numbers of steps, one by one: on a trellis, or each on its own.

A tensor is rounded stream by stream, as the file will code it: output channel by output channel,
every stream a path of its own. So memory holds the numbers and a few streams of weights.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from momos.blocks import Placement
from momos.codec import STREAM_SYMBOLS, lattice
from momos.codec.whole import MOST_VALUE
from momos.compression.weights import Piece, Weights, check_squares
from momos.config import LatticeConfig
from momos.files.coding import by_channel, by_position
from momos.files.parallel import in_parallel
from momos.files.progress import Progress
from momos.mosaic import Mosaic, index_dtype, scaled

HALF_STEP = 0.65  # of the step that has as many bits a weight without a trellis
STATES = {1_000_000: 256, 10_000_000: 64}  # of the trellis, up to so many weights
FEWEST_STATES = 8  # for more, which would take too long
NARROW = (torch.int8, torch.int16, torch.int32)


@dataclass(frozen=True)
class Stretch:
    """Weights of one stream, in its order, the scale of each or of all, and their importance."""

    place: Placement
    flat: Float[Tensor, " n"]
    scale: Float32[Tensor, " n"] | None
    importance: Float32[Tensor, " n"] | None


def states_of(config: LatticeConfig, num_weights: int) -> int:
    """Of the trellis; 1 is none."""
    if config.states is not None:
        return config.states
    if config.block_size > 1:
        return 1
    fitting = (states for most, states in STATES.items() if num_weights <= most)
    return next(fitting, FEWEST_STATES)


def quantized(
    weights: Weights,
    config: LatticeConfig,
    states: int,
    importance: Mapping[str, Float32[Tensor, " n"]],
    progress: Progress,
) -> tuple[Mosaic, dict[str, float], dict[str, float]]:
    """The mosaic of weights relative to their steps; distortion and sum of squares of each tensor."""
    distortions = dict.fromkeys((p.name for p in weights.layout.placements), 0.0)
    energies = distortions.copy()
    held: dict[str, list[Tensor]] = {name: [] for name in distortions}
    done = 0

    def work(stretch: Stretch) -> tuple[str, Tensor, float, float]:
        values = lattice.quantize(
            _in_steps(stretch, weights.dtype),
            memory=states.bit_length() - 1,
            rate_weight=_rate_weight(config, states),
            importance=stretch.importance,
        )
        distortion, energy = _lost(stretch, values)
        return stretch.place.name, _narrowed(values), distortion, energy

    stretches = _stretches(weights, importance)
    for name, values, distortion, energy in in_parallel(work, stretches):
        held[name].append(values)
        distortions[name] += distortion
        energies[name] += energy
        done += len(values)
        progress("rounding", done, weights.layout.num_blocks)
    mosaic = _mosaic(weights, held, config)
    return mosaic, distortions, energies


def _rate_weight(config: LatticeConfig, states: int) -> float:
    """Squares of the unit of the numbers that one bit less is worth."""
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
                yield Stretch(place, flat, scale, some)
                continue
            parts = [
                None if part is None else by_channel(part, place).split(STREAM_SYMBOLS)
                for part in (flat, scale if scale is None or len(scale) > 1 else None, some)
            ]
            for number, values in enumerate(parts[0] or ()):
                yield Stretch(
                    place,
                    values,
                    scale if parts[1] is None else parts[1][number],
                    None if parts[2] is None else parts[2][number],
                )


def _gathered(weights: Weights, *, whole: bool) -> Iterator[list[Piece]]:
    """Successive pieces of one tensor that make a stream, or all of them."""
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
    check_squares(stretch.flat, stretch.place.name)
    values = stretch.flat.to(dtype)
    if stretch.scale is not None:
        values = values / stretch.scale.to(dtype)
    most = float(values.abs().max())
    if most >= MOST_VALUE:
        raise ValueError(
            f"weights must be below {MOST_VALUE:,} steps, got {most:g} in tensor "
            f"{stretch.place.name!r} (exclude it to store it as it is)"
        )
    return values.contiguous()


def _lost(stretch: Stretch, values: Int32[Tensor, " n"]) -> tuple[float, float]:
    """Squared error, and the sum of squares of the weights."""
    wide = torch.float64 if stretch.place.dtype == torch.float64 else torch.float32
    found = scaled(values.to(wide), stretch.scale, stretch.place.dtype)
    if not bool(torch.isfinite(found).all()):
        raise ValueError(
            f"rounded weights must fit the {stretch.place.dtype} of tensor "
            f"{stretch.place.name!r} (exclude it to store it as it is)"
        )
    flat = stretch.flat.double()
    return float((flat - found.double()).square_().sum()), float(flat.square_().sum())


def _narrowed(values: Int32[Tensor, " n"]) -> Tensor:
    """Values in the narrowest dtype that holds them."""
    most = int(values.abs().max())
    return values.to(next(kind for kind in NARROW if most <= torch.iinfo(kind).max))


def _mosaic(
    weights: Weights, held: dict[str, list[Tensor]], config: LatticeConfig
) -> Mosaic:
    """The mosaic of the numbers in `held`, which is emptied meanwhile; 0 is always a motif."""
    layout = weights.layout
    different = torch.cat(
        [torch.zeros(1, dtype=torch.int32, device="cpu")]
        + [part.int().unique() for parts in held.values() for part in parts]
    ).unique()
    order = (2 * different.long().abs() + (different > 0)).argsort()
    motifs = different[order]
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order), device="cpu")
    dtype = index_dtype(len(motifs))
    numbers = number.to(dtype)
    indices = torch.empty(layout.num_blocks, dtype=dtype, device="cpu")
    for place in layout.placements:
        own = [
            numbers[torch.searchsorted(different, part.int())]
            for part in held.pop(place.name)
        ]
        indices[place.start : place.stop] = by_position(torch.cat(own), place)
    return Mosaic(_exact(motifs), indices, layout, weights.scales, config)


def _exact(motifs: Int32[Tensor, " k"]) -> Tensor:
    """Motifs in the narrowest dtype that holds them exactly."""
    for dtype in (torch.int8, torch.float16, torch.float32, torch.float64):
        narrow = motifs.to(dtype)
        if torch.equal(narrow.to(torch.int64), motifs.long()):
            return narrow[:, None]
    raise AssertionError("float64 holds every int32")
