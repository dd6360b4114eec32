"""The compiled coder and quantizer (native/lattice_module.cpp)."""

import numpy as np

def has_avx2() -> bool: ...
def encode(
    values: np.ndarray, memory: int, row: int, kernel: int, position: int
) -> bytes: ...
def decode(
    stream: bytes, values: np.ndarray, memory: int, row: int, kernel: int, position: int
) -> None: ...
def fits(values: np.ndarray, memory: int) -> bool: ...
def quantize(
    weights: np.ndarray,
    width: int,
    importance: np.ndarray | None,
    memory: int,
    rate_weight: float,
    kernel_weight: float,
    row_weight: float,
    row: int,
    kernel: int,
    position: int,
    values: np.ndarray,
) -> None: ...
