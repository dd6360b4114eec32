"""Latent weights that `fully_shard` can spread over processes.

A rank then holds a part of the latent weights, and the indices of the blocks that begin in it. For
a forward pass ranks gather indices, a byte for each block where there are at most 256 motifs, and
each writes the mosaic that they say into the parameter that the pass sees. The gradient of that
parameter is the latent weight's own (straight through), which FSDP scatters to its shards.

`LatentShard` is the tensor subclass by which FSDP2 lets a parameter choose what is gathered
(`fsdp_pre_all_gather`, `fsdp_post_all_gather`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
# Results of these, which FSDP and DTensor apply to shards, are shards too.
SHARDS = {
    aten.alias.default, aten.as_strided.default, aten.clone.default, aten.detach.default,
    aten.new_zeros.default, aten.slice.Tensor, aten.split.Tensor, aten.view.default,
    aten._pin_memory.default, aten._to_copy.default,
}  # fmt: skip


class Latent(nn.Parameter):
    """A latent weight; `fully_shard` copies it into zeros that it makes of it."""

    def new_zeros(self, *size: Any, **options: Any) -> Tensor:
        """Zeros that hold a shard of the latent weight."""
        return LatentShard(self.detach().as_subclass(Tensor).new_zeros(*size, **options))


class Whole(nn.Parameter):
    """A parameter of the bank, which ranks cannot share."""

    def new_zeros(self, *size: Any, **options: Any) -> Tensor:
        raise ValueError(
            "fully_shard can shard learned weights only with learn='weights' and a selection "
            "other than 'whole' (DistributedDataParallel runs all of them)"
        )


class LatentShard(Tensor):
    """The part of a latent weight that this rank holds: `held`, an ordinary tensor."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @staticmethod
    def __new__(cls, held: Tensor) -> "LatentShard":
        return Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=held.device,
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore
        plain, named = tree_map_only(cls, lambda shard: shard.held, (args, kwargs or {}))
        found = func(*plain, **named)
        if func in SHARDS:
            return tree_map_only(Tensor, cls, found)
        if func is aten.copy_.default and isinstance(args[0], cls):
            return args[0]
        return found

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, Tensor], context: None, size: Any, stride: Any
    ) -> "LatentShard":
        return LatentShard(inner["held"])

    def fsdp_pre_all_gather(
        self, mesh: Any, outer_size: Any, outer_stride: Any, module: nn.Module, policy: Any
    ) -> tuple[tuple[Tensor, ...], Any]:
        """What this rank sends, and the tile of the parameter."""
        tile: Any = module[0]  # type: ignore[index]
        return (tile.sent(self.held, outer_size, mesh, policy.param_dtype),), tile

    def fsdp_post_all_gather(
        self, gathered: tuple[Tensor, ...], tile: Any, dtype: Any, *, out: Any = None
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """The whole weight that a pass sees, and the memory that FSDP frees after it."""
        return tile.received(gathered[0], dtype, out)


def held(tensor: Tensor) -> Tensor:
    """The latent weights that this rank holds, sharing their memory: all, if they are whole."""
    local = getattr(tensor, "_local_tensor", tensor)
    return (local.held if isinstance(local, LatentShard) else local).detach()
