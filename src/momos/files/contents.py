"""Contents of a file to be written: its tensors, which of them are blocks, how to read the others.

`Hashing` reduces all values to one number, whatever file they came from.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from momos._util.work import Progress, quiet
from momos.blocks import Placement, memory
from momos.codec import PACK_VALUES, raw
from momos.config import MosaicConfig
from momos.files.coding import CodedMosaic
from momos.files.gathering import FetchedMosaic, Gathering
from momos.files.manifest import DTYPES, Record
from momos.learning import Bank
from momos.mosaic import Mosaic, remembered
from momos.parameters import check_held_tensors, check_whole_tensors
from momos.shards import Ranks, is_sharded

PARAMETER = "parameter"
BUFFER = "buffer"
TEMPORARY = "buffer that state_dict leaves out"
FROZEN = "frozen"
EMPTY = "empty"
LEFT_OUT = "not chosen"


@dataclass(frozen=True)
class Contents:
    """Records without streams, in the order of the file; those of blocks in the order of the layout.

    `check_unchanged` is called after everything was read, and raises if the source has changed
    since its mosaic was made.
    """

    records: tuple[Record, ...]
    mosaic: Mosaic | CodedMosaic | None
    read: Callable[[str, int, int], Tensor]  # values of a dense tensor, flat, from and to
    metadata: dict[str, str] = field(default_factory=dict)
    check_unchanged: Callable[[], None] = lambda: None
    sha256: str | None = None  # of all values, where it is known

    @property
    def config(self) -> dict[str, Any] | None:
        config = self.mosaic.config if self.mosaic else None
        return asdict(config) if config else None

    @property
    def num_bytes(self) -> int:
        """Bytes in memory of everything the file will hold, blocks padded."""
        mosaic = self.mosaic
        bank = mosaic.num_motifs * 8 + mosaic.motifs.nbytes if mosaic else 0
        bank += sum(scale.nbytes for scale in (mosaic and mosaic.scales) or ())
        size = mosaic.layout.block_size if mosaic else 1
        return bank + sum(record.padded_bytes(size) for record in self.records)

    def pieces(self, record: Record) -> Iterator[Tensor]:
        """The values of a tensor, flat, piece by piece, contiguous and on the CPU."""
        if record.stored == "blocks":
            assert self.mosaic is not None
            for _, values in self.mosaic.rebuilt(self._places[record.name]):
                yield values.cpu().contiguous()
            return
        for start in range(0, record.num_weights, PACK_VALUES):
            yield self.read(
                record.name, start, min(start + PACK_VALUES, record.num_weights)
            )

    def record(self, name: str) -> Record:
        return self._records[name]

    @cached_property
    def _records(self) -> dict[str, Record]:
        return {record.name: record for record in self.records}

    @cached_property
    def _places(self) -> dict[str, Placement]:
        places = self.mosaic.layout.placements if self.mosaic else ()
        return {place.name: place for place in places}

    @classmethod
    def of_mosaic(cls, mosaic: Mosaic) -> "Contents":
        return cls(_blocks(mosaic), mosaic, _nothing)

    @classmethod
    def of_model(cls, model: nn.Module, config: MosaicConfig | None = None) -> "Contents":
        """All parameters and buffers of `model`, which must be a mosaic if it has any to train.

        `config` helps to find the mosaic if `model` was not projected itself.

        Raises:
            ValueError: if it is not, or something in it is not an ordinary tensor.
        """
        check_whole_tensors(model)
        mosaic = Mosaic.of(model, config) if _wants_mosaic(model, config) else None
        tensors, records = _records(model, mosaic)
        flat = {
            name: tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
            for name, tensor in tensors.items()
        }

        def read(name: str, start: int, stop: int) -> Tensor:
            return flat[name][start:stop].cpu()

        return cls(_with_blocks(records, mosaic), mosaic, read)

    @classmethod
    def gathered(
        cls, model: nn.Module, config: MosaicConfig | None, ranks: Ranks
    ) -> tuple["Contents", Gathering]:
        """Like `of_model`, of a sharded model, for the first rank; what the others serve by.

        All ranks call it.
        """
        with ranks.together():
            check_held_tensors(model)
            wanted = _wants_mosaic(model, config)
        own = Mosaic.of(model, config) if wanted else None
        with ranks.together():
            gathering = Gathering(ranks, model, own)
            tensors, records = _records(model, own)
        mosaic = None if own is None else FetchedMosaic(own, gathering.indices)

        def read(name: str, start: int, stop: int) -> Tensor:
            tensor = tensors[name]
            if is_sharded(tensor):
                return gathering.tensor(name)[start:stop]
            return (
                tensor.detach().resolve_conj().resolve_neg().reshape(-1)[start:stop].cpu()
            )

        return cls(_with_blocks(records, mosaic), mosaic, read), gathering


def _wants_mosaic(model: nn.Module, config: MosaicConfig | None) -> bool:
    """Whether a model must be a mosaic to be saved, after checking that its tensors can be."""
    for name, tensor, _ in named_tensors(model):
        _check_ordinary(name, tensor)
    check_state(model)
    trainable = any(p.requires_grad for p in model.parameters())
    return trainable or remembered(model) or config is not None


def _records(
    model: nn.Module, mosaic: Mosaic | None
) -> tuple[dict[str, Tensor], list[Record]]:
    """The tensors of `model`, each once, and their records, before those of the mosaic."""
    found = list(named_tensors(model))
    blocks = {place.name for place in mosaic.layout.placements} if mosaic else set()
    first = {memory(tensor): name for name, tensor, _ in reversed(found)}
    first |= {memory(tensor): name for name, tensor, _ in found if name in blocks}
    tensors, records = {}, []
    for name, tensor, kind in found:
        persistent = kind != TEMPORARY
        if (same := first[memory(tensor)]) != name:
            records.append(Record(name, "same", same_as=same, persistent=persistent))
            continue
        tensors[name] = tensor
        records.append(
            Record(
                name,
                "dense",
                tuple(tensor.shape),
                tensor.dtype,
                why=_why(tensor, kind),
                persistent=persistent,
            )
        )
    return tensors, records


def as_stored(values: Tensor) -> Tensor:
    """Values as a file holds them: a true bool, which may be any byte, as 1."""
    if values.dtype == torch.bool:
        return values.contiguous().view(torch.uint8) != 0
    return values.detach()


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """Every name of every parameter and buffer, in the order of `state_dict`."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = prefix and f"{prefix}."
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield dot + name, parameter, PARAMETER
        for name, buffer in module._buffers.items():
            if buffer is not None:
                lasting = name not in module._non_persistent_buffers_set
                yield dot + name, buffer, BUFFER if lasting else TEMPORARY


