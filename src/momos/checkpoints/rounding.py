"""Compression by rounding: mosaics whose motifs are whole numbers of steps.

Weights are divided by the step of their network or channel and rounded. The motifs are the
rounded blocks that occur, so a large weight is represented however rare it is. Rounding weighs
squared error against code length: blocks of one weight on a trellis (trellis.py), longer ones by
the tensor's own usage of the motifs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from momos._util.work import Progress, quiet
from momos.blocks import PIECE, Placement, matches
from momos.checkpoints.banks import Rows, assign_rows
from momos.checkpoints.trellis import HALF_STEP, Rounded, narrowest, quantized, states_of
from momos.checkpoints.weights import Weights, check_squares, importance_of
from momos.config import LatticeConfig
from momos.mosaic import Mosaic, index_dtype, usage_of
from momos.projection import Holding
from momos.vq.nearest import rated_searcher, searcher

RECURRENT = ("*weight_hh*", "*recurrent_kernel*")  # names in recurrent networks
EMBEDDINGS = ("*embed*", "*wte.*", "*wpe.*")
ROUNDS = 2  # of assigning by code length, each with the usage of the previous round
LEAST_CHANNEL = 0.01  # root mean square of a channel, at least, relative to the largest


def lattice_mosaic(
    weights: Weights,
    squares: Sequence[Float64[Tensor, " c"]],
    config: LatticeConfig,
    progress: Progress,
    dense: Callable[[str], Iterator[Tensor]],
    sensitivities: Mapping[str, Tensor] | None = None,
) -> Rounded:
    """The mosaic of `weights`, whose output channels have the mean squares `squares`.

    `dense` returns the values of a tensor that stays dense.

    With `sensitivities` (of the weights, by name), sensitive weights are rounded to near motifs
    whatever the code length, and others further away where that saves bits.
    """
    states = states_of(config, weights.layout.num_weights)
    weights = weights.scaled(steps(weights.layout.placements, squares, config, states))
    if config.block_size == 1:
        importance = importance_of(weights, sensitivities)
        return quantized(weights, config, states, importance, dense, progress)
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
    mosaic = Mosaic(narrowest(motifs[used]), indices, layout, weights.scales, config)
    return Rounded(mosaic, distortions, energies)


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
    places: Sequence[Placement],
    squares: Sequence[Float64[Tensor, " c"]],
    config: LatticeConfig,
    states: int,
) -> tuple[Float32[Tensor, " c"], ...]:
    """The step of each tensor or channel; on a trellis, the half step.

    Raises:
        ValueError: if float64 cannot square the weights of a tensor, or float32 has no normal
            number for a step.
    """
    for place, square in zip(places, squares, strict=True):
        if not bool(torch.isfinite(square).all()):
            raise ValueError(
                f"weights must have squares that float64 holds, got larger ones in tensor "
                f"{place.name!r} (exclude it to store it as it is)"
            )
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
