"""Gathers blocks from motifs, and sums gradients back to motifs.

`gather` and `sum_by_motif` are linear and each other's transpose, so each is the other's
gradient, to any order. The definition of the sum is `sum_by_motif_reference`. On the CPU both
are compiled (vq/native/sums.hpp); on CUDA the gather is torch's own, and
the sum of at most `MOST_TOGETHER` motifs a kernel (vq/together.py), not yet run on a GPU.

Both are registered torch operators, so that torch.compile does not trace into them. Gradients are
autograd Functions: `torch.library.custom_op` with `register_autograd` costs 0.1 ms more for each layer
and step, and its first call loads the compiler. torch.func composes with them: under vmap,
samples that share their indices are gathered side by side, others one below another.
"""

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.autograd import forward_ad

from momos.vq import cpu

_LIBRARY = torch.library.Library("momos", "FRAGMENT")  # what it registers lives as long
_LIBRARY.define("gather(Tensor motifs, Tensor indices) -> Tensor")
_LIBRARY.define("sum_by_motif(Tensor rows, Tensor indices, SymInt num_motifs) -> Tensor")
MOST_TOGETHER = 1 << 10  # motifs: every block is compared with all of them
_GATHER = torch.ops.momos.gather.default
_SUM = torch.ops.momos.sum_by_motif.default


def gather(
    motifs: Float[Tensor, "k s"], indices: Integer[Tensor, " m"]
) -> Float[Tensor, "m s"]:
    """The motif of each block; the gradient of a motif is the sum over its blocks.

    int32 indices are used as they are, others are converted first.

    Raises:
        ValueError: if the shapes are wrong or, on the CPU, an index names no motif (on CUDA
            that is a device-side assertion).
    """
    _check("motifs", motifs, indices)
    return _gathered(motifs, indices)


def sum_by_motif(
    rows: Float[Tensor, "m s"], indices: Integer[Tensor, " m"], num_motifs: int
) -> Float[Tensor, "k s"]:
    """The sum of the rows of each motif, 0 where it has none, in the dtype of `rows`.

    Sums are in float64 and rounded once (half precision: once more, by way of float32). On the
    CPU they depend neither on the number of threads nor on the processor.

    Raises:
        ValueError: as `gather` does, or if the lengths of `rows` and `indices` differ.
    """
    _check("rows", rows, indices)
    if len(rows) != len(indices):
        raise ValueError(
            f"rows and indices must have one length, got {len(rows)} and {len(indices)}"
        )
    if num_motifs < 0:
        raise ValueError(f"num_motifs must be at least 0, got {num_motifs}")
    return _summed(rows, indices, num_motifs)


def sum_by_motif_reference(
    rows: Float[Tensor, "m s"], indices: Integer[Tensor, " m"], num_motifs: int
) -> Float[Tensor, "k s"]:
    """The definition of `sum_by_motif`."""
    sums = rows.new_zeros(num_motifs, rows.shape[1], dtype=torch.float64)
    return sums.index_add_(0, indices.long(), rows.double()).to(rows.dtype)


