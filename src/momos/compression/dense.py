"""Which tensors of a checkpoint stay dense, why, and what they are rounded to."""

from dataclasses import replace

import torch
from torch import Tensor

from momos._util.work import Progress
from momos.blocks import DTYPES, matches
from momos.codec import PACK_VALUES
from momos.config import LatticeConfig, MosaicConfig
from momos.files.contents import EMPTY, LEFT_OUT
from momos.files.manifest import DTYPES as STORED
from momos.sources import Source, SourceTensor, is_statistics

Config = MosaicConfig | LatticeConfig
LEAST_NDIM = 1  # of blocks, where the config does not say
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32)  # what quantized weights lie in
ADVICE = "dequantize the checkpoint to bfloat16 or float32 first"


def odd_tensors(source: Source) -> dict[str, str]:
    """The tensors that no file can hold, and what each is and what to do about it."""
    return source.unreadable | {
        name: f"of dtype {_named(tensor.dtype)}: save it in another"
        for name, tensor in source.tensors.items()
        if tensor.dtype not in STORED.values()
    }


def without_odd(source: Source, config: Config) -> Source:
    """`source` without the tensors that no file can hold, which are then left out by name.

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
    """What to warn of if the checkpoint seems quantized, so that its scales become the blocks."""
    chosen, narrow = chosen_of(source, config), _narrow(source, config)
    count = sum(tensor.num_weights for tensor in chosen)
    if sum(tensor.num_weights for tensor in narrow) <= count:
        return ""
    return (
        f"{source.path} seems to be quantized: {_dense(narrow)}, and only {count:,} values "
        f"become blocks ({_listed(chosen)}): {ADVICE}"
    )


def _narrow(source: Source, config: Config) -> list[SourceTensor]:
    """The tensors that seem to be weights of fewer bits than blocks are made of."""
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
    """Why a tensor does not become blocks, and what it is rounded to; nothing if it does."""
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
    """What the values of a dense tensor are rounded to, if it is of a wider floating dtype."""
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
    """Refuses dense tensors that do not fit what they are rounded to, before long work."""
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
