"""The two-part code of a mosaic: first the motifs, then the index of each block's motif.

Compared with k·s·q + m·ceil(log2 k) bits (Bakhtiarifard et al. 2026) it leaves out motifs that no block
uses, codes the exponents of the others, and codes frequent motifs shorter.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8, Integer
from torch import Tensor

from momos.complexity.codes import elias_delta_bits, kt_code, kt_from_counts
from momos.complexity.views import float_code


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
    usage = _usage(indices, num_motifs)
    used = usage.nonzero()[:, 0]
    motifs = motif_values.detach()[used.to(motif_values.device)]
    return TwoPart(
        dictionary=_dictionary(motifs),
        mosaic=kt_from_counts(usage[used]) if len(used) else 0.0,
        sizes=sum(
            elias_delta_bits(size + 1)
            for size in (motif_values.shape[1], len(used), len(indices))
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
