"""Length of a network's weights in bits, as something that training can make smaller.

The step from one whole number to the next costs bits, so a weight's code length, interpolated
between whole numbers, has a slope: the expected change if it were rounded at random (Oktay et al.
2020 train by that expectation). Code lengths are those of an ideal adaptive code that knows how
often weights of each row and each column are not zero, as the file's own code does nearly.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from momos.learning.bank import Bank
from momos.learning.parametrize import bank_of
from momos.learning.tiles import WeightTile
from momos.stored import spread

PRIOR = 2.0  # weights that a row or column is taken to have had before its own
MOST_SHARE = 0.98  # of weights that are not zero in a row or column, so that none costs nothing
LN2 = math.log(2)
MAGNITUDES = 32  # beyond which all are taken to be equally frequent


def code_length(model: nn.Module) -> Float[Tensor, ""]:
    """Bits that the indices of `model` take, a scalar whose gradient makes them fewer.

    `model` is parametrized with `selection="whole"`. The gradient goes to latent weights and to
    scales. Added to the loss times a rate weight (in loss per bit), it makes files small:
    `Reassign.penalty` is that product. The number is an estimate of the indices' part of the
    file.

    Raises:
        ValueError: if the motifs of `model` are not being learned, or not whole numbers.
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
        zero: Of a weight that is zero.
        other: How many more one takes that is not, sign and magnitude apart.
        magnitude: Bits of sign and magnitude, by the magnitude; the first is 0.
    """

    zero: Float[Tensor, "rows columns"]
    other: Float[Tensor, "rows columns"]
    magnitude: Float[Tensor, " sizes"]

    @classmethod
    def of(cls, sizes: Float[Tensor, "rows columns"]) -> "Costs":
        """By how often the magnitudes `sizes` are not zero in each row and column."""
        rows, columns = sizes.shape
        used = sizes > 0
        share = (used.sum() + 1) / (sizes.numel() + 2)
        log_odds = _log_odds(share)
        if rows > 1 and columns > 1:
            of_row = (used.sum(1) + PRIOR * share) / (columns + PRIOR)
            of_column = (used.sum(0) + PRIOR * share) / (rows + PRIOR)
            row = _log_odds(of_row.clamp(max=MOST_SHARE)) - log_odds
            log_odds = _log_odds(of_column.clamp(max=MOST_SHARE)) + row[:, None]
        log_odds = log_odds.expand(rows, columns)
        zero = nn.functional.softplus(log_odds * LN2) / LN2
        counts = torch.zeros(MAGNITUDES + 1, device=sizes.device)
        counts += torch.histc(sizes.clamp(max=MAGNITUDES), MAGNITUDES + 1, -0.5, MAGNITUDES + 0.5)
        shares = counts[1:] + 0.5
        bits = 1 - (shares / shares.sum()).log2()
        magnitude = torch.cat([bits.new_zeros(1), bits.cummax(0).values])
        return cls(zero, -log_odds, magnitude)



def _log_odds(share: Tensor) -> Tensor:
    return (share / (1 - share)).log2()


def _tensor_length(bank: Bank, tile: WeightTile) -> Float[Tensor, ""]:
    """Bits of one parameter; the gradient is the slope of the interpolated code lengths."""
    place, latent = tile.place, tile.latent
    rows = place.shape[0] if len(place.shape) > 1 else 1
    with torch.no_grad():
        indices = bank.indices[place.start : place.stop]
        sizes = ((indices + 1) // 2).view(rows, -1).float()
        costs = Costs.of(sizes)
        bits = costs.zero.sum() + (costs.other * (sizes > 0)).sum()
        whole = sizes.long().clamp_(max=MAGNITUDES)
        bits = bits + costs.magnitude[whole].sum()
        scale = bank.scales[slice(*bank.span(place))]
        scale = spread(scale, place, 0, place.num_weights)
        scaled = latent.detach().reshape(-1).float() / scale
        near = scaled.abs().view(rows, -1)
        below = near.long().clamp_(max=MAGNITUDES - 1)
        slope = costs.magnitude.diff()[below]
        slope = (slope + costs.other * (near < 1)).clamp_(min=0).view(-1)
        pull = (slope * scaled.sign() / scale).view(place.shape).to(latent.dtype)
        shrink = -slope * near.view(-1)
    growth = bank.growth(place)
    shrink = shrink if len(growth) > 1 else shrink.sum()
    linear = (pull * latent).sum() + (shrink * growth).sum()
    return bits + (linear - linear.detach())
