"""Weights, rows and products from motifs and packed indices, as registered torch operators.

`momos::compact_weight`, `compact_rows` and `compact_linear` have fake kernels, so that torch.compile
and torch.export see one operator each. Gradients flow to the inputs of a product; the weight is
decoded again for them and not kept.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from momos.compact import kernels
from momos.compact.bitpack import num_packed_bytes, unpack
from momos.mosaic import scaled

# Inputs up to which a product is computed from the packed indices: by table (block_size at least 2
# and whole blocks in a row), and row by row. Beyond, decoding and a dense product are faster
# (bench/compact.py).
MOST_BY_TABLE = 64
MOST_BY_ROW = 2
MOST_ON_CUDA = 64  # not yet measured
# Weights of a product that are decoded at once: few, as new memory costs more than decoding; and
# as many as most layers have where the product must be that of the dense weight.
TILE, EXACT_TILE = 1 << 20, 1 << 24

_LIBRARY = torch.library.Library("momos", "FRAGMENT")  # what it registers lives as long
_PACKED = "Tensor motifs, Tensor packed, Tensor? scales, int bits, int[] shape, int axis"
_DTYPES = "ScalarType stored, ScalarType dtype"
_LIBRARY.define(f"compact_weight({_PACKED}, {_DTYPES}) -> Tensor")
_LIBRARY.define(f"compact_rows(Tensor ids, {_PACKED}, {_DTYPES}) -> Tensor")
_LIBRARY.define(
    f"compact_linear(Tensor inputs, Tensor? bias, {_PACKED}, {_DTYPES}, bool exact) -> Tensor"
)
weight = torch.ops.momos.compact_weight.default
rows = torch.ops.momos.compact_rows.default
_LINEAR = torch.ops.momos.compact_linear.default


def linear(inputs: Tensor, bias: Tensor | None, *packed: Any) -> Tensor:
    """inputs · weightᵀ + bias in the dtype of `inputs`; `packed` are the operator's other arguments."""
    learned = inputs.requires_grad or (bias is not None and bias.requires_grad)
    if learned and torch.is_grad_enabled():
        return _Linear.apply(inputs, bias, *packed)
    return _LINEAR(inputs, bias, *packed)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(inputs: Tensor, bias: Tensor | None, *packed: Any) -> Tensor:
        return _LINEAR(inputs, bias, *packed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, bias, motifs, indices, scales, *numbers, _ = inputs
        ctx.save_for_backward(motifs, indices, scales)
        ctx.numbers, ctx.biased = numbers, bias is not None
        ctx.num_inputs = len(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        own = None
        if ctx.needs_input_grad[0]:
            own = gradient @ weight(*ctx.saved_tensors, *ctx.numbers).to(gradient.dtype)
        by_bias = None
        if ctx.biased and ctx.needs_input_grad[1]:
            by_bias = gradient.sum_to_size(gradient.shape[-1:])
        return own, by_bias, *[None] * (ctx.num_inputs - 2)


def blocks_reference(
    motifs: Tensor, packed: Tensor, bits: int, start: int, stop: int
) -> Tensor:
    """The motifs of the blocks `start` to `stop`."""
    return motifs.index_select(0, unpack(packed, bits, start, stop))


def linear_reference(inputs: Tensor, bias: Tensor | None, *packed: Any) -> Tensor:
    """The definition of `linear`: the product with the dense weight."""
    *numbers, _ = packed
    return F.linear(inputs, weight(*numbers).to(inputs.dtype), bias)


class Packed(NamedTuple):
    """A weight as the operators take it."""

    motifs: Tensor
    indices: Tensor
    scales: Tensor | None
    bits: int
    shape: Sequence[int]
    axis: int
    stored: torch.dtype
    dtype: torch.dtype

    @classmethod
    def checked(cls, *about: Any) -> "Packed":
        """The weight whose parts are `about`, if there are as many indices as it has blocks.

        Raises:
            ValueError: if there are not, or the parts are on several devices.
        """
        packed = cls(*about)
        _check_devices(packed.motifs, packed.indices)
        num_blocks = -(-prod(packed.shape) // packed.motifs.shape[1])
        needed = num_packed_bytes(num_blocks, packed.bits)
        if len(packed.indices) != needed:
            raise ValueError(
                f"packed indices of a weight of shape {tuple(packed.shape)} must have {needed} "
                f"bytes, got {len(packed.indices)}"
            )
        return packed

    def values(self, start: int, stop: int) -> Tensor:
        """Values of the motifs of the weights `start` to `stop`."""
        size = self.motifs.shape[1]
        first, last = start // size, -(-stop // size)
        decode = kernels.decode if self.motifs.device.type == "cpu" else blocks_reference
        blocks = decode(self.motifs, self.indices, self.bits, first, last)
        return blocks.view(-1)[start - first * size : stop - first * size]

    def rounded(self, values: Tensor, scales: Tensor | None) -> Tensor:
        """Values of motifs as the weight holds them, in the dtype that it gives."""
        return scaled(values, scales, self.stored).to(self.dtype)

    def scales_of_rows(self, rows: Tensor | slice) -> Tensor | None:
        """Scales in a shape that multiplies these rows of a matrix."""
        if self.scales is None or len(self.scales) == 1 or self.axis:
            return self.scales
        return self.scales[rows, None]


def _weight(*about: Any) -> Tensor:
    packed = Packed.checked(*about)
    scales = packed.scales
    if scales is not None and len(scales) > 1:
        scales = scales.view(
            [-1 if d == packed.axis else 1 for d in range(len(packed.shape))]
        )
    values = packed.values(0, prod(packed.shape)).view(*packed.shape)
    return packed.rounded(values, scales)


def _rows(ids: Tensor, *about: Any) -> Tensor:
    """Rows of a matrix; those of an embedding."""
    packed = Packed.checked(*about)
    _check_devices(ids, packed.indices)
    (count, width), flat = packed.shape, ids.reshape(-1)
    _check_ids(flat, count)
    if len(flat) * 4 > count:
        return F.embedding(ids, _weight(*about))
    at = flat.long()[:, None] * width + torch.arange(width, device=ids.device)
    size = packed.motifs.shape[1]
    indices = named(packed.indices, packed.bits, at // size).long()
    _check_indices(indices, len(packed.motifs))
    values = packed.motifs.view(-1)[indices * size + at % size]
    found = packed.rounded(values, packed.scales_of_rows(flat.long()))
    return found.view(*ids.shape, width)


def named(packed: Tensor, bits: int, blocks: Tensor) -> Tensor:
    """The indices of single blocks."""
    if bits in (4, 12):
        return unpack_at(packed, bits, blocks)
    size = bits // 8
    found = packed.view(-1, size)[blocks].int()
    shifts = torch.arange(size, device=packed.device, dtype=torch.int32) * 8
    return (found << shifts).sum(-1, dtype=torch.int32)


def unpack_at(packed: Tensor, bits: int, blocks: Tensor) -> Tensor:
    """Indices of 4 or 12 bits at single places."""
    odd = blocks % 2
    if bits == 4:
        return packed[blocks // 2].int() >> (4 * odd) & 15
    at = blocks // 2 * 3 + odd
    two = packed[at].int() | packed[at + 1].int() << 8
    return torch.where(odd > 0, two >> 4, two & 0xFFF)


def _linear(inputs: Tensor, bias: Tensor | None, *about: Any) -> Tensor:
    *parts, exact = about
    packed = Packed.checked(*parts)
    _check_devices(inputs, packed.indices)
    num_rows, width = packed.shape
    num_inputs = inputs.numel() // width
    if not exact and num_inputs and _pays(num_inputs, inputs, packed):
        return _from_packed(inputs, bias, packed)
    if num_rows * width <= (EXACT_TILE if exact else TILE):
        return F.linear(inputs, _weight(*packed).to(inputs.dtype), bias)
    return _in_tiles(inputs, bias, packed)


def _pays(num_inputs: int, inputs: Tensor, packed: Packed) -> bool:
    """Whether a product from packed indices is faster than decoding them."""
    if torch.float64 in (inputs.dtype, packed.motifs.dtype):
        return False
    width, size = packed.shape[1], packed.motifs.shape[1]
    if inputs.device.type != "cpu":
        tiles = packed.bits == 8 and kernels.by_tile(width, size)
        return tiles and num_inputs <= MOST_ON_CUDA
    table = kernels.by_table(width, size, packed.bits)
    return num_inputs <= (MOST_BY_TABLE if table else MOST_BY_ROW)


def _from_packed(inputs: Tensor, bias: Tensor | None, packed: Packed) -> Tensor:
    """The product in float32, rounded once at the end; scales of inputs or outputs come last or first."""
    num_rows, width = packed.shape
    motifs, scales = packed.motifs, packed.scales
    flat = inputs.reshape(-1, width).float()
    of_inputs = scales is not None and packed.axis == 1 and len(scales) > 1
    if scales is None:
        motifs = packed.rounded(motifs, None)
    elif of_inputs:
        flat = flat * scales
    if flat.device.type == "cpu":
        product = kernels.product(
            flat, motifs.float(), packed.indices, packed.bits, num_rows
        )
    else:
        from momos.compact import cuda  # Triton is loaded only where it is used

        product = cuda.product(flat, motifs.float(), packed.indices, num_rows)
    if scales is not None and not of_inputs:
        product *= scales
    if bias is not None:
        product += bias
    return product.to(inputs.dtype).view(*inputs.shape[:-1], num_rows)


def _in_tiles(inputs: Tensor, bias: Tensor | None, packed: Packed) -> Tensor:
    """The dense product, for which some rows are decoded at a time."""
    num_rows, width = packed.shape
    outputs = inputs.new_empty(*inputs.shape[:-1], num_rows)
    step = max(1, TILE // width)
    for first in range(0, num_rows, step):
        last = min(first + step, num_rows)
        values = packed.values(first * width, last * width).view(-1, width)
        tile = packed.rounded(values, packed.scales_of_rows(slice(first, last)))
        part = None if bias is None else bias[first:last]
        outputs[..., first:last] = F.linear(inputs, tile.to(inputs.dtype), part)
    return outputs


def _check_devices(one: Tensor, other: Tensor) -> None:
    if one.device != other.device:
        raise ValueError(
            "inputs, motifs and packed indices must be on one device, got "
            f"{one.device} and {other.device}"
        )


def _check_ids(ids: Tensor, count: int) -> None:
    """Refuses ids that are not those of `count` rows; their values only where no device is waited for."""
    if ids.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"ids must be int32 or int64, got {ids.dtype}")
    if ids.device.type == "cpu" and len(ids):
        low, high = (int(end) for end in ids.aminmax())
        if low < 0 or high >= count:
            raise IndexError(f"ids must be 0 to {count - 1}, got {low} to {high}")


def _check_indices(indices: Tensor, num_motifs: int) -> None:
    """Refuses indices that name no motif, only where no device is waited for."""
    if indices.device.type == "cpu" and indices.numel():
        low, high = (int(end) for end in indices.aminmax())
        if low < 0 or high >= num_motifs:
            raise kernels.wrong_index(num_motifs)


def _weight_fake(motifs: Tensor, packed: Tensor, scales: Any, *about: Any) -> Tensor:
    _, shape, _, _, dtype = about
    return motifs.new_empty(shape, dtype=dtype)


def _rows_fake(
    ids: Tensor, motifs: Tensor, packed: Tensor, scales: Any, *about: Any
) -> Tensor:
    _, shape, _, _, dtype = about
    return motifs.new_empty((*ids.shape, shape[1]), dtype=dtype)


def _linear_fake(
    inputs: Tensor, bias: Any, motifs: Any, packed: Any, *about: Any
) -> Tensor:
    return inputs.new_empty((*inputs.shape[:-1], about[2][0]))


for _name, _kernel, _fake in (
    ("compact_weight", _weight, _weight_fake),
    ("compact_rows", _rows, _rows_fake),
    ("compact_linear", _linear, _linear_fake),
):
    _LIBRARY.impl(_name, _kernel, "CPU")
    _LIBRARY.impl(_name, _kernel, "CUDA")
    torch.library.register_fake(f"momos::{_name}", _fake, lib=_LIBRARY)
