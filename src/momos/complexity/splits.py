"""Codes that say what of their length is structure, and what is left over.

The split of a code into a model, and what stays random once the model is known, is the idea of
two-part codes (Rissanen 1978) and of epiplexity (Finzi et al. 2026,
arXiv 2601.03220), which asks it of a computationally bounded observer. Here the observer is a small one:
it counts symbols after the few before them. What it pays to learn the counts is its prequential
code less the entropy under the final counts, which is how that paper estimates structure too.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from momos.complexity.codes import count_symbols, elias_delta_bits, kt_from_counts


@dataclass(frozen=True)
class Split:
    """A code length in bits, in two parts; `order` is the context that gave the shortest code.

    Example:
        >>> split = momos.complexity.split_code(torch.arange(4000) % 4, alphabet=4)
        >>> split.order, split.total == split.model + split.residual
        (1, True)
    """

    model: float
    residual: float
    order: int

    @property
    def total(self) -> float:
        """Both parts."""
        return self.model + self.residual


def split_code(
    symbols: Tensor | np.ndarray, *, alphabet: int, most_order: int = 2
) -> Split:
    """The shortest Krichevsky–Trofimov code of orders 0 to `most_order`, split.

    `residual` is what the symbols take once the frequencies after each context are known: their
    empirical conditional entropy, and the first symbols, which have no context. `model` is what
    the code pays to learn the frequencies, and to say the order. A longer context is chosen
    only if it saves more than it costs, so random symbols have a small model, and so have
    symbols whose structure no such context shows.

    Raises:
        TypeError: if the symbols are not integers or booleans.
        ValueError: as `kt_code`.

    Example:
        >>> random = torch.randint(4, (4000,))
        >>> split = momos.complexity.split_code(random, alphabet=4)
        >>> split.order, split.model < 50, split.residual > 7900
        (0, True, True)
    """
    splits = []
    for order in range(most_order + 1):
        counts = count_symbols(symbols, alphabet=alphabet, order=order)
        raw = min(order, math.prod(symbols.shape)) * math.log2(alphabet)
        residual = raw + _entropy(counts)
        said = math.log2(most_order + 1)
        model = max(0.0, raw + kt_from_counts(counts) - residual) + said
        splits.append(Split(model, residual, order))
    return min(splits, key=lambda split: split.total)


def _entropy(counts: Tensor) -> float:
    """Bits of sequences with these counts, by their own frequencies."""
    totals = counts.sum(1, keepdim=True).double()
    shares = counts.double() / totals.clamp(min=1)
    return float(-(counts * torch.where(counts > 0, shares, 1.0).log2()).sum()) + 0.0


def place_code(weight: Tensor) -> float:
    """Bits that say which weights are not zero, each by its place: nnz·⌈log2 n⌉, and how many.

    Arguments from minimum norm count a network by nnz·log n (arXiv 2605.10878). The number of weights is known
    to the decoder. Dense weights cost log2 n bits each, so this bounds pruned networks only.

    Example:
        >>> weight = torch.zeros(1024)
        >>> weight[:8] = 1.0
        >>> momos.complexity.place_code(weight)  # 8 · 10, and 8 for the number
        88.0
    """
    places = max(weight.numel() - 1, 0).bit_length()
    used = int(torch.count_nonzero(weight))
    return float(used * places + elias_delta_bits(used + 1))
