"""Weights as rows of `block_size` values, and back; `Layout` maps rows to parameters.

Each chosen parameter is flattened row-major, padded with zeros at its end to whole blocks, and
cut; blocks never cross parameters (Bakhtiarifard et al. 2026, §3). `read` and `write_` are
inverses on the weights; the padding is written as zeros and never read back.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from math import prod
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from momos.parameters import check_whole_tensors, chosen_parameters
from momos.parameters import matches as matches
from momos.parameters import memory as memory
from momos.shards import ALONE, Ranks

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PIECE = 1 << 16  # blocks taken at once where memory must stay bounded


@dataclass(frozen=True)
class Placement:
    """Position of one parameter among the blocks.

    Its output channels are the slices along dimension `axis`. Where a parameter is sharded,
    this is the position of what this rank holds, and `skip` is how many weights of its first
    block are held by the ranks before.

    Example:
        >>> layout = momos.Layout.of(nn.Linear(10, 3), block_size=4)
        >>> [(place.name, place.start, place.stop) for place in layout.placements]
        [('weight', 0, 8), ('bias', 8, 9)]
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int
    num_blocks: int
    num_weights: int
    axis: int = 0
    skip: int = 0

    @property
    def stop(self) -> int:
        """The first row after those of this parameter."""
        return self.start + self.num_blocks


