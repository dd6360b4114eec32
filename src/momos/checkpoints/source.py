"""The tensors of a checkpoint before their values are read: names, shapes, dtypes."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

# Running statistics by the names that frameworks give them. They never become blocks: a variance
# that is rounded to a motif may become negative or zero, and the network is lost.
PARTS = re.compile(r"[./:|]+")
OF_HOLDERS = (
    "value",
    "raw_value",
)  # last parts without meaning, in names of Flax's variables
COLLECTIONS = (  # of Flax and Haiku; everything in them is statistics
    "batch_stats",
    "mean_ema",
    "var_ema",
)
# The last part of the name, or the end of it as in "bn0_moving_var" of MXNet.
ENDS = tuple(
    f"{kind}_{what}"
    for kind in ("running", "moving", "rolling", "avg")
    for what in ("mean", "var", "variance", "std")
)
# For vectors only: Paddle's names, and those of other frameworks inside a module for statistics.
OF_VECTORS = ("mean", "var", "variance", "std", "_mean", "_variance")


@dataclass(frozen=True)
class SourceTensor:
    """A tensor on disk; `read` returns its flat values between two positions."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[int, int], Tensor]

    @property
    def num_weights(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Source:
    """The tensors of a checkpoint by name.

    `aliases` maps further names of shared tensors to the first. `left_out` is what else the file
    holds, and of which type. `unreadable` are tensors whose values are not plain numbers, such as
    quantized and sparse ones, and what to do about them. `files` are all files that are read.
    """

    path: Path
    tensors: dict[str, SourceTensor]
    aliases: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors as they are in memory, each once."""
        tensors = self.tensors.values()
        return sum(tensor.num_weights * tensor.dtype.itemsize for tensor in tensors)


def is_statistics(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this name and shape is known to be running statistics."""
    parts = [part for part in PARTS.split(name.lower()) if not part.isdigit()]
    while parts and parts[-1] in OF_HOLDERS:
        parts.pop()
    if not parts:
        return False
    if parts[-1].endswith(ENDS) or any(part in COLLECTIONS for part in parts):
        return True
    return parts[-1] in OF_VECTORS and math.prod(shape) == max(shape, default=1)
