"""Code lengths in bits: of symbols, by their frequencies; of floats; of mosaics, in two parts.

Of symbols only counts enter, so pieces can be counted one by one and their counts added.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int8, Int64, Integer
from torch import Tensor

from momos.complexity.views import PIECE, float_format, sign_exponents

LARGEST_TABLE = 1 << 24  # counts held at once: 128 MiB
LOG_ROOT_2PI = math.log(2 * math.pi) / 2


def kt_code(symbols: Tensor | np.ndarray, *, alphabet: int, order: int = 0) -> float:
    """Bits of the Krichevsky–Trofimov code of `symbols`, read row-major.

    The code is sequential: after n symbols, n_x of them x, the next is x with probability
    (n_x + 1/2) / (n + alphabet/2); with an `order`, counted apart for each context of the
    `order` symbols before. The first `order` symbols have no context and are written raw,
    log2(alphabet) bits each. The decoder must know how many symbols there are.

    Raises:
        TypeError: if the symbols are not integers or booleans.
        ValueError: if a symbol is not in 0 to alphabet - 1, or alphabet^(order + 1) is above
            2^24.

    Example:
        >>> constant = torch.zeros(1000, dtype=torch.int64)
        >>> round(momos.kt_code(constant, alphabet=2), 2)
        5.81
        >>> coin = torch.arange(1000) % 2
        >>> round(momos.kt_code(coin, alphabet=2), 1)
        1005.3
        >>> round(momos.kt_code(coin, alphabet=2, order=1), 1)
        11.6
    """
    counts = count_symbols(symbols, alphabet=alphabet, order=order)
    num_symbols = math.prod(symbols.shape)
    return min(order, num_symbols) * math.log2(alphabet) + kt_from_counts(counts)


def kt_from_counts(counts: Tensor | np.ndarray) -> float:
    """Bits of the Krichevsky–Trofimov code of sequences with these counts.

    The last dimension is the alphabet. All others are contexts, each coded for itself.

    Raises:
        TypeError: if the counts are not integers.
        ValueError: if there is no alphabet, or a count is negative.

    Example:
        >>> round(momos.complexity.kt_from_counts(torch.tensor([500, 500])), 1)
        1005.3
    """
    # With x = n + 1/2 and X = N + K/2, the length lgamma(X) - lgamma(K/2) - sum(lgamma(x) -
    # lgamma(1/2)) is written by Stirling's formula, its linear terms cancelled by hand and its
    # remainders kept. So nothing large is subtracted: of a short code of many symbols, lgamma
    # itself would leave no digit.
    table = _counts(counts)
    half = table.new_tensor(table.shape[1] / 2, dtype=torch.float64)
    totals = table.sum(1)
    rows, columns = table.nonzero(as_tuple=True)
    used = table[rows, columns].double()
    others = totals[rows].double() + half - used - 0.5
    symbols = used * (others / (used + 0.5)).log1p()
    symbols += _remainder(half.new_tensor(0.5)) - _remainder(used + 0.5)
    lengths = totals[totals > 0].double()
    contexts = (half - 0.5) * (lengths / half).log1p()
    contexts += _remainder(lengths + half) - _remainder(half)
    return float(symbols.sum() + contexts.sum()) / math.log(2)


def count_symbols(
    symbols: Tensor | np.ndarray, *, alphabet: int, order: int = 0
) -> Int64[Tensor, "contexts alphabet"]:
    """How often each symbol follows each context of `order` symbols; on the symbols' device.

    Contexts are numbers to the base `alphabet`, their earliest symbol the leading digit.

    Raises: as `kt_code`.

    Example:
        >>> symbols = torch.tensor([0, 1, 0, 1, 1])
        >>> momos.complexity.count_symbols(symbols, alphabet=2, order=1)
        tensor([[0, 2],
                [1, 1]])
    """
    size = _table_size(alphabet, order)
    flat = _symbols(symbols)
    device = flat.device if isinstance(flat, Tensor) else "cpu"
    counts = torch.zeros(size, dtype=torch.int64, device=device)
    step = max(PIECE, size)
    for start in range(0, len(flat), step):
        window = _integers(flat[start : start + step + order])
        low, high = (int(end) for end in window.aminmax())
        if low < 0 or high >= alphabet:
            raise ValueError(
                f"symbols must be 0 to {alphabet - 1}, got {low if low < 0 else high}"
            )
        if (num_counted := len(window) - order) > 0:
            packed = window[:num_counted]
            for shift in range(1, order + 1):
                symbol = window[shift : shift + num_counted]
                packed = torch.add(symbol, packed, alpha=alphabet)
            counts += packed.bincount(minlength=size)
    return counts.view(-1, alphabet)


def elias_delta_bits(number: int) -> int:
    """Bits of Elias's delta code of a number from 1 (Elias 1975): any number, no bound known.

    Raises:
        ValueError: if the number is below 1.

    Example:
        >>> [momos.complexity.elias_delta_bits(number) for number in (1, 2, 100)]
        [1, 4, 11]
    """
    if number < 1:
        raise ValueError(f"number must be at least 1, got {number}")
    length = number.bit_length()
    return length - 1 + 2 * (length.bit_length() - 1) + 1


def _remainder(x: Tensor) -> Float64[Tensor, "..."]:
    """lgamma(x) less Stirling's formula for it, x >= 1/2, to 1e-14 (as Loader 2000, §2)."""
    small = x.clamp(max=16)
    exact = small.lgamma() - ((small - 0.5) * small.log() - small + LOG_ROOT_2PI)
    square = x.reciprocal().square()
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / x
    return torch.where(x < 16, exact, series)


