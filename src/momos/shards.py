"""Models spread over processes: which weights this one holds, and what the ranks tell each other.

This is the only module that calls `torch.distributed`. Blocks are defined on whole tensors, so
a rank needs three things, and no more:

- `Part.of(name, tensor)`: the flat positions of a tensor that this rank holds (`starts`,
  `length`), and whether it is the one of several holders that counts (`counts`).
- `Ranks.of(model)`: the processes among which the model is spread. `sum`, `largest`, `union` and
  `gather` are collective: every rank calls them, in the same order. A model of one process has
  `Ranks()`, for which they return what they are given.
- `Ranks.together()`: a context in which ranks work alone. If one of them raises, all do.

Integers and bits are reduced exactly. Floating sums do not depend on the number of ranks if they
are sums of the multiples that `momos.vq.exact` makes.

A rank that dies or never calls ends the others with an error after the time-out of their process
group, which `torch.distributed.init_process_group(timeout=...)` sets.
"""

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import Any, cast

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

SPREAD_ALIKE = "all sharded parameters must be on meshes of the same processes, or on parts of one mesh"


CPU = torch.device("cpu")
AT_ONCE = 1 << 22  # bytes of several ranks in one message


@dataclass(frozen=True)
class Ranks:
    """The processes among which a model is spread: those of all `groups`, one for each axis.

    `device` is where collectives take their tensors; results are on the device of the argument.
    """

    groups: tuple[Any, ...] = ()
    device: torch.device = CPU

    @classmethod
    def of(cls, model: nn.Module, *, replicas: bool = True) -> "Ranks":
        """The processes of a model's DTensors and, with `replicas`, of DistributedDataParallel.

        Raises:
            ValueError: if two parameters are spread over different sets of processes.
        """
        found = [*_wrapping(model)] if replicas else []
        meshes = _meshes(model)
        if meshes:
            widest = max(meshes.values(), key=lambda mesh: mesh.size())
            for name, mesh in meshes.items():
                _check_mesh(name, mesh, widest)
            found += widest.get_all_groups()
        distinct = {tuple(sorted(_members(group))): group for group in found}
        groups = tuple(group for own, group in distinct.items() if len(own) > 1)
        if not groups:
            return ALONE
        kind = next((m.device_type for m in meshes.values()), None)
        if kind is None:
            kind = next((p.device.type for p in model.parameters()), "cpu")
        return cls(groups, CPU if kind == "cpu" else _current(kind))

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return prod(group.size() for group in self.groups)

    @property
    def number(self) -> int:
        """Which of them this one is."""
        number = 0
        for group in self.groups:
            number = number * group.size() + group.rank()
        return number

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""
        return self._reduced(values, "SUM")

    def largest(self, values: Tensor) -> Tensor:
        """The maximum over all ranks."""
        return self._reduced(values, "MAX")

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank."""
        return bool(self.largest(torch.tensor(int(flag), device="cpu")))

    def union(self, values: Tensor) -> Tensor:
        """Values of which each rank has some, and zero bytes elsewhere, bit for bit."""
        if not self.groups or not values.numel():
            return values
        whole = values.contiguous().reshape(-1)
        return self.sum(whole.view(torch.uint8)).view(values.dtype).view(values.shape)

    def gather(self, values: Tensor) -> list[Tensor]:
        """The `values` of every rank, which may differ in length."""
        if not self.groups:
            return [values]
        lengths = torch.zeros(self.size, dtype=torch.int64, device="cpu")
        lengths[self.number] = len(values)
        sizes = self.sum(lengths).tolist()
        held = values.new_zeros(sum(sizes), *values.shape[1:])
        held.split(sizes)[self.number].copy_(values)
        return list(self.union(held).split(sizes))

    def each(self, *values: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Every rank's `values`, all of one length, one rank after the other."""
        if not self.groups:
            yield values
            return
        shapes = [one.shape[1:] for one in values]
        widths = [
            prod(shape) * one.itemsize for one, shape in zip(values, shapes, strict=True)
        ]
        count = torch.tensor([len(values[0])], device="cpu")
        counts = torch.cat(self.gather(count)).tolist()
        there = [one.to(self.device).contiguous() for one in values]  # as one message
        own = [one.reshape(-1).view(torch.uint8) for one in there]
        for ranks in _together(counts, sum(widths)):
            buffer = own[0].new_zeros(sum(counts[rank] for rank in ranks) * sum(widths))
            parts = buffer.split([counts[rank] * sum(widths) for rank in ranks])
            if self.number in ranks:
                torch.cat(own, out=parts[ranks.index(self.number)])
            parts = self.union(buffer).split([len(part) for part in parts])
            for rank, part in zip(ranks, parts, strict=True):
                rows = part.split([counts[rank] * width for width in widths])
                yield tuple(
                    row.clone().view(one.dtype).view(counts[rank], *shape).to(one.device)
                    for row, one, shape in zip(rows, values, shapes, strict=True)
                )

    def first(self, values: Tensor) -> Tensor:
        """The `values` of the first rank."""
        if not self.groups:
            return values
        return self.union(values if self.number == 0 else torch.zeros_like(values))

    def share_(self, generator: torch.Generator) -> None:
        """Makes the next draws those of the first rank's generator."""
        if not self.groups:
            return
        state = generator.get_state().cpu()
        digest = sha256(bytes(state.tolist())).digest()[:8]
        own = torch.tensor(int.from_bytes(digest) >> 1, device="cpu")
        most, least = self.largest(torch.stack([own, -own])).tolist()
        if most != -least:  # a state has 5 kB, and is mostly the same
            generator.set_state(self.first(state))

    def message(self, value: Any = None) -> Any:
        """Any object of the first rank, pickled."""
        if not self.groups:
            return value
        return pickle.loads(self.pickled(value if self.number == 0 else None)[0])

    def together(self) -> "Together":
        """A context in which ranks work alone: no collective is called.

        If it raises on any rank, the error of the first such rank is raised on all of them.
        """
        return Together(self)

    def pickled(self, value: Any) -> list[bytes]:
        """An object of each rank."""
        data = torch.tensor(list(pickle.dumps(value)), dtype=torch.uint8, device="cpu")
        return [bytes(own.tolist()) for own in self.gather(data)]

    def _reduced(self, values: Tensor, how: str) -> Tensor:
        if not self.groups:
            return values
        import torch.distributed as dist

        there = values.detach().to(self.device, copy=True)
        for group in self.groups:
            dist.all_reduce(there, getattr(dist.ReduceOp, how), group=group)
        return there.to(values.device)