@dataclass(frozen=True)
class Layout:
    """The parameters that are cut into blocks, and their rows.

    Example:
        >>> model = nn.Linear(10, 3)  # 30 weights and 3 biases
        >>> layout = momos.Layout.of(model, block_size=4)
        >>> layout.num_weights, layout.num_blocks
        (33, 9)
        >>> layout.read(model).shape
        torch.Size([9, 4])
    """

    block_size: int
    placements: tuple[Placement, ...]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *,
        block_size: int,
        include: tuple[str, ...] = ("*",),
        exclude: tuple[str, ...] = (),
        min_ndim: int = 0,
    ) -> "Layout":
        """The layout of the trainable parameters of `model` that the patterns choose.

        A parameter with several names (tied weights) is taken once, under its first; it is
        left out if any of its names is excluded. Empty and frozen parameters, and those of
        fewer than `min_ndim` dimensions, are left out.

        Raises:
            ValueError: if no parameter is chosen, or one cannot be cut into blocks: sharded, not
                initialised, not a real floating dtype, or on another device than the rest.
        """
        check_whole_tensors(model)
        chosen = blocked_parameters(model, block_size, include, exclude, min_ndim)
        return cls.cut(block_size, ((name, p.shape, p.dtype) for name, p in chosen.items()))

    @classmethod
    def cut(
        cls,
        block_size: int,
        tensors: Iterable[tuple[str, Sequence[int], torch.dtype]],
        axes: Mapping[str, int] = MappingProxyType({}),
    ) -> "Layout":
        """The layout of tensors of these names, shapes and dtypes, one after another.

        `axes` says which dimension holds the output channels where it is not the first.
        """
        placements, start = [], 0
        for name, shape, dtype in tensors:
            count = prod(shape)
            placement = Placement(
                name=name,
                shape=tuple(shape),
                dtype=dtype,
                start=start,
                num_blocks=-(-count // block_size),
                num_weights=count,
                axis=axes.get(name, 0),
            )
            placements.append(placement)
            start = placement.stop
        return cls(block_size, tuple(placements))

    @property
    def axes(self) -> dict[str, int]:
        """The dimension of the output channels by name, where it is not the first."""
        return {place.name: place.axis for place in self.placements if place.axis}

    def number(self, placement: Placement) -> int:
        """Which of the placements one is."""
        return self._numbers[placement.name]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {place.name: number for number, place in enumerate(self.placements)}

    @property
    def ranks(self) -> Ranks:
        """The processes that share the blocks."""
        return ALONE

    @property
    def num_rows(self) -> int:
        """Blocks of which this process holds weights: all of them, if the model is not sharded."""
        return self.placements[-1].stop if self.placements else 0

    def counted(self, rows: Tensor) -> Tensor:
        """Those of the rows of this process, in any of their attributes, that are its own.

        Of a block whose weights several ranks hold, it is the own block of one.
        """
        return rows

    def counts(self, placement: Placement) -> bool:
        """Whether no other process counts the same weights of a parameter."""
        return True

    def block_number(self, placement: Placement, row: int) -> int:
        """The number of a block in the whole parameter, by its row in `placement`."""
        return row

    def within(self, prefix: str) -> tuple["Layout", list[Placement]]:
        """The layout of a submodule, under its own names, and its placements in this one."""
        dot = f"{prefix}."
        inside = [place for place in self.placements if place.name.startswith(dot)]
        names = ((p.name.removeprefix(dot), p.shape, p.dtype) for p in inside)
        axes = {p.name.removeprefix(dot): p.axis for p in inside}
        return Layout.cut(self.block_size, names, axes), inside

    @property
    def num_blocks(self) -> int:
        """Blocks of all parameters, m."""
        return self.num_rows

    @cached_property
    def num_weights(self) -> int:
        """Weights of all parameters, without padding."""
        return sum(placement.num_weights for placement in self.placements)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The narrowest dtype that holds every chosen parameter."""
        return reduce(torch.promote_types, (place.dtype for place in self.placements))

    def tensors(self, model: nn.Module) -> Iterator[tuple[Placement, Tensor]]:
        """Each placement with its parameter's values (sharing memory with `model`).

        Raises:
            ValueError: if a parameter is sharded or missing, has another shape or dtype, or holds
                no values.
        """
        check_whole_tensors(model)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for placement in self.placements:
            if placement.name not in parameters:
                raise ValueError(
                    f"model must have the parameter {placement.name!r} of the layout"
                )
            tensor = parameters[placement.name].detach()
            check_placed(placement, placement.shape, tensor)
            yield placement, tensor

    def edges(self, model: nn.Module) -> Float[Tensor, "e s"] | None:
        """The blocks of which no rank holds all weights; None where there are none."""
        return None

    def flats(
        self, model: nn.Module, edges: Tensor | None = None
    ) -> Iterator[tuple[Placement, Float[Tensor, " n"]]]:
        """Each placement with the weights of its rows, completed by those in `edges`."""
        for placement, tensor in self.tensors(model):
            yield placement, tensor.reshape(-1)

    def pieces(
        self, model: nn.Module, edges: Tensor | None = None
    ) -> Iterator[tuple[int, Float[Tensor, "p s"]]]:
        """First row and blocks of successive pieces of at most `PIECE` blocks."""
        start, held, rows = 0, [], 0
        for _, flat in self.flats(model, edges):
            for part in _parts(flat, self.block_size):
                if rows + len(part) > PIECE:
                    yield start, self._joined(held)
                    start, held, rows = start + rows, [], 0
                held.append(part)
                rows += len(part)
        if rows:
            yield start, self._joined(held)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0].to(self.dtype)
        return torch.cat([part.to(self.dtype) for part in parts])

    def read(self, model: nn.Module) -> Float[Tensor, "m s"]:
        """The blocks of `model`, in the dtype of the layout."""
        return torch.cat([blocks for _, blocks in self.pieces(model)])

    def take(self, model: nn.Module, rows: Int[Tensor, " r"]) -> Float[Tensor, "r s"]:
        """The blocks at `rows`, without reading the others."""
        outside = rows[(rows < 0) | (rows >= self.num_blocks)]
        if len(outside):
            last = self.num_blocks - 1
            raise ValueError(f"rows must be 0 to {last}, got {int(outside[0])}")
        stops = torch.tensor(
            [placement.stop for placement in self.placements], device="cpu"
        )
        order = torch.argsort(rows.cpu(), stable=True)
        ordered = rows.cpu()[order]
        edges = [0, *torch.searchsorted(ordered, stops).tolist()]
        taken = []
        parts = zip(self.tensors(model), pairwise(edges), strict=True)
        for (placement, tensor), (low, high) in parts:
            local = (ordered[low:high] - placement.start).to(tensor.device)
            values = local[:, None] * self.block_size
            values = values + torch.arange(self.block_size, device=tensor.device)
            block = tensor.reshape(-1)[values.clamp(max=placement.num_weights - 1)]
            block = block.masked_fill(values >= placement.num_weights, 0)
            taken.append(block.to(self.dtype))
        blocks = torch.cat(taken)
        result = torch.empty_like(blocks)
        result[order.to(blocks.device)] = blocks
        return result

    @torch.no_grad()
    def write_(self, model: nn.Module, blocks: Float[Tensor, "m s"]) -> None:
        """Replaces the chosen parameters of `model` by `blocks`.

        Raises:
            ValueError: if the blocks or the model do not have the shapes of the layout.
        """
        if tuple(blocks.shape) != (self.num_rows, self.block_size):
            raise ValueError(
                f"blocks must have shape {(self.num_rows, self.block_size)}, got "
                f"{tuple(blocks.shape)}"
            )
        for placement, tensor in list(self.tensors(model)):
            flat = blocks[placement.start : placement.stop].reshape(-1)[placement.skip :]
            tensor.copy_(flat[: placement.num_weights].view(placement.shape))


def blocked_parameters(
    model: nn.Module,
    block_size: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    min_ndim: int,
) -> dict[str, nn.Parameter]:
    """The parameters that `Layout.of` takes, which may be sharded."""
    if isinstance(block_size, bool) or not isinstance(block_size, int):
        raise TypeError(f"block_size must be an int, got {block_size!r}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    chosen = chosen_parameters(model, include, exclude, min_ndim)
    for name, parameter in chosen.items():
        if parameter.dtype not in DTYPES:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise ValueError(
                f"dtype must be one of {allowed}, got {parameter.dtype} for parameter "
                f"{name!r} (exclude it to leave it as it is)"
            )
    return chosen


def check_placed(placement: Placement, shape: tuple[int, ...], tensor: Tensor) -> None:
    """Refuses a parameter that does not fit its placement, or holds no values.

    Raises:
        ValueError: if `tensor` has another dtype, is a meta tensor, or `shape` differs.
    """
    name = placement.name
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"parameter {name!r} must have shape {shape}, got {tuple(tensor.shape)}"
        )
    if tensor.dtype != placement.dtype:
        raise ValueError(
            f"parameter {name!r} must have dtype {placement.dtype}, got {tensor.dtype}"
        )
    if tensor.is_meta:
        raise ValueError(f"parameter {name!r} must hold values, got a meta tensor")


def _parts(flat: Tensor, block_size: int) -> Iterator[Tensor]:
    """Rows of one parameter: views, except for a padded last row."""
    whole = len(flat) // block_size
    for start in range(0, whole, PIECE):
        stop = min(start + PIECE, whole)
        yield flat[start * block_size : stop * block_size].view(-1, block_size)
    if whole * block_size < len(flat):
        tail = flat[whole * block_size :]
        yield nn.functional.pad(tail, (0, block_size - len(tail)))[None]


def grouped(
    placements: Sequence[Placement], groups: tuple[tuple[str, ...], ...]
) -> Iterator[list[Placement]]:
    """The placements of each non-empty group, in order; those in no group come last.

    A group is a tuple of name patterns; a parameter belongs to the first group it matches.
    """
    left = list(placements)
    for patterns in groups:
        members = [place for place in left if matches(place.name, patterns)]
        left = [place for place in left if not matches(place.name, patterns)]
        if members:
            yield members
    if left:
        yield left
