"""Accumulators of measures, which are fed one tensor at a time, and the views they look at.

A view is computed only when needed, and once.
"""

from collections.abc import Callable
from functools import cached_property
from math import log2
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from momos.complexity import (
    PublishedRates,
    Qubd,
    block_counts,
    byte_planes,
    compressed_bits,
    count_symbols,
    kt_from_counts,
    ordered_length,
    pcodec_bits,
    place_code,
    published_rates,
    qubd,
    raw_bytes,
    score,
    shuffled,
    sign_exponents,
    split_code,
    ternary,
    uniform_codes,
)
from momos.complexity.compressors import Name
from momos.complexity.views import float_format

BLOCK = 12  # cells of a sequence that BDM looks up
ORDER = 4


class View:
    """A tensor, its name, and what is derived from it."""

    def __init__(self, name: str, weight: Tensor) -> None:
        if weight.is_meta:
            raise ValueError(f"weights must hold values, got a meta tensor {name!r}")
        weight = weight.resolve_neg()
        low, high = weight.aminmax()
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise ValueError(
                f"weights must be finite, got NaN or infinite values in tensor {name!r}"
            )
        self.name = name
        self.weight = weight

    @cached_property
    def signs(self) -> np.ndarray:
        """0, 1, 2 for negative, zero, positive weights, row-major."""
        return ternary(self.weight).cpu().contiguous().view(-1).numpy()

    @cached_property
    def positive(self) -> np.ndarray:
        """1 for positive weights and 0 for others, as bytes."""
        return (self.signs == 2).view(np.uint8)

    def shuffled(self, seed: int) -> "Shuffled":
        return Shuffled(self, seed)


class Shuffled(View):
    """The same values, shuffled by a seed. Each view is shuffled when it is needed."""

    def __init__(self, of: View, seed: int) -> None:
        self.name = of.name
        self.of = of
        self.seed = seed

    @cached_property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        generator = torch.Generator().manual_seed(self.seed)
        return shuffled(self.of.weight, generator)

    @cached_property
    def signs(self) -> np.ndarray:
        signs = self.of.signs.copy()
        np.random.default_rng(self.seed).shuffle(signs)
        return signs


class SignCounts:
    """Counts of negative, zero and positive weights."""

    def __init__(self) -> None:
        self.counts = np.zeros(3, dtype=np.int64)

    def add(self, view: View) -> None:
        self.counts += np.bincount(view.signs, minlength=3)

    def bits(self) -> float:
        return kt_from_counts(self.counts)


class SignContexts:
    """Counts of the sign after each four signs, within each tensor."""

    def __init__(self) -> None:
        self.counts = torch.zeros(3**ORDER, 3, dtype=torch.int64, device="cpu")
        self.raw = 0

    def add(self, view: View) -> None:
        self.raw += min(ORDER, len(view.signs))
        if len(view.signs) > ORDER:
            self.counts += count_symbols(view.signs, alphabet=3, order=ORDER)

    def bits(self) -> float:
        return kt_from_counts(self.counts) + self.raw * log2(3)


class SignBlocks:
    """Blocks of 12 of the signs w > 0 of all tensors in a row."""

    def __init__(self) -> None:
        self.counts = np.zeros(1 << BLOCK, dtype=np.int64)
        self.rest = np.empty(0, dtype=np.uint8)

    def add(self, view: View) -> None:
        cells = np.concatenate([self.rest, view.positive])
        whole = len(cells) // BLOCK * BLOCK
        if whole:
            self.counts += block_counts(cells[:whole])
        self.rest = cells[whole:].copy()

    def bdm(self) -> float:
        if not self.counts.any():
            raise ValueError(f"BDM needs at least {BLOCK} weights, got {len(self.rest)}")
        return score(self.counts)

    def ordered_bits(self) -> float:
        sides = (int(self.counts.sum()) * BLOCK + len(self.rest),)
        return ordered_length(self.counts, sides)