class Together:
    """The context of `Ranks.together`."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if not self.ranks.groups or (kind and not issubclass(kind, Exception)):
            return
        if self.ranks.any(error is not None):
            found = map(pickle.loads, self.ranks.pickled(_sendable(error)))
            raise next(one for one in found if one is not None) from error


ALONE = Ranks()


@dataclass(frozen=True)
class Part:
    """Weights of a tensor that this rank holds: runs of `length` flat positions from `starts`.

    Of several ranks that hold the same weights, `counts` is true for one.
    """

    shape: tuple[int, ...]  # of the whole tensor
    held: tuple[int, ...]  # shape of what this rank holds
    offset: tuple[int, ...]  # where that begins in the whole tensor
    starts: Int64[Tensor, " r"]
    length: int
    counts: bool = True

    @classmethod
    def of(cls, name: str, tensor: Tensor, ranks: Ranks = ALONE) -> "Part":
        """Which part of `tensor` this rank holds; `ranks` are those of its model.

        Raises:
            ValueError: if the tensor is only a summand, or its rows are not next to each other.
        """
        shape = tuple(tensor.shape)
        if not is_sharded(tensor):
            first = all(group.rank() == 0 for group in ranks.groups)
            return cls(
                shape,
                shape,
                (0,) * len(shape),
                torch.zeros(1, dtype=torch.int64, device="cpu"),
                prod(shape),
                first,
            )
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        mesh, placements = cast(Any, tensor).device_mesh, cast(Any, tensor).placements
        if any(placement.is_partial() for placement in placements):
            raise ValueError(
                f"tensor {name!r} must hold weights, but it is a DTensor of partial sums "
                f"({', '.join(map(str, placements))})"
            )
        size, offset = compute_local_shape_and_global_offset(shape, mesh, placements)
        held = tuple(local(tensor).shape)
        if tuple(size) != held:
            raise ValueError(
                f"tensor {name!r} must be cut as its placements say, into {tuple(size)} here, "
                f"got {held}"
            )
        at = tuple(offset)
        return cls(shape, held, at, *_runs(shape, held, at), _counts(tensor, ranks))

    @property
    def num_held(self) -> int:
        """How many weights this rank holds."""
        return len(self.starts) * self.length

    @property
    def box(self) -> tuple[slice, ...]:
        """Where they are in the whole tensor."""
        ends = zip(self.offset, self.held, strict=True)
        return tuple(slice(first, first + size) for first, size in ends)

    def find(self, positions: Tensor) -> tuple[Bool[Tensor, "..."], Int64[Tensor, "..."]]:
        """Which flat `positions` are held here, and where; 0 for the others."""
        if not self.num_held:
            return torch.zeros_like(positions, dtype=torch.bool), torch.zeros_like(
                positions
            )
        starts = self.starts.to(positions.device)
        run = (torch.searchsorted(starts, positions, right=True) - 1).clamp(min=0)
        within = positions - starts[run]
        held = (within >= 0) & (within < self.length)
        return held, (run * self.length + within).where(held, 0)


def _runs(
    shape: tuple[int, ...], held: tuple[int, ...], offset: tuple[int, ...]
) -> tuple[Int64[Tensor, " r"], int]:
    """Starts and length of the runs of flat positions in a box of a tensor."""
    last = max((d for d, n in enumerate(held) if n != shape[d]), default=0)
    length = prod(held[last:])
    starts = torch.zeros(1, dtype=torch.int64, device="cpu")
    if not length or not prod(held[:last]):
        return starts, 0
    for dim, size in enumerate(held[:last]):
        own = torch.arange(offset[dim], offset[dim] + size, device="cpu")
        starts = (starts[:, None] + own * prod(shape[dim + 1 :])).reshape(-1)
    if shape:
        starts = starts + offset[last] * prod(shape[last + 1 :])
    return starts, length


def _counts(tensor: Tensor, ranks: Ranks) -> bool:
    """Whether no rank before this one holds the same weights."""
    mesh, placements = cast(Any, tensor).device_mesh, cast(Any, tensor).placements
    own = list(zip(mesh.get_all_groups(), placements, strict=True))
    first = all(group.rank() == 0 for group, where in own if where.is_replicate())
    if mesh.size() < ranks.size:  # on a part of the mesh: the rest holds copies
        known = {tuple(_members(group)) for group, _ in own}
        others = [g for g in ranks.groups if tuple(_members(g)) not in known]
        return first and all(group.rank() == 0 for group in others)
    return first


def _together(counts: list[int], width: int) -> Iterator[list[int]]:
    """Successive ranks that are heard at once: several if they say little."""
    held: list[int] = []
    for rank, count in enumerate(counts):
        if held and (sum(counts[one] for one in held) + count) * width > AT_ONCE:
            yield held
            held = []
        held.append(rank)
    yield held


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, also one of which every rank holds all."""
    kind = _kind()
    return kind is not None and isinstance(tensor, kind)


