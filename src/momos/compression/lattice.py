"""Mosaics whose motifs are whole numbers of steps.

Weights are divided by the step of their network or channel and rounded. The motifs are the
rounded blocks that occur, so a large weight is represented however rare it is. Rounding weighs
squared error against code length, by the tensor's own usage of the motifs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Float32, Float64, Int, Int32
from torch import Tensor

from momos.assign import searcher
from momos.assign.rated import code_lengths, rated_searcher
from momos.blocks import PIECE, Placement, matches
from momos.compression.assigning import Rows, assign_rows
from momos.compression.calibration import importance_of
from momos.compression.weights import Weights, mean_squares
from momos.config import LatticeConfig
from momos.files.progress import Progress, quiet
from momos.mosaic import Mosaic, index_dtype, usage_of
from momos.projection import Holding

RECURRENT = ("*weight_hh*", "*recurrent_kernel*")  # names that networks with memory have
EMBEDDINGS = ("*embed*", "*wte.*", "*wpe.*")
ROUNDS = 2  # of assigning by code length, each with the usage that the one before left
LEAST_CHANNEL = 0.01  # root mean square of a channel, at least, relative to the largest
LEAST_WEIGHT = 1e-150  # of float64: the square of a smaller one is 0
MOST_REACH = 1 << 20  # of whole numbers that are looked up in a table
EXACT = {
    torch.int8: 127,
    torch.float16: 2048,
}  # the largest whole number held with all below


def lattice_mosaic(
    weights: Weights,
    config: LatticeConfig,
    progress: Progress,
    sensitivities: Mapping[str, Tensor] | None = None,
) -> tuple[Mosaic, dict[str, float], dict[str, float]]:
    """The mosaic of `weights`; the distortion and the sum of squares of each tensor.

    With `sensitivities`, those of the weights by name, sensitive weights are rounded to the
    nearest motif, whatever its code length, and others further to where bits are saved.
    """
    weights = weights.scaled(steps(weights, config, progress))
    importance = importance_of(weights, sensitivities)
    layout, motifs = weights.layout, _rounded(weights, progress)
    indices = torch.empty(layout.num_blocks, dtype=index_dtype(len(motifs)), device="cpu")
    distortions: dict[str, float] = {}
    energies: dict[str, float] = {}
    for place in layout.placements:
        own = weights.only([place])
        found, distortion, energy = _assigned(
            own, place.name, motifs, config.rate_weight, importance.get(place.name)
        )
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
    weights: Weights,
    name: str,
    motifs: Float[Tensor, "k s"],
    rate_weight: float,
    importance: Float32[Tensor, " m"] | None,
) -> tuple[Tensor, dict[str, float], dict[str, float]]:
    """Indices of one tensor's blocks; its distortion and its sum of squares.

    The first round knows no usage and takes the nearest motif.
    """
    if importance is not None and float(motifs.abs().max()) > MOST_REACH:
        raise ValueError(
            f"weights must be at most {MOST_REACH} steps for a calibration, got "
            f"{float(motifs.abs().max()):g} (exclude the largest, or leave calibration out)"
        )
    search, holding = _searcher(motifs, None, rate_weight), Holding(motifs)
    for _ in range(ROUNDS if rate_weight else 0):
        rows = {name: Rows(0, holding, search, importance)}
        usage = usage_of(assign_rows(weights, rows, motifs, quiet)[0], len(motifs))
        search = _searcher(motifs, usage, rate_weight)
    rows = {name: Rows(0, holding, search, importance)}
    return assign_rows(weights, rows, motifs, quiet)


def _searcher(
    motifs: Float[Tensor, "k s"], usage: Int[Tensor, " k"] | None, rate_weight: float
) -> Callable[[Tensor], Tensor]:
    """Which motif is best for each block, by squared error and code length where usage is known."""
    reach = float(motifs.abs().max())
    if motifs.shape[1] == 1 and reach <= MOST_REACH:
        lengths = None if usage is None else rate_weight * code_lengths(usage)
        return partial(_around, *_tables(motifs[:, 0], int(reach), lengths))
    if usage is None:
        return searcher(motifs)
    return rated_searcher(motifs, usage, rate_weight)


def _tables(
    motifs: Float[Tensor, " k"], reach: int, penalties: Float64[Tensor, " k"] | None
) -> tuple[Int32[Tensor, " r"], Float[Tensor, " r"]]:
    """Of each whole number from −reach to reach: which motif it is, and what it costs."""
    number = torch.zeros(2 * reach + 1, dtype=torch.int32, device="cpu")
    cost = torch.full((len(number),), torch.inf, dtype=motifs.dtype, device="cpu")
    at = motifs.long() + reach
    number[at] = torch.arange(len(motifs), dtype=torch.int32, device="cpu")
    cost[at] = 0.0 if penalties is None else penalties.to(motifs.dtype)
    return number, cost


def _around(
    number: Int32[Tensor, " r"],
    cost: Float[Tensor, " r"],
    blocks: Float[Tensor, "b 1"],
    importance: Float32[Tensor, " b"] | float = 1.0,
) -> Int32[Tensor, " b"]:
    """The better of two motifs: the nearest whole number, and the next towards zero.

    By squared error times importance, plus what the motif costs.
    """
    values, reach = blocks[:, 0], len(number) // 2
    near = values.round()
    inner = near - near.sign()
    at, less = (near + reach).long(), (inner + reach).long()
    near_cost = (values - near).square_().mul_(importance)
    near_cost.add_(cost.index_select(0, at))
    inner_cost = (values - inner).square_().mul_(importance)
    inner_cost.add_(cost.index_select(0, less))
    return number.index_select(0, torch.where(inner_cost < near_cost, less, at))


def steps(
    weights: Weights, config: LatticeConfig, progress: Progress
) -> tuple[Float32[Tensor, " c"], ...]:
    """The step of each tensor or channel.

    Raises:
        ValueError: if float32 has no normal number for a step.
    """
    places = weights.layout.placements
    squares = mean_squares(weights, "channel", progress)
    step = _stored(
        torch.tensor([config.step * _typical(squares, places)], device="cpu").double()
    )
    return tuple(
        _channel_steps(square, config.step) if by_channel else step
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

    So a weight that is larger than all others by far moves it by a channel's share only.
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
    """Steps as bfloat16 numbers, so that they take few bits to store.

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
    """The different rounded blocks, the smallest first: zero is always one."""
    found = torch.zeros(1, weights.layout.block_size, dtype=weights.dtype, device="cpu")
    for piece in weights.pieces():
        if 0 < (largest := float(piece.flat.abs().max())) < LEAST_WEIGHT:
            raise ValueError(
                f"weights must be 0 or at least {LEAST_WEIGHT} to be squared, got at most "
                f"{largest} in tensor {piece.place.name!r} (exclude it to store it as it is)"
            )
        rounded = weights.blocks(piece).round() + 0.0  # no −0
        found = _distinct(torch.cat([found, _distinct(rounded)]))
        progress("choosing motifs", piece.row + len(rounded), weights.layout.num_blocks)
    return found[found.abs().sum(1).argsort(stable=True)]


def _distinct(rows: Float[Tensor, "r s"]) -> Float[Tensor, "d s"]:
    """The different rows of whole numbers."""
    if rows.shape[1] > 1:
        return rows.unique(dim=0)
    values = rows[:, 0]
    low, high = (float(end) for end in values.aminmax())
    if high - low > MOST_REACH:
        return values.unique()[:, None]
    counts = torch.bincount((values - low).long())  # ten times as fast as sorting
    return (counts.nonzero() + low).to(rows.dtype)


def _narrow(motifs: Tensor) -> Tensor:
    """`motifs`, which are whole, in the smallest dtype that holds them exactly."""
    largest = float(motifs.abs().max())
    fitting = (dtype for dtype, most in EXACT.items() if largest <= most)
    return motifs.to(next(fitting, motifs.dtype))
