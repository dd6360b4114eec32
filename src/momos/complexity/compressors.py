"""Real compressors: how many bits a payload takes, and the rates as published.

gzip, bz2 and lzma come with Python. zstd (below Python 3.14), brotli and pcodec need the extra
`measures`; where one is missing there is an ImportError, never another compressor.
"""

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Name = Literal["gzip", "bz2", "lzma", "zstd", "brotli"]

LONG_WINDOW = 27  # log2 of the bytes zstd looks back, as `zstd --long`


@dataclass(frozen=True)
class PublishedRates:
    """Raw bytes over compressed bytes, as in 2602.14896: rates, not code lengths.

    Example:
        >>> momos.complexity.published_rates(bytes(10_000)).gzip > 100
        True
    """

    gzip: float
    bz2: float
    lzma: float


def compressed_bits(payload: bytes, name: Name, *, level: int | None = None) -> int:
    """Bits that the compressor needs for `payload`, beyond those for nothing at all.

    Without a `level`, the strongest in use: gzip 9, bz2 9, lzma 9 (always with its extreme
    flag, and about 700 MB of memory), zstd 19 (always with a window of 128 MiB), brotli 11
    (about a second for each megabyte).

    Raises:
        ImportError: if the package is not installed; names the extra.
        ValueError: if there is no such compressor, or it has no such level.

    Example:
        >>> momos.complexity.compressed_bits(b"", "gzip")
        0
        >>> momos.complexity.compressed_bits(bytes(1000), "gzip") < 8 * 50
        True
    """
    if name not in COMPRESSORS:
        raise ValueError(f"name must be one of {', '.join(COMPRESSORS)}, got {name}")
    compressor = COMPRESSORS[name]
    level = compressor.strongest if level is None else level
    if level not in compressor.levels:
        raise ValueError(
            f"level of {name} must be {compressor.levels[0]} to {compressor.levels[-1]}, "
            f"got {level}"
        )
    compress = compressor.compress
    return 8 * (len(compress(payload, level)) - len(compress(b"", level)))


def pcodec_bits(values: Tensor | np.ndarray, *, level: int = 12) -> int:
    """Bits that pcodec needs for the numbers, beyond those for none.

    bfloat16, which it does not know, is given to it as integers of the same bits.

    Raises:
        ImportError: if pcodec is not installed; names the extra.
        TypeError: if it has no codec for such numbers.
        ValueError: if `level` is not 0 to 12.

    Example:
        >>> momos.complexity.pcodec_bits(torch.arange(10_000)) < 10_000
        True
    """
    if not 0 <= level <= 12:
        raise ValueError(f"level of pcodec must be 0 to 12, got {level}")
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.view(torch.int16) if values.dtype == torch.bfloat16 else values
        values = values.numpy()
    if values.dtype.kind not in "iuf" or values.dtype.itemsize > 8:
        raise TypeError(f"values must be integers or floats, got {values.dtype}")
    flat = np.ascontiguousarray(values).reshape(-1)
    config = _package("pcodec").ChunkConfig(
        compression_level=level, enable_8_bit=values.dtype.itemsize == 1
    )
    compress = import_module("pcodec.standalone").simple_compress
    return 8 * (len(compress(flat, config)) - len(compress(flat[:0], config)))


def published_rates(weight_bytes: bytes) -> PublishedRates:
    """The rates of gzip, bz2 and lzma at level 9 as in 2602.14896: headers are not subtracted.

    The paper takes the bytes of all weights as float32, and, for its binarized rates, one byte
    per sign: `raw_bytes(weight.float())` and `raw_bytes(signs(weight))`. The latter cannot
    reach 8 on random signs, and mostly measures how well a compressor packs bits.

    Raises:
        ValueError: if there are no bytes.

    Example:
        >>> weight = torch.randn(1000)
        >>> rates = momos.complexity.published_rates(momos.complexity.raw_bytes(weight))
        >>> 1.0 < rates.gzip < 1.2
        True
    """
    if not weight_bytes:
        raise ValueError("weight_bytes must hold at least one byte, got none")
    size = len(weight_bytes)
    return PublishedRates(
        gzip=size / len(gzip.compress(weight_bytes, 9, mtime=0)),
        bz2=size / len(bz2.compress(weight_bytes, 9)),
        lzma=size / len(lzma.compress(weight_bytes, preset=9)),
    )


def available() -> tuple[str, ...]:
    """The compressors that can be used here, pcodec (for numbers, not bytes) last.

    Example:
        >>> "lzma" in momos.complexity.available()
        True
    """
    packages = {"zstd": _ZSTD, "brotli": "brotli", "pcodec": "pcodec"}
    return tuple(
        name
        for name in (*COMPRESSORS, "pcodec")
        if name not in packages or find_spec(packages[name]) is not None
    )


@dataclass(frozen=True)
class _Compressor:
    compress: Callable[[bytes, int], bytes]
    levels: range
    strongest: int


def _gzip(payload: bytes, level: int) -> bytes:
    return gzip.compress(payload, level, mtime=0)


def _lzma(payload: bytes, level: int) -> bytes:
    return lzma.compress(payload, preset=level | lzma.PRESET_EXTREME)


def _brotli(payload: bytes, level: int) -> bytes:
    return _package("brotli").compress(payload, quality=level, lgwin=24)


if sys.version_info >= (3, 14):
    _ZSTD = "compression.zstd"

    def _zstd(payload: bytes, level: int) -> bytes:
        zstd = _package(_ZSTD)
        option = zstd.CompressionParameter
        options = {
            option.compression_level: level,
            option.window_log: LONG_WINDOW,
            option.enable_long_distance_matching: 1,
        }
        return zstd.compress(payload, options=options)

else:
    _ZSTD = "zstandard"

    def _zstd(payload: bytes, level: int) -> bytes:
        zstd = _package(_ZSTD)
        parameters = zstd.ZstdCompressionParameters.from_level(
            level, source_size=len(payload), window_log=LONG_WINDOW, enable_ldm=True
        )
        return zstd.ZstdCompressor(compression_params=parameters).compress(payload)


COMPRESSORS = {
    "gzip": _Compressor(_gzip, range(1, 10), 9),
    "bz2": _Compressor(bz2.compress, range(1, 10), 9),
    "lzma": _Compressor(_lzma, range(10), 9),
    "zstd": _Compressor(_zstd, range(1, 23), 19),
    "brotli": _Compressor(_brotli, range(12), 11),
}


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{name} is not installed: pip install 'mosaic-of-motifs[measures]'"
        ) from error