def _table_size(alphabet: int, order: int) -> int:
    if alphabet < 1:
        raise ValueError(f"alphabet must be at least 1, got {alphabet}")
    if order < 0:
        raise ValueError(f"order must be at least 0, got {order}")
    # Orders above 24 are refused by their number, since the power may not fit a machine.
    if alphabet > 1 and (order > 24 or alphabet ** (order + 1) > LARGEST_TABLE):
        raise ValueError(
            f"alphabet ** (order + 1) must be at most 2^24, got {alphabet} ** {order + 1}"
        )
    return alphabet ** (order + 1)


def _symbols(values: Tensor | np.ndarray, name: str = "symbols") -> Tensor | np.ndarray:
    """`values` in one dimension, known to be integers or booleans."""
    if isinstance(values, Tensor):
        whole = not (values.is_floating_point() or values.is_complex())
    elif isinstance(values, np.ndarray):
        whole = values.dtype.kind in "bui"
    else:
        raise TypeError(
            f"{name} must be a tensor or a numpy array, got {type(values).__name__}"
        )
    if not whole:
        raise TypeError(f"{name} must be integers, got {values.dtype}")
    return values.reshape(-1)


def _integers(values: Tensor | np.ndarray) -> Int64[Tensor, " n"]:
    if isinstance(values, Tensor):
        return values.long()
    return torch.from_numpy(values.astype(np.int64))  # a copy, which torch may write to


def _counts(counts: Tensor | np.ndarray) -> Int64[Tensor, "contexts alphabet"]:
    """`counts` as a table on the CPU, where there is always float64."""
    flat = _integers(_symbols(counts, "counts")).cpu()
    if not counts.shape or not counts.shape[-1]:
        raise ValueError(
            "counts must have an alphabet as their last dimension, got shape "
            f"{tuple(counts.shape)}"
        )
    if len(flat) and (low := int(flat.min())) < 0:
        raise ValueError(f"counts must be at least 0, got {low}")
    return flat.view(-1, counts.shape[-1])


