"""Replicas of a network whose motifs are learned, under `DistributedDataParallel`.

Replicas see the same weights, so each re-assigns its blocks alone, and no step waits for another
rank. What could differ between them is made that of the first rank once: motifs and indices, the
importance, and the plan of a schedule.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from momos.shards import Ranks

if TYPE_CHECKING:
    from momos.learning.bank import Bank
    from momos.learning.fitting import Importance

Made = TypeVar("Made")
LARGE = ("indices", "value")  # buffers that follow from the weights, or never change
WRAP_LAST = (
    "DistributedDataParallel must wrap the model after momos.parametrize_, which changes its "
    "parameters, but wrapped it before (wrap it again, and make the optimizer after that)"
)


def join_(bank: "Bank") -> None:
    """Makes the bank that of the first rank, in the first forward pass under a wrapper.

    Afterwards the wrapper broadcasts only the small buffers at each step: motifs and scales.

    Raises:
        ValueError: if the replicas have different configs, or the wrapper is older than the bank.
    """
    wrapper = DistributedDataParallel._get_active_ddp_module()
    if wrapper is None or wrapper is bank.seen():
        return
    bank.__dict__["seen"] = weakref.ref(wrapper)
    if any(module is bank for module in wrapper.module.modules()):
        join_to_(bank, wrapper)  # else it is of another network, which this one calls


@torch.no_grad()
def join_to_(bank: "Bank", wrapper: DistributedDataParallel) -> None:
    """The same for a `wrapper` that is known; called on all ranks."""
    names = wrapper.module.named_parameters()
    now = [id(own) for name, own in names if name not in wrapper.parameters_to_ignore]
    if now != list(map(id, wrapper._module_parameters)):
        raise ValueError(WRAP_LAST)
    ranks = Ranks.of(wrapper)
    config = ranks.message(bank.config)
    with ranks.together():
        if config != bank.config:
            raise ValueError(
                f"all ranks must learn motifs by one config, got {bank.config} and {config} on "
                "the first"
            )
    bank.fitting = replace(bank.fitting, importance=_agreed(bank, ranks))
    for tensor in (bank.indices, *_small(bank)):
        tensor.copy_(ranks.first(tensor))
    bank.start_(learning=bool(bank.started))
    if bank.began is not None and not bank.followed:
        bank.begin()  # a wrapper made the weights those of the first rank
    cast(Any, wrapper).parameters_to_ignore |= set(_large(bank, wrapper.module))
    bank.__dict__.update(wrapper=weakref.ref(wrapper), seen=weakref.ref(wrapper))


def by_first(bank: "Bank", make: Callable[[], Made]) -> Made:
    """What `make` returns on the first rank, if the bank is one of several replicas.

    Called on all ranks.
    """
    wrapper = bank.wrapper()
    if wrapper is None:
        return make()
    ranks, made = Ranks.of(wrapper), None
    with ranks.together():
        if ranks.number == 0:
            made = make()
    return ranks.message(made)


def _agreed(bank: "Bank", ranks: Ranks) -> "Importance | None":
    """The first rank's importance."""
    own = bank.fitting.importance
    plain = None if own is None else replace(own, by_weight=None)
    first, each = ranks.message((plain, own is not None and own.by_weight is not None))
    if not each:
        return first
    by_weight = None if own is None else own.by_weight
    if by_weight is None:
        shape = bank.layout.num_blocks, bank.layout.block_size
        by_weight = torch.zeros(shape, device=bank.motifs.device)
    return replace(first, by_weight=ranks.first(by_weight))


def _small(bank: "Bank") -> Iterator[torch.Tensor]:
    for name, buffer in bank.named_buffers(recurse=False):
        if name not in LARGE:
            yield buffer


def _large(bank: "Bank", root: nn.Module) -> Iterator[str]:
    """Names of the buffers that need no broadcast at each step."""
    own = {id(module) for module in (bank, *bank.tiles)}
    for prefix, module in root.named_modules(remove_duplicate=False):
        if id(module) in own:
            for name in LARGE:
                if name in module._buffers:
                    yield f"{prefix}.{name}"
