"""The compiled CPU kernels: blocks and products from packed indices (native/)."""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from momos.vq.cpu import instruction_set


def decode(motifs: Tensor, packed: Tensor, bits: int, start: int, stop: int) -> Tensor:
    """The motifs of the blocks `start` to `stop`; `operators.blocks_reference` is the definition.

    Raises:
        ValueError: if an index names no motif.
    """
    blocks = motifs.new_empty(stop - start, motifs.shape[1])
    width, threads = motifs.shape[1] * motifs.itemsize, torch.get_num_threads()
    good = native().decode(
        _buffer(motifs), _buffer(packed), _buffer(blocks), width, bits, start, threads
    )
    if not good:
        raise wrong_index(len(motifs))
    return blocks


def product(
    inputs: Tensor, motifs: Tensor, packed: Tensor, bits: int, num_rows: int
) -> Tensor:
    """inputs · weightᵀ in float32, for a weight of `num_rows` rows, without decoding it whole.

    Raises:
        ValueError: if an index names no motif (where there is a table for all indices of so many
            bits, the product is NaN instead).
    """
    inputs, motifs = inputs.contiguous(), motifs.contiguous()
    outputs = inputs.new_empty(len(inputs), num_rows)
    width, size = inputs.shape[1], motifs.shape[1]
    arguments = (
        *(_buffer(tensor) for tensor in (inputs, motifs, packed, outputs)),
        *(len(inputs), width, num_rows, size, bits, torch.get_num_threads()),
    )
    if by_table(width, size, bits):
        native().lookup(*arguments)
    elif not native().rowwise(*arguments):
        raise wrong_index(len(motifs))
    return outputs


def by_table(width: int, block_size: int, bits: int) -> bool:
    """Whether products of all motifs with all blocks of an input pay: few motifs, whole blocks."""
    whole = width % block_size == 0
    return (
        block_size > 1
        and whole
        and (bits == 8 or (bits == 4 and width // block_size % 2 == 0))
    )


def by_tile(width: int, block_size: int) -> bool:
    """Whether cuda.py takes rows of `width` weights: whole blocks, of a power of two."""
    return width % block_size == 0 and block_size & (block_size - 1) == 0


def wrong_index(num_motifs: int) -> ValueError:
    return ValueError(
        f"packed indices must be below {num_motifs}, the number of motifs, but one is not (do "
        "motifs and indices come from one model?)"
    )


@cache
def native() -> ModuleType:
    """The compiled module for the best instruction set of this processor."""
    return import_module(f"momos.compact._{instruction_set()}")


def _buffer(tensor: Tensor) -> Any:
    flat = tensor.detach().contiguous()
    return (flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat).numpy()