def float_code(weight: Tensor) -> float:
    """Bits of the weight: sign and exponent jointly by KT of order 0, mantissas as they are.

    Any bits are described, those of NaN too. On Gaussian float32 within 0.1 bits per weight of
    the entropy.

    Raises:
        TypeError: if the weight is not floating point.

    Example:
        >>> momos.complexity.float_code(torch.randn(10_000)) / 10_000 < 32
        True
    """
    form = float_format(weight)
    heads = weight.new_zeros((1, 2 << form.exponent), dtype=torch.int64)
    for piece in weight.detach().reshape(-1).split(PIECE):
        heads += count_symbols(sign_exponents(piece), alphabet=2 << form.exponent)
    return kt_from_counts(heads) + float(weight.numel() * form.mantissa)


@dataclass(frozen=True)
class TwoPart:
    """Lengths in bits; `num_used` motifs are in the dictionary.

    Example:
        >>> motifs, indices = torch.randn(4, 2), torch.arange(100) % 3
        >>> length = momos.complexity.two_part_code(motifs, indices, num_motifs=4)
        >>> length.num_used, length.total == length.dictionary + length.mosaic + length.sizes
        (3, True)
    """

    dictionary: float
    mosaic: float
    sizes: int
    num_used: int

    @property
    def total(self) -> float:
        """All three lengths."""
        return self.dictionary + self.mosaic + self.sizes


def two_part_code(
    motif_values: Float[Tensor, "k s"] | Int8[Tensor, "k s"],
    indices: Integer[Tensor, " m"],
    *,
    num_motifs: int,
) -> TwoPart:
    """The length of a mosaic whose decoder knows the dtype of its motifs and nothing else.

    - sizes: block size, used motifs and blocks, each n as Elias's delta code of n + 1.
    - dictionary: the used motifs, in their order, by `float_code`; whole ones as bytes by the
      Krichevsky–Trofimov code.
    - mosaic: the indices into that dictionary, by the Krichevsky–Trofimov code.

    Raises:
        TypeError: if the motifs are neither floating point nor int8, or the indices not integers.
        ValueError: if there are not `num_motifs` motifs, or an index names none of them.

    Example:
        >>> motifs, indices = torch.randn(4, 2), torch.zeros(1000, dtype=torch.int64)
        >>> momos.complexity.two_part_code(motifs, indices, num_motifs=4).mosaic < 10
        True
    """
    if motif_values.ndim != 2 or len(motif_values) != num_motifs:
        raise ValueError(
            f"motif_values must have shape ({num_motifs}, s), got {tuple(motif_values.shape)}"
        )
    return two_part_of(motif_values, _usage(indices, num_motifs))


def two_part_of(
    motif_values: Float[Tensor, "k s"] | Int8[Tensor, "k s"], usage: Int[Tensor, " k"]
) -> TwoPart:
    """`two_part_code` of the motifs and how often each is used, which is all that it depends on."""
    used = usage.nonzero()[:, 0]
    motifs = motif_values.detach()[used.to(motif_values.device)]
    return TwoPart(
        dictionary=_dictionary(motifs),
        mosaic=kt_from_counts(usage[used]) if len(used) else 0.0,
        sizes=sum(
            elias_delta_bits(size + 1)
            for size in (motif_values.shape[1], len(used), int(usage.sum()))
        ),
        num_used=len(used),
    )


def _dictionary(motifs: Tensor) -> float:
    if motifs.dtype == torch.int8:
        return kt_code(motifs.contiguous().view(torch.uint8), alphabet=256)
    return float_code(motifs)


def _usage(indices: Tensor, num_motifs: int) -> Tensor:
    """How often each motif is used."""
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise TypeError(f"indices must be integers, got {indices.dtype}")
    if indices.ndim != 1:
        raise ValueError(f"indices must have shape (m,), got {tuple(indices.shape)}")
    wide = indices.detach().long()
    if len(wide):
        low, high = (int(end) for end in wide.aminmax())
        if low < 0 or high >= num_motifs:
            raise ValueError(f"indices must be 0 to {num_motifs - 1}, got {low} to {high}")
    return wide.bincount(minlength=num_motifs)
