"""Weights, rows and products from motifs and packed indices, as registered torch operators.

`momos::compact_weight`, `compact_rows` and `compact_linear` have fake kernels, so that torch.compile
and torch.export see one operator each. Gradients flow to the inputs of a product; the weight is
decoded again for them and not kept.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from momos.compact import kernels
from momos.compact.bitpack import unpack
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
            by_bias = gradient.flatten(0, -2).sum(0)
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


def _blocks(motifs: Tensor, packed: Tensor, bits: int, start: int, stop: int) -> Tensor:
    _check_devices(motifs, packed)
    if motifs.device.type == "cpu":
        return kernels.decode(motifs, packed, bits, start, stop)
    return blocks_reference(motifs, packed, bits, start, stop)


def _values(motifs: Tensor, packed: Tensor, bits: int, start: int, stop: int) -> Tensor:
    """Values of the motifs of the weights `start` to `stop`."""
    size = motifs.shape[1]
    first, last = start // size, -(-stop // size)
    flat = _blocks(motifs, packed, bits, first, last).view(-1)
    return flat[start - first * size : stop - first * size]


def _factors(scales: Tensor | None, shape: list[int], axis: int) -> Tensor | None:
    """Scales in a shape that multiplies the weight."""
    if scales is None or len(scales) == 1:
        return scales
    return scales.view([-1 if dim == axis else 1 for dim in range(len(shape))])


def _weight(
    motifs: Tensor,
    packed: Tensor,
    scales: Tensor | None,
    bits: int,
    shape: list[int],
    axis: int,
    stored: torch.dtype,
    dtype: torch.dtype,
) -> Tensor:
    values = _values(motifs, packed, bits, 0, prod(shape)).view(shape)
    return scaled(values, _factors(scales, shape, axis), stored).to(dtype)


def _rows(
    ids: Tensor,
    motifs: Tensor,
    packed: Tensor,
    scales: Tensor | None,
    bits: int,
    shape: list[int],
    axis: int,
    stored: torch.dtype,
    dtype: torch.dtype,
) -> Tensor:
    """Rows of a matrix; those of an embedding."""
    _check_devices(ids, packed)
    (count, width), flat = shape, ids.reshape(-1)
    if len(flat) * 4 > count:
        dense = _weight(motifs, packed, scales, bits, shape, axis, stored, dtype)
        return F.embedding(ids, dense)
    _check_ids(flat, count)
    at = flat.long()[:, None] * width + torch.arange(width, device=ids.device)
    size = motifs.shape[1]
    values = motifs.view(-1)[named(packed, bits, at // size).long() * size + at % size]
    if scales is not None and len(scales) > 1:
        scales = scales[flat.long(), None] if axis == 0 else scales
    return scaled(values, scales, stored).to(dtype).view(*ids.shape, width)


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


def _linear(
    inputs: Tensor,
    bias: Tensor | None,
    motifs: Tensor,
    packed: Tensor,
    scales: Tensor | None,
    bits: int,
    shape: list[int],
    axis: int,
    stored: torch.dtype,
    dtype: torch.dtype,
    exact: bool,
) -> Tensor:
    _check_devices(inputs, packed)
    about = motifs, packed, scales, bits, shape, axis, stored, dtype
    num_rows, width = shape
    num_inputs = inputs.numel() // width
    if not exact and num_inputs and _pays(num_inputs, inputs, motifs, bits, width):
        return _from_packed(inputs, bias, *about)
    if num_rows * width <= (EXACT_TILE if exact else TILE):
        return F.linear(inputs, _weight(*about).to(inputs.dtype), bias)
    return _in_tiles(inputs, bias, *about)


def _pays(num_inputs: int, inputs: Tensor, motifs: Tensor, bits: int, width: int) -> bool:
    """Whether a product from packed indices is faster than decoding them."""
    if torch.float64 in (inputs.dtype, motifs.dtype):
        return False
    if inputs.device.type != "cpu":
        size = motifs.shape[1]
        whole = width % size == 0 and size & (size - 1) == 0
        return bits == 8 and whole and num_inputs <= MOST_ON_CUDA
    table = kernels.by_table(width, motifs.shape[1], bits)
    return num_inputs <= (MOST_BY_TABLE if table else MOST_BY_ROW)


def _from_packed(
    inputs: Tensor,
    bias: Tensor | None,
    motifs: Tensor,
    packed: Tensor,
    scales: Tensor | None,
    bits: int,
    shape: list[int],
    axis: int,
    stored: torch.dtype,
    dtype: torch.dtype,
) -> Tensor:
    """The product in float32, rounded once at the end; scales of inputs or outputs come last or first."""
    num_rows, width = shape
    flat = inputs.reshape(-1, width).float()
    if scales is None:
        motifs = motifs.to(stored).to(dtype)
    elif axis == 1 and len(scales) > 1:
        flat = flat * scales
    if flat.device.type == "cpu":
        product = kernels.product(flat, motifs.float(), packed, bits, num_rows)
    else:
        from momos.compact import cuda  # Triton is loaded only where it is used

        product = cuda.product(flat, motifs.float(), packed, num_rows)
    if scales is not None and (axis == 0 or len(scales) == 1):
        product *= scales
    if bias is not None:
        product += bias
    return product.to(inputs.dtype).view(*inputs.shape[:-1], num_rows)


def _in_tiles(
    inputs: Tensor,
    bias: Tensor | None,
    motifs: Tensor,
    packed: Tensor,
    scales: Tensor | None,
    bits: int,
    shape: list[int],
    axis: int,
    stored: torch.dtype,
    dtype: torch.dtype,
) -> Tensor:
    """The dense product, for which some rows are decoded at a time."""
    num_rows, width = shape
    outputs = inputs.new_empty(*inputs.shape[:-1], num_rows)
    step = max(1, TILE // width)
    for first in range(0, num_rows, step):
        last = min(first + step, num_rows)
        values = _values(motifs, packed, bits, first * width, last * width).view(-1, width)
        own = scales
        if scales is not None and len(scales) > 1:
            own = scales[first:last, None] if axis == 0 else scales
        tile = scaled(values, own, stored).to(dtype).to(inputs.dtype)
        part = None if bias is None else bias[first:last]
        outputs[..., first:last] = F.linear(inputs, tile, part)
    return outputs


def _check_devices(one: Tensor, other: Tensor) -> None:
    if one.device != other.device:
        raise ValueError(
            "inputs, motifs and packed indices must be on one device, got "
            f"{one.device} and {other.device}"
        )


def _check_ids(ids: Tensor, count: int) -> None:
    if ids.device.type == "cpu" and len(ids):
        low, high = (int(end) for end in ids.aminmax())
        if low < 0 or high >= count:
            raise IndexError(f"ids must be 0 to {count - 1}, got {low} to {high}")


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
