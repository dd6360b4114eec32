"""The modules that hold a compact network: one bank of motifs at its root, packed indices in its layers.

`.to(dtype)` changes the dtype of the weights that they give, not of what they hold: motifs and scales
keep every bit, so nothing is rounded twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float32, Int8, Shaped, UInt8
from torch import Tensor, nn

from momos.blocks import Layout
from momos.compact import operators
from momos.compact.bitpack import index_bits, num_packed_bytes
from momos.config import LatticeConfig, MosaicConfig

NAME = "momos"  # the submodule of a network that is its bank


@dataclass(frozen=True, eq=False)
class Origin:
    """The mosaic a network was made compact from, but for what its layers hold.

    `rest` has the packed indices, and the scales, of parameters that stayed dense.
    """

    layout: Layout
    config: MosaicConfig | LatticeConfig | None
    rest: dict[str, tuple[UInt8[Tensor, " b"], Float32[Tensor, " c"] | None]]


class MotifBank(nn.Module):
    """The motifs of a network, registered once at its root under the name `momos`.

    With `exact`, every product is computed from dense weights, decoded for it, so that it equals the
    dense network's bit for bit.
    """

    motifs: Shaped[Tensor, "k s"] | Int8[Tensor, "k s"]

    def __init__(
        self, motifs: Tensor, *, exact: bool = False, origin: Origin | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("motifs", motifs)
        self.exact = exact
        self.origin = origin

    @property
    def bits(self) -> int:
        """Bits of a packed index."""
        return index_bits(len(self.motifs))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MotifBank":
        self._buffers["motifs"] = moved(self.motifs, fn)
        return self

    def forward(self, *inputs: Any) -> Any:
        """The identity: in an nn.Sequential the bank is one more layer."""
        return inputs[0] if len(inputs) == 1 else inputs

    def extra_repr(self) -> str:
        count, size = self.motifs.shape
        return (
            f"num_motifs={count}, block_size={size}, bits={self.bits}, exact={self.exact}"
        )


class PackedWeight(nn.Module):
    """One weight as packed indices, and scales if there are some.

    The bank is not registered here: it belongs to the root of the network alone.
    """

    indices: UInt8[Tensor, " b"]
    scales: Float32[Tensor, " c"] | None
    bank: MotifBank

    def __init__(
        self,
        bank: MotifBank,
        indices: Tensor,
        scales: Tensor | None,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        *,
        axis: int = 0,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        needed = num_packed_bytes(-(-prod(shape) // bank.motifs.shape[1]), bank.bits)
        if len(indices) != needed:
            raise ValueError(
                f"a weight of shape {shape} must have {needed} bytes of packed indices, got "
                f"{len(indices)}"
            )
        self.__dict__["bank"] = bank
        self.register_buffer("indices", indices)
        self.register_buffer("scales", scales)
        self.shape, self.axis = tuple(shape), axis
        self.stored = self.dtype = dtype
        self.trainable = trainable  # whether the parameter it came from was

    def dense(self) -> Tensor:
        """The weight, decoded."""
        return operators.weight(*self._packed())

    def rows(self, ids: Tensor) -> Tensor:
        """The rows `ids` of the weight, a matrix."""
        return operators.rows(ids, *self._packed())

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """inputs · weightᵀ + bias, as `torch.nn.functional.linear`, autocast included."""
        kind = inputs.device.type
        if torch.is_autocast_enabled(kind) and inputs.is_floating_point():
            dtype = torch.get_autocast_dtype(kind)
            inputs = inputs.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        elif inputs.dtype != self.dtype:
            return nn.functional.linear(inputs, self.dense(), bias)  # which refuses it
        if inputs.shape[-1:] != self.shape[-1:]:
            raise ValueError(
                f"inputs must have {self.shape[-1]} features, got shape {tuple(inputs.shape)}"
            )
        return operators.linear(inputs, bias, *self._packed(), self.bank.exact)

    def num_bytes(self) -> int:
        """Bytes in memory of indices and scales."""
        return self.indices.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def _packed(self) -> operators.Packed:
        bank = self.bank
        about = bank.bits, self.shape, self.axis, self.stored, self.dtype
        return operators.Packed(bank.motifs, self.indices, self.scales, *about)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> "PackedWeight":
        self._buffers["indices"] = moved(self.indices, fn)
        if self.scales is not None:
            self._buffers["scales"] = moved(self.scales, fn)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.indices.device)).dtype
        return self

    def extra_repr(self) -> str:
        return f"shape={self.shape}, dtype={self.dtype}, bits={self.bank.bits}"


def moved(tensor: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """`fn(tensor)` as `nn.Module.to` and its kind apply it, in the dtype that `tensor` has."""
    result = fn(tensor)
    return result if result.dtype == tensor.dtype else tensor.to(result.device)