class PackedSigns:
    """The signs w > 0 of all tensors in a row, eight to a byte."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.rest = np.empty(0, dtype=np.uint8)

    def add(self, view: View) -> None:
        cells = np.concatenate([self.rest, view.positive])
        whole = len(cells) // 8 * 8
        self.parts.append(np.packbits(cells[:whole]))
        self.rest = cells[whole:].copy()

    def bits(self, name: Name) -> float:
        payload = np.concatenate([*self.parts, np.packbits(self.rest)])
        return float(compressed_bits(payload.tobytes(), name))


class BytePlanes:
    """The bytes of all weights of a dtype in a row: all first bytes, then all second ones."""

    def __init__(self) -> None:
        self.parts: dict[torch.dtype, list[torch.Tensor]] = {}

    def add(self, view: View) -> None:
        self.parts.setdefault(view.weight.dtype, []).append(byte_planes(view.weight).cpu())

    def bits(self, name: Name) -> float:
        payloads = (raw_bytes(torch.cat(parts, dim=1)) for parts in self.parts.values())
        return float(sum(compressed_bits(payload, name) for payload in payloads))


class Pcodec:
    """Each tensor by pcodec, which codes numbers and not bytes."""

    def __init__(self) -> None:
        self.total = 0.0

    def add(self, view: View) -> None:
        self.total += pcodec_bits(view.weight.reshape(-1))

    def bits(self) -> float:
        return self.total


class Codes:
    """Codes of a few bits between the extremes of each tensor, each tensor coded for itself."""

    num_bits: ClassVar[int]

    def __init__(self) -> None:
        self.total = 0.0

    def add(self, view: View) -> None:
        codes = uniform_codes(view.weight, bits=self.num_bits)
        counts = torch.bincount(codes.reshape(-1).int(), minlength=1 << self.num_bits)
        self.total += (
            kt_from_counts(counts) + 16 * view.weight.itemsize
        )  # and both extremes

    def bits(self) -> float:
        return self.total


class Codes2(Codes):
    num_bits = 2


class Codes4(Codes):
    num_bits = 4


class Codes8(Codes):
    num_bits = 8


class Places:
    """The places of the weights that are not zero, tensor by tensor."""

    def __init__(self) -> None:
        self.total = 0.0

    def add(self, view: View) -> None:
        self.total += place_code(view.weight)

    def bits(self) -> float:
        return self.total


class Split4:
    """Codes of 4 bits, each tensor with the context that suits it: what is learned, and the rest."""

    def __init__(self) -> None:
        self.model = self.residual = 0.0

    def add(self, view: View) -> None:
        split = split_code(uniform_codes(view.weight, bits=4), alphabet=16)
        self.model += split.model + 16 * view.weight.itemsize  # and both extremes
        self.residual += split.residual

    def bits(self) -> float:
        return self.model + self.residual


class FloatHeads:
    """Counts of signs and exponents together, in their dtype, and bits of the mantissas."""

    def __init__(self) -> None:
        self.counts: dict[torch.dtype, torch.Tensor] = {}
        self.raw = 0

    def add(self, view: View) -> None:
        form = float_format(view.weight)
        heads = sign_exponents(view.weight).reshape(-1).cpu()
        counts = torch.bincount(heads.int(), minlength=2 << form.exponent)
        dtype = view.weight.dtype
        self.counts[dtype] = self.counts.get(dtype, 0) + counts
        self.raw += form.mantissa * len(heads)

    def bits(self) -> float:
        return sum(kt_from_counts(counts) for counts in self.counts.values()) + self.raw


class Published:
    """Bytes of all weights in a row, and their rates with the compressors of the paper."""

    payload: Callable[[View], bytes]

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def add(self, view: View) -> None:
        self.parts.append(type(self).payload(view))

    @cached_property
    def rates(self) -> PublishedRates:
        return published_rates(b"".join(self.parts))

    def gzip(self) -> float:
        return self.rates.gzip

    def bz2(self) -> float:
        return self.rates.bz2

    def lzma(self) -> float:
        return self.rates.lzma


class PublishedFloats(Published):
    @staticmethod
    def payload(view: View) -> bytes:
        floats = view.weight.float()
        if not bool(torch.isfinite(floats).all()):
            raise ValueError(
                f"weights must fit float32, got {float(view.weight.abs().max())}"
            )
        return raw_bytes(floats)


class PublishedSigns(Published):
    @staticmethod
    def payload(view: View) -> bytes:
        return view.positive.tobytes()


class QubdPlanes:
    """The QuBD scores of all matrices named weight, plane by plane."""

    def __init__(self) -> None:
        self.found: list[Qubd] = []
        self.num_weights = self.raw_bits = 0  # of those that have a score

    def add(self, view: View) -> None:
        shape = view.weight.shape
        if view.name.rpartition(".")[2] != "weight" or len(shape) < 2:
            return
        if shape[0] >= 4 and view.weight[0].numel() >= 4:
            self.found.append(qubd(view.weight))
            self.num_weights += view.weight.numel()
            self.raw_bits += 8 * view.weight.nbytes

    def value(self, plane: int | None) -> float:
        if not self.found:
            raise ValueError("QuBD needs a matrix named weight of at least 4×4, got none")
        if plane is None:
            return sum(one.total for one in self.found)
        return sum(one.planes[plane] for one in self.found)
