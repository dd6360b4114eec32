"""The compiled slopes of code lengths (native/slopes.cpp)."""

import numpy as np

def slopes(
    latent: np.ndarray,
    indices: np.ndarray,
    pull: np.ndarray,
    rows: int,
    columns: int,
    num_motifs: int,
    scale: float,
) -> tuple[float, float]: ...
def round(
    latent: np.ndarray,
    indices: np.ndarray,
    value: np.ndarray,
    num_motifs: int,
    scale: float,
    threshold: float,
) -> int: ...
