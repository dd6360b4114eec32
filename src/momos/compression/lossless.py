"""Contents of a file in which every tensor is what it was, bit for bit."""

from collections.abc import Callable, Mapping

from momos.compression.dense import odd_tensors
from momos.files.contents import Contents
from momos.files.manifest import Record
from momos.sources import Source

WHY = "lossless"


def check_lossless(lossless: object, others: Mapping[str, object]) -> None:
    """Refuses `others`, arguments by name, where all is kept as it is.

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
    """All tensors of `source` as dense ones.

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
