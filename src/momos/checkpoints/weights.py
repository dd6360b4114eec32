"""The chosen tensors of a checkpoint as blocks, read piece by piece; the importance of their errors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Float64, Int
from torch import Tensor, nn

from momos._util.work import Progress
from momos.blocks import PIECE, Layout, Placement
from momos.checkpoints.dense import Config
from momos.checkpoints.source import SourceTensor
from momos.config import LatticeConfig, Scales
from momos.stored import channels_of, num_scales, rounded_roots, spread

LEAST_WEIGHT = 1e-150  # the square of a smaller float64 is 0
LEAST = 0.05


@dataclass(frozen=True)
class Piece:
    """Weights of successive blocks of one tensor, and the scale of each of them or of all."""

    number: int
    place: Placement
    row: int
    start: int
    flat: Tensor
    scale: Tensor | None


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors as blocks of `dtype`, divided by their scales where there are any."""

    tensors: Mapping[str, SourceTensor]
    layout: Layout
    dtype: torch.dtype
    scales: tuple[Float32[Tensor, " c"], ...] | None = None

    def scaled(self, scales: tuple[Float32[Tensor, " c"], ...]) -> "Weights":
        """The same tensors, relative to `scales`."""
        return replace(self, scales=scales)

    def only(self, places: Sequence[Placement]) -> "Weights":
        """Some of the tensors, with their blocks renumbered."""
        layout = Layout.cut(
            self.layout.block_size,
            ((p.name, p.shape, p.dtype) for p in places),
            self.layout.axes,
        )
        names = [place.name for place in self.layout.placements]
        own = None
        if self.scales is not None:
            scale_of = dict(zip(names, self.scales, strict=True))
            own = tuple(scale_of[place.name] for place in places)
        return Weights(self.tensors, layout, self.dtype, own)

    def pieces(self) -> Iterator[Piece]:
        """All weights, at most `PIECE` blocks of one tensor at a time."""
        size = self.layout.block_size
        for number, place in enumerate(self.layout.placements):
            scale = None if self.scales is None else self.scales[number]
            count = place.num_weights
            for start in range(0, count, PIECE * size):
                stop = min(start + PIECE * size, count)
                flat = self.tensors[place.name].read(start, stop)
                if not all(math.isfinite(end) for end in flat.aminmax()):
                    raise ValueError(
                        f"weights must be finite, got NaN or infinite ones in tensor "
                        f"{place.name!r} (exclude it to store it as it is)"
                    )
                own = None if scale is None else spread(scale, place, start, stop)
                yield Piece(number, place, place.start + start // size, start, flat, own)

    def blocks(self, piece: Piece) -> Float[Tensor, "b s"]:
        """The blocks of a piece, divided by their scale."""
        size = self.layout.block_size
        values = piece.flat.to(self.dtype)
        if piece.scale is not None:
            values = values / piece.scale.to(values.dtype)
        return nn.functional.pad(values, (0, -len(values) % size)).view(-1, size)

    def take(self, rows: Int[Tensor, " r"], progress: Progress) -> Float[Tensor, "r s"]:
        """The blocks at `rows`, in their order."""
        ordered, order = rows.sort()
        taken = torch.empty(
            len(rows), self.layout.block_size, dtype=self.dtype, device="cpu"
        )
        for piece in self.pieces():
            blocks = self.blocks(piece)
            ends = torch.tensor([piece.row, piece.row + len(blocks)], device="cpu")
            low, high = torch.searchsorted(ordered, ends).tolist()
            taken[order[low:high]] = blocks[ordered[low:high] - piece.row]
            progress("reading weights", piece.row + len(blocks), self.layout.num_blocks)
        return taken


def check_squares(flat: Tensor, name: str) -> None:
    """Refuses weights so small that their squares are 0.

    Raises:
        ValueError: if the largest is; names the tensor.
    """
    if 0 < (largest := float(flat.abs().max())) < LEAST_WEIGHT:
        raise ValueError(
            f"weights must be 0 or at least {LEAST_WEIGHT} to be squared, got at most "
            f"{largest} in tensor {name!r} (exclude it to store it as it is)"
        )


def measured_scales(
    weights: Weights, kind: Scales, progress: Progress
) -> tuple[Float32[Tensor, " c"], ...]:
    """The root mean square of each tensor or output channel, to 8 bits."""
    return tuple(map(rounded_roots, mean_squares(weights, kind, progress)))


def mean_squares(
    weights: Weights, kind: Scales, progress: Progress
) -> list[Float64[Tensor, " c"]]:
    """The mean square of the weights of each tensor or output channel."""
    places = weights.layout.placements
    sums = [
        torch.zeros(num_scales(kind, p.shape, p.axis), dtype=torch.float64, device="cpu")
        for p in places
    ]
    for piece in weights.pieces():
        _add_squares(sums[piece.number], piece)
        progress("measuring scales", piece.number + 1, len(places))
    return [
        own * len(own) / place.num_weights for place, own in zip(places, sums, strict=True)
    ]


def _add_squares(sums: Float64[Tensor, " c"], piece: Piece) -> None:
    """Adds the squares of the weights of a piece to those of their channels."""
    flat, place, start = piece.flat, piece.place, piece.start
    if len(sums) == 1:
        sums += sums_of_squares(flat[None])
    elif place.axis:
        squares = flat.double().square()
        sums.index_add_(0, channels_of(place, start, start + len(flat)), squares)
    else:
        size = place.num_weights // len(sums)
        head = min(-start % size, len(flat))
        rows = (len(flat) - head) // size
        first, tail = -(-start // size), head + rows * size
        if head:
            sums[start // size] += sums_of_squares(flat[None, :head])[0]
        sums[first : first + rows] += sums_of_squares(flat[head:tail].view(rows, size))
        if tail < len(flat):
            sums[first + rows] += sums_of_squares(flat[None, tail:])[0]


def sums_of_squares(rows: Float[Tensor, "r n"]) -> Float64[Tensor, " r"]:
    """The sum of squares of each row."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()


def check_calibration(
    source: object, config: Config, calibration: object, loss: object
) -> None:
    """Refuses a calibration that rounding cannot use.

    Raises:
        TypeError: if `loss` is not a function.
        ValueError: if it or the calibration is given alone, the source has no gradients, or
            `config` does not round weight by weight.
    """
    if calibration is None:
        if loss is not None:
            raise ValueError("loss must be given with calibration, got it alone")
        return
    if loss is None:
        raise ValueError(
            "loss must be given with calibration: loss(batch) runs the Module, got none"
        )
    if not callable(loss):
        raise TypeError(f"loss must be a function, got {loss!r}")
    if not isinstance(source, nn.Module):
        raise ValueError(
            "calibration must be given with a Module as the source, got a path"
        )
    if not isinstance(config, LatticeConfig):
        raise ValueError(
            "calibration must be given with a LatticeConfig, got a MosaicConfig"
        )
    if config.block_size != 1 or not config.rate_weight:
        raise ValueError(
            "calibration must be given with a block_size of 1 and a rate_weight above 0, got "
            f"{config.block_size} and {config.rate_weight:g}"
        )


def importance_of(
    weights: Weights, sensitivities: Mapping[str, Tensor] | None
) -> dict[str, Float32[Tensor, " n"]]:
    """Importance of the squared error, in steps, of each weight, by tensor.

    It is the root of the sensitivity in steps: the sensitivity itself does worse
    (docs/compressing.md). Its mean over the network is 1, so that a rate weight means the same with
    and without. A tensor without sensitivities (a buffer, or frozen) has importance 1.

    Raises:
        ValueError: if sensitivities are not finite, or all are 0.
    """
    if sensitivities is None:
        return {}
    raw = {place.name: flat for place, flat in _roots(weights, sensitivities)}
    total = sum(float(flat.double().sum()) for flat in raw.values())
    if not total > 0:
        raise ValueError(
            "the loss must depend on the weights to be rounded, got gradients of 0 for all"
        )
    mean = total / sum(flat.numel() for flat in raw.values())
    return {name: flat.div_(mean).clamp_(min=LEAST) for name, flat in raw.items()}


def _roots(
    weights: Weights, sensitivities: Mapping[str, Tensor]
) -> Iterator[tuple[Placement, Float32[Tensor, " n"]]]:
    """The root of the sensitivity of the loss to each weight, in units of its step."""
    for number, place in enumerate(weights.layout.placements):
        if place.name not in sensitivities:
            continue
        flat = sensitivities[place.name].detach().cpu().float().reshape(-1).clone()
        if not bool(torch.isfinite(flat).all()):
            raise ValueError(
                f"squared gradients must be finite, got others for tensor {place.name!r}"
            )
        flat.sqrt_()
        if weights.scales is not None:
            flat.mul_(spread(weights.scales[number], place, 0, place.num_weights))
        yield place, flat
