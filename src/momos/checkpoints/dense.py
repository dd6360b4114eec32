"""The tensors of a checkpoint that stay dense: which, why, and what they are rounded to."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from momos._util.work import Progress
from momos.blocks import DTYPES, matches
from momos.checkpoints.source import Source, SourceTensor, is_statistics
from momos.codec import PACK_VALUES
from momos.config import LatticeConfig, MosaicConfig
from momos.files.contents import EMPTY, LEFT_OUT, Contents
from momos.files.manifest import DTYPES as STORED
from momos.files.manifest import Record

Config = MosaicConfig | LatticeConfig
LEAST_NDIM = 1  # of blocks, where the config does not say
WHOLE = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
)  # dtypes in which quantized weights are stored
ADVICE = "dequantize the checkpoint to bfloat16 or float32 first"
WHY = "lossless"


def odd_tensors(source: Source) -> dict[str, str]:
    """The tensors that no file can hold; for each, what it is and what to do about it."""
    return source.unreadable | {
        name: f"of dtype {_named(tensor.dtype)}: save it in another"
        for name, tensor in source.tensors.items()
        if tensor.dtype not in STORED.values()
    }


def without_odd(source: Source, config: Config) -> Source:
    """`source` without the tensors that no file can hold, which are listed as left out.

    Raises:
        ValueError: if `config` does not exclude one.
    """
    odd = odd_tensors(source)
    for name, what in odd.items():
        if matches(name, config.include) and not matches(name, config.exclude):
            raise ValueError(
                f"tensor {name!r} of {source.path} must hold plain values, but is {what}, or "
                "exclude it to leave it out"
            )
    return replace(
        source,
        tensors={name: one for name, one in source.tensors.items() if name not in odd},
        aliases={name: one for name, one in source.aliases.items() if one not in odd},
        left_out=source.left_out
        | odd
        | {name: f"same as {one}" for name, one in source.aliases.items() if one in odd},
    )


def chosen_of(source: Source, config: Config) -> list[SourceTensor]:
    """The tensors that become blocks.

    Raises:
        ValueError: if there are none.
    """
    chosen = [t for t in source.tensors.values() if not _why_not(t, config)]
    if not chosen:
        narrow = _narrow(source, config)
        raise ValueError(
            f"at least one floating tensor must be chosen, got none for "
            f"include={config.include}, exclude={config.exclude}, "
            f"min_ndim={_least_ndim(config)} among {len(source.tensors)} tensors of "
            f"{source.path}" + (f"; {_dense(narrow)}: {ADVICE}" if narrow else "")
        )
    return chosen


def warning_of(source: Source, config: Config) -> str:
    """The warning for a checkpoint that seems quantized, so that only its scales become blocks."""
    chosen, narrow = chosen_of(source, config), _narrow(source, config)
    count = sum(tensor.num_weights for tensor in chosen)
    if sum(tensor.num_weights for tensor in narrow) <= count:
        return ""
    return (
        f"{source.path} seems to be quantized: {_dense(narrow)}, and only {count:,} values "
        f"become blocks ({_listed(chosen)}): {ADVICE}"
    )


def _narrow(source: Source, config: Config) -> list[SourceTensor]:
    """The tensors that seem to be weights of fewer bits than blocks can have."""
    return [tensor for tensor in source.tensors.values() if _is_narrow(tensor, config)]


def _is_narrow(tensor: SourceTensor, config: Config) -> bool:
    if matches(tensor.name, config.exclude) or not matches(tensor.name, config.include):
        return False
    if tensor.dtype in WHOLE:
        return sum(size > 1 for size in tensor.shape) > 1
    return _is_float8(tensor.dtype)


def _is_float8(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize == 1


def _dense(tensors: list[SourceTensor]) -> str:
    count = sum(tensor.num_weights for tensor in tensors)
    dtypes = ", ".join(sorted({_named(tensor.dtype) for tensor in tensors}))
    return f"{count:,} values of {dtypes} stay dense ({_listed(tensors)})"


def _listed(tensors: list[SourceTensor]) -> str:
    return ", ".join(tensor.name for tensor in tensors[:3]) + ", …" * (len(tensors) > 3)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def why_dense(tensor: SourceTensor, config: Config) -> str:
    """Why a tensor stays dense, and what it is rounded to; empty if it becomes blocks."""
    why = _why_not(tensor, config)
    if why and rounded_dtype(tensor, config) is not None:
        return f"{why}, rounded to {config.dense_dtype}"
    return why


def _why_not(tensor: SourceTensor, config: Config) -> str:
    if not tensor.num_weights:
        return EMPTY
    if tensor.dtype not in DTYPES:
        return "float8" if _is_float8(tensor.dtype) else "not of a floating dtype"
    if is_statistics(tensor.name, tensor.shape):
        return "running statistics"
    if not matches(tensor.name, config.include) or matches(tensor.name, config.exclude):
        return LEFT_OUT
    if len(tensor.shape) < (least := _least_ndim(config)):
        return f"fewer than {least} dimensions" if least > 1 else "a single number"
    return ""


def _least_ndim(config: Config) -> int:
    return LEAST_NDIM if config.min_ndim is None else config.min_ndim


def rounded_dtype(tensor: SourceTensor, config: Config) -> torch.dtype | None:
    """The dtype to which a dense tensor is rounded, if its own is wider and floating."""
    dtype = getattr(torch, config.dense_dtype)
    if dtype == torch.float32 or tensor.dtype not in DTYPES:
        return None
    return dtype if tensor.dtype.itemsize > dtype.itemsize and tensor.num_weights else None


def read_dense(tensor: SourceTensor, config: Config, start: int, stop: int) -> Tensor:
    """The values of a dense tensor from `start` to `stop`, rounded, in its own dtype.

    Raises:
        ValueError: if a number becomes infinite by rounding; names the tensor.
    """
    values = tensor.read(start, stop)
    dtype = rounded_dtype(tensor, config)
    if dtype is None:
        return values
    rounded = values.to(dtype).to(values.dtype)
    lost = torch.isinf(rounded) & torch.isfinite(values)
    if bool(lost.any()):
        raise ValueError(
            f"dense tensors must fit {config.dense_dtype}, got "
            f"{float(values[lost].abs().max())} in tensor {tensor.name!r}"
        )
    return rounded


def check_dense(source: Source, config: Config, progress: Progress) -> None:
    """Refuses dense tensors that do not fit the dtype they are rounded to, before long work."""
    dense = [
        tensor
        for tensor in source.tensors.values()
        if _why_not(tensor, config) and rounded_dtype(tensor, config) is not None
    ]
    for number, tensor in enumerate(dense, start=1):
        for start in range(0, tensor.num_weights, PACK_VALUES):
            stop = min(start + PACK_VALUES, tensor.num_weights)
            read_dense(tensor, config, start, stop)
        progress("checking dense tensors", number, len(dense))


def check_lossless(lossless: object, others: Mapping[str, object]) -> None:
    """Refuses other arguments, by name, with `lossless`.

    Raises:
        TypeError: if `lossless` is not a bool.
        ValueError: if another argument is not None.
    """
    if not isinstance(lossless, bool):
        raise TypeError(f"lossless must be a bool, got {lossless!r}")
    given = [name for name, value in others.items() if value is not None]
    if lossless and given:
        raise ValueError(f"lossless must be given without {given[0]}, got both")


def lossless_contents(source: Source, check_unchanged: Callable[[], None]) -> Contents:
    """Contents in which every tensor of `source` is kept, bit for bit.

    Raises:
        ValueError: if there are none, or no file can hold one; names it.
    """
    for name, what in odd_tensors(source).items():
        raise ValueError(
            f"tensor {name!r} of {source.path} must hold plain values, but is {what}"
        )
    if not source.tensors:
        raise ValueError(f"{source.path} must hold at least one tensor, got none")
    records = [
        Record(name, "dense", tensor.shape, tensor.dtype, why=WHY)
        for name, tensor in source.tensors.items()
    ]
    records += [Record(name, "same", same_as=one) for name, one in source.aliases.items()]
    return Contents(
        records=tuple(records),
        mosaic=None,
        read=lambda name, start, stop: source.tensors[name].read(start, stop),
        metadata=source.metadata,
        check_unchanged=check_unchanged,
    )
