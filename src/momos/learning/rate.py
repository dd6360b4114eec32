"""Length of a network's weights in bits, as something that training can make smaller.

The step from one whole number to the next costs bits, so a weight's code length, interpolated
between whole numbers, has a slope: the expected change if it were rounded at random (Oktay et al.
2020 train by that expectation). Code lengths are those of an ideal adaptive code that knows how
often weights of each row and each column are not zero, as the file's own code does nearly.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor, nn

from momos.learning import _slopes as native
from momos.learning.bank import Bank
from momos.learning.parametrize import bank_of
from momos.learning.tiles import WeightTile
from momos.mosaic import usage_of
from momos.stored import spread

PRIOR = 2.0  # weights that a row or column is taken to have had before its own
MOST_SHARE = (
    0.98  # of weights that are not zero in a row or column, so that none costs nothing
)


def code_length(model: nn.Module) -> Float[Tensor, ""]:
    """Bits that the indices of `model` take, a scalar whose gradient makes them fewer.

    `model` is parametrized with `selection="whole"`. The gradient goes to latent weights and to
    scales. Added to the loss times a rate weight (in loss per bit), it makes files small:
    `Reassign.penalty` is that product. The number is an estimate of the indices' part of the
    file.

    Raises:
        ValueError: if the motifs of `model` are not being learned, or not whole numbers.

    Example:
        >>> model = nn.Linear(64, 10)
        >>> config = momos.MosaicConfig.learned(selection="whole")
        >>> _ = momos.parametrize_(model, config, learn="weights")
        >>> bits = momos.code_length(model)
        >>> 0 < bits.item() < 32 * 640, bits.requires_grad
        (True, True)
    """
    bank = bank_of(model)
    if not bank.whole:
        raise ValueError(
            f"selection must be 'whole' for code_length, got {bank.config.selection!r}"
        )
    return code_length_of(bank)


def code_length_of(bank: Bank) -> Float[Tensor, ""]:
    """The same for the bank of a model."""
    lengths = [_tensor_length(bank, tile) for tile in bank.tiles]
    return torch.stack(lengths).sum()


@dataclass(frozen=True, eq=False)
class Costs:
    """Bits of the weights of one matrix.

    Attributes:
        log_odds: Of a weight that is not zero, in bits: how many more a zero saves.
        magnitude: Bits of sign and magnitude, by the magnitude; the first is 0.
        total: Bits of all weights.
    """

    log_odds: Float[Tensor, "rows columns"]
    magnitude: Float[Tensor, " sizes"]
    total: Float[Tensor, ""]

    @classmethod
    def of(cls, indices: Int32[Tensor, "rows columns"], num_motifs: int) -> "Costs":
        """By how often weights are not zero in each row and column, and their magnitudes."""
        rows, columns = indices.shape
        used = (indices > 0).float()
        of_row, of_column = used.sum(1), used.sum(0)
        share = (of_row.sum() + 1) / (indices.numel() + 2)
        row, column = _log_odds(share).expand(rows), torch.zeros_like(of_column)
        if rows > 1 and columns > 1:
            in_row = (of_row + PRIOR * share) / (columns + PRIOR)
            in_column = (of_column + PRIOR * share) / (rows + PRIOR)
            row = _log_odds(in_row.clamp(max=MOST_SHARE)) - row
            column = _log_odds(in_column.clamp(max=MOST_SHARE))
        log_odds = row[:, None] + column
        zeros = (1 + row.exp2()[:, None] * column.exp2()).log2_().sum()
        usage = usage_of(indices.reshape(-1), num_motifs).float()
        counts = usage[1::2] + usage[2::2]
        bits = 1 - ((counts + 0.5) / (counts + 0.5).sum()).log2()
        magnitude = torch.cat([bits.new_zeros(1), bits.cummax(0).values])
        others = (counts * magnitude[1:]).sum()
        return cls(log_odds, magnitude, zeros - (log_odds * used).sum() + others)

    def slopes(self, sizes: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Bits for one more, at magnitudes that need not be whole; never below 0."""
        steps = self.magnitude.diff()
        slopes = (steps[0] - self.log_odds).clamp_(min=0)
        large = (sizes >= 1).nonzero(as_tuple=True)
        slopes[large] = steps[sizes[large].long().clamp_(max=len(steps) - 1)]
        return slopes


def _log_odds(share: Tensor) -> Tensor:
    return (share / (1 - share)).log2()


def _tensor_length(bank: Bank, tile: WeightTile) -> Float[Tensor, ""]:
    """Bits of one parameter; the gradient is the slope of the interpolated code lengths."""
    place, latent = tile.place, tile.latent
    rows = place.shape[0] if len(place.shape) > 1 else 1
    with torch.no_grad():
        bits, pull, shrink = _slopes(bank, tile, rows)
    return _Length.apply(latent, bank.growth(place), bits, pull, shrink)  # type: ignore


class _Length(torch.autograd.Function):
    """`bits`, whose gradients in latent weights and scales are `pull` and `shrink`."""

    @staticmethod
    def forward(
        latent: Tensor, growth: Tensor, bits: Tensor, pull: Tensor, shrink: Tensor
    ) -> Tensor:
        return bits.view_as(bits)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, growth, _, pull, shrink = inputs
        ctx.save_for_backward(pull, shrink if len(growth) > 1 else shrink.sum().view(1))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        pull, shrink = ctx.saved_tensors
        return gradients[0] * pull, gradients[0] * shrink, None, None, None


def _slopes(bank: Bank, tile: WeightTile, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bits of one parameter, and how they change with each latent weight and with scales."""
    latent = tile.latent
    fast = latent.device.type == "cpu" and latent.dtype == torch.float32
    if fast and bank.config.scales == "tensor" and latent.is_contiguous():
        return _slopes_compiled(bank, tile, rows)
    return slopes_reference(bank, tile, rows)


def _slopes_compiled(
    bank: Bank, tile: WeightTile, rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    place, latent = tile.place, tile.latent.detach()
    pull = torch.empty_like(latent)
    bits, shrink = native.slopes(
        latent.reshape(-1).numpy(),
        bank.indices[place.start : place.stop].numpy(),
        pull.view(-1).numpy(),
        rows,
        place.num_weights // rows,
        len(bank.motifs),
        float(bank.scales[bank.span(place)[0]]),
    )
    return latent.new_tensor(bits), pull, latent.new_tensor(shrink)


def slopes_reference(
    bank: Bank, tile: WeightTile, rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition of what the compiled code computes, on any device."""
    place, latent = tile.place, tile.latent
    indices = bank.indices[place.start : place.stop].view(rows, -1)
    costs = Costs.of(indices, len(bank.motifs))
    scale = bank.scales[slice(*bank.span(place))]
    scale = spread(scale, place, 0, place.num_weights)
    scale = scale.view(rows, -1) if len(scale) > 1 else scale
    weights = latent.detach().reshape(rows, -1).float()
    sizes = weights.abs() / scale
    slopes = costs.slopes(sizes)
    pull = (weights.sign() * slopes).div_(scale).view(place.shape).to(latent.dtype)
    shrink = slopes.mul_(sizes).neg_().view(-1)
    return costs.total, pull, shrink