@torch.no_grad()
def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, sharing its memory."""
    return cast(Any, tensor).to_local() if is_sharded(tensor) else tensor.detach()


def _kind() -> type | None:
    """The class of DTensors, if there can be any."""
    loaded = sys.modules.get("torch.distributed.tensor")
    return None if loaded is None else loaded.DTensor


def gathered(name: str, tensor: Tensor, ranks: Ranks) -> Tensor:
    """All values of a tensor, on every rank; collective if it is sharded."""
    if not is_sharded(tensor):
        return tensor.detach()
    part = Part.of(name, tensor, ranks)
    own = local(tensor).resolve_conj().resolve_neg()
    whole = own.new_zeros(part.shape)
    if part.counts:
        whole[part.box] = own
    return ranks.union(whole)


def spread_out(model: nn.Module) -> bool:
    """Whether a parameter or buffer of `model` is a DTensor."""
    if _kind() is None:
        return False
    reshard_(model)
    return any(map(is_sharded, (*model.parameters(), *model.buffers())))


def reshard_(model: nn.Module) -> None:
    """Drops the whole weights that `fully_shard` keeps after a forward pass.

    Changes to them would be lost.
    """
    for module in filter(is_fully_sharded, model.modules()):
        cast(Any, module).reshard()


def is_fully_sharded(module: nn.Module) -> bool:
    """Whether `fully_shard` was called for a module."""
    return any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)


def _wrapping(model: nn.Module) -> Iterator[Any]:
    """The process groups of a wrapper of replicas."""
    inner = model._modules.get("_orig_mod") or model
    if isinstance(inner, DistributedDataParallel):
        yield inner.process_group


def without_replicas(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel, or `model` itself."""
    inner = model._modules.get("_orig_mod") or model
    return inner.module if isinstance(inner, DistributedDataParallel) else model


@contextmanager
def unsynchronized(model: nn.Module) -> Iterator[None]:
    """A context in which replicas do not wait for each other: neither gradients nor buffers."""
    inner = model._modules.get("_orig_mod") or model
    if not isinstance(inner, DistributedDataParallel):
        yield
        return
    before = inner.require_forward_param_sync
    inner.require_forward_param_sync = False
    try:
        with inner.no_sync():
            yield
    finally:
        inner.require_forward_param_sync = before


def _meshes(model: nn.Module) -> dict[str, Any]:
    if _kind() is None:
        return {}
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: cast(Any, t).device_mesh for name, t in tensors if is_sharded(t)}


def _check_mesh(name: str, mesh: Any, widest: Any) -> None:
    if mesh == widest or set(mesh.mesh.flatten().tolist()) == set(
        widest.mesh.flatten().tolist()
    ):
        return
    known = {tuple(_members(group)) for group in widest.get_all_groups()}
    if not all(tuple(_members(group)) in known for group in mesh.get_all_groups()):
        raise ValueError(
            f"{SPREAD_ALIKE}, got {tuple(mesh.mesh.flatten().tolist())} for {name!r} and "
            f"{tuple(widest.mesh.flatten().tolist())}"
        )


def _members(group: Any) -> list[int]:
    import torch.distributed as dist

    return dist.get_process_group_ranks(group)


def _current(kind: str) -> torch.device:
    return torch.device(kind, torch.get_device_module(kind).current_device())


def _sendable(error: BaseException | None) -> BaseException | None:
    """An error that can be pickled: itself, or one of the same words."""
    try:
        pickle.loads(pickle.dumps(error))
    except (pickle.PicklingError, TypeError, AttributeError):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