def gather_(
    values: Float[Tensor, " n"],
    motifs: Float[Tensor, "k s"],
    indices: Integer[Tensor, " m"],
) -> None:
    """Writes the motif of each block into `values`, whose last block may be cut short.

    Raises:
        ValueError: as `gather` does, or if the blocks are more or fewer than `values` has.
    """
    _check("motifs", motifs, indices)
    size = motifs.shape[1]
    if -(-len(values) // size) != len(indices):
        raise ValueError(
            f"indices must be one for each {size} of {len(values)} values, got {len(indices)}"
        )
    on_cpu = values.device.type == "cpu" and motifs.device.type == "cpu"
    if on_cpu and values.dtype == motifs.dtype and values.is_contiguous():
        _write(values, motifs, _narrow(indices, len(motifs)))
    else:
        values.copy_(gather(motifs, indices).view(-1)[: len(values)])


def straight_through(
    latent: Float[Tensor, "*shape"], value: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """`value`, whose gradient goes to `latent` unchanged (Bengio, Léonard and Courville 2013).

    The result shares the memory of `value`.

    Raises:
        ValueError: if shapes, dtypes or devices differ.
    """
    for what in ("shape", "dtype", "device"):
        wanted, found = getattr(latent, what), getattr(value, what)
        if wanted != found:
            raise ValueError(
                f"latent and value must share one {what}, got {wanted} and {found}"
            )
    if simple():
        return _StraightThroughSimple.apply(latent, value)
    compiling = torch.compiler.is_compiling()
    kind = _StraightThrough if compiling else _StraightThroughForward
    return kind.apply(latent, value)


def simple() -> bool:
    """Whether gradients are at most autograd's own: no torch.compile, torch.func, forward derivatives.

    A Function without `setup_context` will do then, whose call costs a quarter.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(motifs: Tensor, indices: Tensor) -> Tensor:
        return _GATHER(motifs, indices)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        motifs, indices = inputs
        ctx.save_for_backward(indices)
        ctx.num_motifs = motifs.shape[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        transpose = _summed if torch.is_grad_enabled() else _SUM
        return transpose(gradients[0], ctx.saved_tensors[0], ctx.num_motifs), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        motifs, indices = args
        if in_dims[1] is None:
            wide = motifs.movedim(in_dims[0] or 0, 1)
            blocks = _gathered(wide.flatten(1), indices)
            return blocks.view(-1, *wide.shape[1:]), 1
        motifs, indices = _samples(info.batch_size, in_dims, motifs, indices)
        below = _one_below_another(indices, motifs.shape[1])
        blocks = _gathered(motifs.flatten(0, 1), below)
        return blocks.view(*indices.shape, -1), 0


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, indices: Tensor, num_motifs: int) -> Tensor:
        return _SUM(rows, indices, num_motifs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        _, indices, num_motifs = inputs
        ctx.save_for_backward(indices)
        ctx.num_motifs = num_motifs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        transpose = _gathered if torch.is_grad_enabled() else _GATHER
        return transpose(gradients[0], ctx.saved_tensors[0]), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        rows, indices, num_motifs = args
        if in_dims[1] is None:
            wide = rows.movedim(in_dims[0] or 0, 1)
            sums = _summed(wide.flatten(1), indices, num_motifs)
            return sums.view(-1, *wide.shape[1:]), 1
        rows, indices = _samples(info.batch_size, in_dims, rows, indices)
        below = _one_below_another(indices, num_motifs)
        sums = _summed(rows.flatten(0, 1), below, len(rows) * num_motifs)
        return sums.view(len(rows), num_motifs, -1), 0


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(latent: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _StraightThroughSimple(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


# The same with derivatives forward, which torch.compile does not take.


class _GatherForward(_Gather):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        _Gather.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _gathered(tangents[0], ctx.saved_tensors[0])


class _SumForward(_Sum):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        _Sum.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _summed(tangents[0], ctx.saved_tensors[0], ctx.num_motifs)


class _StraightThroughForward(_StraightThrough):
    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0].view_as(tangents[0])


def _gathered(motifs: Tensor, indices: Tensor) -> Tensor:
    kind = _Gather if torch.compiler.is_compiling() else _GatherForward
    return kind.apply(motifs, indices)


def _summed(rows: Tensor, indices: Tensor, num_motifs: int) -> Tensor:
    kind = _Sum if torch.compiler.is_compiling() else _SumForward
    return kind.apply(rows, indices, num_motifs)


def _samples(
    count: int, in_dims: tuple[int | None, ...], *tensors: Tensor
) -> tuple[Tensor, ...]:
    """Tensors of torch.func.vmap with the samples as their first dimension."""
    return tuple(
        tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=False)
    )


def _one_below_another(indices: Tensor, num_motifs: int) -> Tensor:
    """Indices into the motifs of all samples, from indices into those of each."""
    if indices.device.type == "cpu" and indices.numel():
        low, high = (int(end) for end in indices.aminmax())
        if low < 0 or high >= num_motifs:
            raise _wrong(indices, num_motifs)
    first = torch.arange(len(indices), device=indices.device) * num_motifs
    return (indices + first[:, None]).flatten()


def _check(name: str, rows: Tensor, indices: Tensor) -> None:
    if not rows.is_floating_point() or rows.itemsize < 2:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {rows.dtype}"
        )
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(
            f"{name} must have two dimensions and at least one value a row, got shape "
            f"{tuple(rows.shape)}"
        )
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise TypeError(f"indices must be integers, got {indices.dtype}")
    if indices.ndim != 1:
        raise ValueError(
            f"indices must have one dimension, got shape {tuple(indices.shape)}"
        )
    if rows.device != indices.device:
        raise ValueError(
            f"{name} and indices must be on one device, got {rows.device} and "
            f"{indices.device}"
        )


def _gather_cpu(motifs: Tensor, indices: Tensor) -> Tensor:
    few = _narrow(indices, len(motifs))
    blocks = motifs.new_empty(len(few), motifs.shape[1])
    _write(blocks, motifs, few)
    return blocks


def _write(blocks: Tensor, motifs: Tensor, indices: Tensor) -> None:
    width, threads = motifs.shape[1] * motifs.itemsize, torch.get_num_threads()
    if not cpu.native().gather(
        cpu.bytes_of(motifs), cpu.bytes_of(indices), cpu.bytes_of(blocks), width, threads
    ):
        raise _wrong(indices, len(motifs))


def _sum_cpu(rows: Tensor, indices: Tensor, num_motifs: int) -> Tensor:
    few = _narrow(indices, num_motifs)
    wide = rows.dtype == torch.float64
    values = rows if wide else rows.float()
    size, threads = rows.shape[1], torch.get_num_threads()
    sums = values.new_empty(num_motifs, size)
    if not cpu.native().sum_by_motif(
        cpu.bytes_of(values), cpu.bytes_of(few), cpu.bytes_of(sums), size, wide, threads
    ):
        raise _wrong(few, num_motifs)
    return sums.to(rows.dtype)


def _narrow(indices: Tensor, num_motifs: int) -> Tensor:
    """The indices as int32, in which none that is wrong becomes right."""
    if indices.itemsize == 8 and len(indices):
        low, high = (int(end) for end in indices.aminmax())
        if low < 0 or high >= num_motifs:
            raise _wrong(indices, num_motifs)
    return indices.int()


def _wrong(indices: Tensor, num_motifs: int) -> ValueError:
    low, high = (int(end) for end in indices.aminmax())
    return ValueError(
        f"indices must be at least 0 and below {num_motifs}, got {low} to {high}"
    )


def _gather_plain(motifs: Tensor, indices: Tensor) -> Tensor:
    return motifs.index_select(0, indices.int())


def _sum_hosted(rows: Tensor, indices: Tensor, num_motifs: int) -> Tensor:
    """On the CPU, since not all devices have float64."""
    return _SUM(rows.cpu(), indices.cpu(), num_motifs).to(rows.device)


def _sum_cuda(rows: Tensor, indices: Tensor, num_motifs: int) -> Tensor:
    if num_motifs <= MOST_TOGETHER and len(rows):
        from momos.vq import together  # compiled on first use, so imported on first use

        return together.sum_by_motif(rows, indices, num_motifs).to(rows.dtype)
    # index_add_ adds in any order; a sorted sum has one order.
    order = indices.argsort(stable=True)
    usage = torch.bincount(indices.int(), minlength=num_motifs)
    ordered = rows.double().index_select(0, order)
    return torch.segment_reduce(ordered, "sum", lengths=usage, initial=0.0).to(rows.dtype)


def _gather_fake(motifs: Tensor, indices: Tensor) -> Tensor:
    return motifs.new_empty(indices.shape[0], motifs.shape[1])


def _sum_fake(rows: Tensor, indices: Tensor, num_motifs: int) -> Tensor:
    return rows.new_empty(num_motifs, rows.shape[1])


_LIBRARY.impl("gather", _gather_cpu, "CPU")
_LIBRARY.impl("sum_by_motif", _sum_cpu, "CPU")
_LIBRARY.impl("gather", _gather_plain, "CUDA")
_LIBRARY.impl("sum_by_motif", _sum_cuda, "CUDA")
for _device in ("MPS", "XPU", "PrivateUse1"):
    _LIBRARY.impl("gather", _gather_plain, _device)
    _LIBRARY.impl("sum_by_motif", _sum_hosted, _device)
torch.library.register_fake("momos::gather", _gather_fake, lib=_LIBRARY)
torch.library.register_fake("momos::sum_by_motif", _sum_fake, lib=_LIBRARY)
