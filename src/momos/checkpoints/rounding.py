"""Compression by rounding: mosaics whose motifs are whole numbers of steps.

Weights are divided by the step of their network or channel and rounded. The motifs are the
rounded blocks that occur, so a large weight is represented however rare it is. Rounding weighs
squared error against code length. Longer blocks go by the tensor's own usage of the motifs; blocks of
one weight by a trellis, stream by stream as the file codes them, so that memory holds the numbers
and a few streams of weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Float64, Int32
from torch import Tensor

from momos._util.work import Progress, in_parallel, quiet
from momos.blocks import PIECE, Placement, matches
from momos.checkpoints.banks import Rows, assign_rows
from momos.checkpoints.weights import (
    Piece,
    Weights,
    check_squares,
    importance_of,
    mean_squares,
)
from momos.codec import STREAM_SYMBOLS, lattice
from momos.codec.lattice import MOST_VALUE
from momos.config import LatticeConfig
from momos.files.coding import by_channel, by_position
from momos.mosaic import Mosaic, index_dtype, scaled, usage_of
from momos.projection import Holding
from momos.vq.nearest import rated_searcher, searcher

RECURRENT = ("*weight_hh*", "*recurrent_kernel*")  # names in recurrent networks
EMBEDDINGS = ("*embed*", "*wte.*", "*wpe.*")
ROUNDS = 2  # of assigning by code length, each with the usage of the previous round
LEAST_CHANNEL = 0.01  # root mean square of a channel, at least, relative to the largest
EXACT = {
    torch.int8: 127,
    torch.float16: 2048,
}  # the largest whole number up to which all are exact
HALF_STEP = 0.65  # relative to the step with as many bits a weight without a trellis
STATES, FEWER_STATES, MANY = 64, 8, 10_000_000  # fewer states for more than `MANY` weights
NARROW = (torch.int8, torch.int16, torch.int32)


def lattice_mosaic(
    weights: Weights,
    config: LatticeConfig,
    progress: Progress,
    sensitivities: Mapping[str, Tensor] | None = None,
) -> tuple[Mosaic, dict[str, float], dict[str, float]]:
    """The mosaic of `weights`; the distortion and the sum of squares of each tensor.

    With `sensitivities` (of the weights, by name), sensitive weights are rounded to near motifs
    whatever the code length, and others further away where that saves bits.
    """
    states = states_of(config, weights.layout.num_weights)
    weights = weights.scaled(steps(weights, config, states, progress))
    if config.block_size == 1:
        importance = importance_of(weights, sensitivities)
        return quantized(weights, config, states, importance, progress)
    layout, motifs = weights.layout, _rounded(weights, progress)
    indices = torch.empty(layout.num_blocks, dtype=index_dtype(len(motifs)), device="cpu")
    distortions: dict[str, float] = {}
    energies: dict[str, float] = {}
    for place in layout.placements:
        own = weights.only([place])
        found, distortion, energy = _assigned(own, place.name, motifs, config.rate_weight)
        indices[place.start : place.stop] = found
        distortions |= distortion
        energies |= energy
        progress("assigning", place.stop, layout.num_blocks)
    used = usage_of(indices, len(motifs)) > 0
    used[0] = True
    renumbered = (used.cumsum(0) - 1).to(index_dtype(int(used.sum())))
    for part in indices.split(PIECE):
        part.copy_(renumbered[part.int()])
    mosaic = Mosaic(_narrow(motifs[used]), indices, layout, weights.scales, config)
    return mosaic, distortions, energies


def _assigned(
    weights: Weights, name: str, motifs: Float[Tensor, "k s"], rate_weight: float
) -> tuple[Tensor, dict[str, float], dict[str, float]]:
    """Indices of one tensor's blocks; its distortion and its sum of squares.

    The first round knows no usage and takes the nearest motif.
    """
    search, holding = searcher(motifs), Holding(motifs)
    for _ in range(ROUNDS if rate_weight else 0):
        rows = {name: Rows(0, holding, search)}
        usage = usage_of(assign_rows(weights, rows, motifs, quiet)[0], len(motifs))
        search = rated_searcher(motifs, usage, rate_weight)
    return assign_rows(weights, {name: Rows(0, holding, search)}, motifs, quiet)


def steps(
    weights: Weights, config: LatticeConfig, states: int, progress: Progress
) -> tuple[Float32[Tensor, " c"], ...]:
    """The step of each tensor or channel; on a trellis, the half step.

    Raises:
        ValueError: if float32 has no normal number for a step.
    """
    places = weights.layout.placements
    squares = mean_squares(weights, "channel", progress)
    relative = config.step * (HALF_STEP if states > 1 else 1.0)
    step = _stored(
        torch.tensor([relative * _typical(squares, places)], device="cpu").double()
    )
    return tuple(
        _channel_steps(square, relative) if by_channel else step
        for square, by_channel in zip(squares, _by_channel(config, places), strict=True)
    )


def _by_channel(config: LatticeConfig, places: Sequence[Placement]) -> list[bool]:
    """Whether each tensor has a step for each channel."""
    recurrent = any(matches(place.name, RECURRENT) for place in places)
    return [
        config.unit == "channel"
        or (config.unit == "auto" and (recurrent or matches(place.name, EMBEDDINGS)))
        for place in places
    ]


def _typical(
    squares: Sequence[Float64[Tensor, " c"]], places: Sequence[Placement]
) -> float:
    """Geometric mean over all weights of the root mean square of their channel; 1 if all are 0.

    So a single very large weight changes it by its channel's share only.
    """
    total, count = 0.0, 0.0
    for square, place in zip(squares, places, strict=True):
        held = square[square > 0]
        size = place.num_weights / len(square)
        total += size * float(held.log2().sum()) / 2
        count += size * len(held)
    return 2 ** (total / count) if count else 1.0


def _channel_steps(squares: Float64[Tensor, " c"], step: float) -> Float32[Tensor, " c"]:
    """`step` times each channel's root mean square, to quarters of an octave.

    So channels share few different steps, which take few bits to store.
    """
    largest = squares.max()
    if not float(largest) > 0:
        return _stored(step * torch.ones_like(squares))
    octaves = (squares.clamp(min=LEAST_CHANNEL**2 * float(largest)).log2() * 2).round() / 4
    return _stored(step * octaves.exp2())


def _stored(steps: Float64[Tensor, " c"]) -> Float32[Tensor, " c"]:
    """Steps as bfloat16 numbers, which take few bits to store.

    Raises:
        ValueError: if float32 has no normal number for one of them.
    """
    stored = steps.bfloat16().float()
    if not bool(
        (torch.isfinite(stored) & (stored >= torch.finfo(torch.float32).tiny)).all()
    ):
        raise ValueError(
            f"steps must be normal float32 numbers, got {float(steps.min())} to "
            f"{float(steps.max())}"
        )
    return stored


def _rounded(weights: Weights, progress: Progress) -> Float[Tensor, "k s"]:
    """The distinct rounded blocks, smallest first; zero is always included."""
    found = torch.zeros(1, weights.layout.block_size, dtype=weights.dtype, device="cpu")
    for piece in weights.pieces():
        check_squares(piece.flat, piece.place.name)
        rounded = weights.blocks(piece).round() + 0.0  # no −0
        found = torch.cat([found, rounded.unique(dim=0)]).unique(dim=0)
        progress("choosing motifs", piece.row + len(rounded), weights.layout.num_blocks)
    return found[found.abs().sum(1).argsort(stable=True)]


def _narrow(motifs: Tensor) -> Tensor:
    """Whole-numbered `motifs` in the smallest dtype that holds them exactly."""
    largest = float(motifs.abs().max())
    fitting = (dtype for dtype, most in EXACT.items() if largest <= most)
    return motifs.to(next(fitting, motifs.dtype))


@dataclass(frozen=True)
class Stretch:
    """Weights of one stream, in its order; the scale of each or of all, and their importance."""

    place: Placement
    flat: Float[Tensor, " n"]
    scale: Float32[Tensor, " n"] | None
    importance: Float32[Tensor, " n"] | None


def states_of(config: LatticeConfig, num_weights: int) -> int:
    """States of the trellis; 1 means no trellis."""
    if config.states is not None:
        return config.states
    if config.block_size > 1:
        return 1
    return STATES if num_weights <= MANY else FEWER_STATES


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
            states=states.bit_length() - 1,
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
