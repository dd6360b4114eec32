"""What is known of a checkpoint before its values are read."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class SourceTensor:
    """A tensor on disk; `read` gives its values from one position up to another, flat."""

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

    `aliases` are further names of tensors that share their memory; `left_out` is what the file
    holds beside tensors, and what it is; `unreadable` are tensors whose values are not plain
    numbers, as quantized and sparse ones, and what to do about them. `files` are all files that
    are read.
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