def check_state(model: nn.Module) -> None:
    """Refuses a model whose state is more than its parameters and buffers, or other.

    Raises:
        ValueError: naming what differs, or if motifs of the model are being learned.
    """
    if any(isinstance(module, Bank) for module in model.modules()):
        raise ValueError(
            f"the motifs of {type(model).__name__} must not be learned any more "
            "(momos.freeze_ ends that)"
        )
    names = {name for name, _, kind in named_tensors(model) if kind != TEMPORARY}
    if others := sorted(names ^ model.state_dict().keys()):
        raise ValueError(
            f"the state of a model must be its parameters and buffers, but "
            f"{type(model).__name__} has others or lacks some: {', '.join(others)}"
        )


def check_values(name: str, tensor: Tensor) -> None:
    """Refuses a tensor that holds no values.

    Raises:
        ValueError: if it is not initialised, or on the meta device.
    """
    if is_lazy(tensor) or tensor.is_meta:
        kind = "an uninitialised" if is_lazy(tensor) else "a meta"
        raise ValueError(f"tensor {name!r} must hold values, got {kind} one")


def why_fixed(tensor: Tensor) -> str:
    """Why no values can be written into `tensor`, if they cannot."""
    if is_lazy(tensor):
        return "uninitialised: run one forward pass first"
    if tensor.is_meta:
        return "on the meta device, which holds no values"
    if tensor.is_inference():
        return "made in inference mode, so it cannot be changed"
    if tensor.layout != torch.strided:
        return f"not strided but {tensor.layout}"
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    if any(size > 1 and stride == 0 for size, stride in strides):
        return "expanded: its values share memory"
    return ""


def takes(tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> bool:
    """Whether values of this shape and dtype can be written into `tensor`."""
    return not why_fixed(tensor) and (tuple(tensor.shape), tensor.dtype) == (shape, dtype)


def joined(record: Record, pieces: Iterable[Tensor]) -> Tensor:
    """A tensor from successive flat pieces of its values."""
    flat, start = torch.empty(record.num_weights, dtype=record.dtype, device="cpu"), 0
    for values in pieces:
        flat[start : start + len(values)] = values
        start += len(values)
    return flat.view(record.shape)


def _check_ordinary(name: str, tensor: Tensor) -> None:
    check_values(name, tensor)
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "a nested tensor" if tensor.is_nested else tensor.layout
        raise ValueError(f"tensor {name!r} must be strided, got {kind}")
    if tensor.dtype not in DTYPES.values():
        raise ValueError(f"tensor {name!r} must have a plain dtype, got {tensor.dtype}")


def _why(tensor: Tensor, kind: str) -> str:
    if kind != PARAMETER:
        return kind
    if not tensor.numel():
        return EMPTY
    return LEFT_OUT if tensor.requires_grad else FROZEN


def _with_blocks(records: list[Record], mosaic: Mosaic | None) -> tuple[Record, ...]:
    """`records`, with those of the mosaic as blocks, in the order of its layout."""
    blocks = _blocks(mosaic) if mosaic else ()
    names = {record.name for record in blocks}
    ordered = iter(blocks)
    return tuple(next(ordered) if record.name in names else record for record in records)


def _blocks(mosaic: Mosaic) -> tuple[Record, ...]:
    return tuple(
        Record(place.name, "blocks", place.shape, place.dtype, axis=place.axis)
        for place in mosaic.layout.placements
    )


def _nothing(name: str, start: int, stop: int) -> Tensor:
    raise KeyError(name)


class Hashing:
    """SHA-256 of the bytes of all stored values, tensor after tensor in the order of the file."""

    def __init__(
        self,
        records: Iterable[Record],
        progress: Progress = quiet,
        doing: str = "checking weights",
    ) -> None:
        self.stored = [record for record in records if record.stored != "same"]
        self._total = sum(record.num_weights for record in self.stored)
        self._done = 0
        self._progress, self._doing = progress, doing
        self._digest = hashlib.sha256()

    def update(self, values: Tensor) -> memoryview:
        """Hashes the next values, and returns their bytes."""
        data = raw(values).numpy().data
        self._digest.update(data)
        self._done += len(values)
        self._progress(self._doing, self._done, self._total)
        return data

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def sha256_of(
    records: Iterable[Record],
    pieces: Callable[[Record], Iterable[Tensor]],
    progress: Progress = quiet,
) -> str:
    """The SHA-256 of all values; `pieces` yields those of each record."""
    hashing = Hashing(records, progress)
    for record in hashing.stored:
        for values in pieces(record):
            hashing.update(values)
    return hashing.hexdigest()
