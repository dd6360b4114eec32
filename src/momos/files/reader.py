"""Reads a file; nothing in it is trusted before it is checked."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import torch
from jaxtyping import Float, Float32, Int8
from torch import Tensor

from momos._util.work import Progress, in_parallel, quiet
from momos.blocks import PIECE, Layout, Placement
from momos.codec import (
    PACK_VALUES,
    STREAM_SYMBOLS,
    Model,
    Pack,
    Stream,
    in_order,
    read_usage_table,
    unpack,
    whole_numbers,
)
from momos.files.coding import ByUsage, ByValue, Code, by_position
from momos.files.container import SectionFile, cut, header_size
from momos.files.contents import joined, sha256_of
from momos.files.manifest import MOST_BYTES, CodedBank, Manifest, Packs, Record, num_packed
from momos.files.parsing import read_manifest
from momos.mosaic import index_dtype, scaled
from momos.stored import spread


@dataclass(frozen=True)
class Part:
    """A stream of `num_blocks` blocks of a tensor, starting at block `first`."""

    stream: Stream
    record: Record
    first: int
    num_blocks: int


class MosaicFile:
    """An open .momos file, whose tensors can be decoded one by one.

    Opening it checks its header and its manifest, decoding a tensor checks what it reads, and
    `verify` checks everything.

    Raises:
        FormatError: if the file is not a whole, valid one.
        OSError: if it cannot be read.

    Example:
        >>> report = momos.compress(nn.Linear(8, 3), "net.momos")
        >>> with momos.MosaicFile("net.momos") as file:
        ...     print(sorted(file.names), file.tensor("weight").shape)
        ['bias', 'weight'] torch.Size([3, 8])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = SectionFile(path)
        with ExitStack() as undo:
            undo.callback(self.close)
            self.manifest = self._manifest()
            self._check_lengths()
            undo.pop_all()
        self._held: dict[torch.dtype, tuple[int, Tensor]] = {}
        self._checked: set[str] = set()

    def __enter__(self) -> "MosaicFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; nothing can be decoded afterwards."""
        self.file.close()

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.file.path

    @property
    def sections(self) -> dict[str, int]:
        """Bytes of the header (with the trailer of version 2), and of each section."""
        lengths = {name: part.length for name, part in self.file.sections.items()}
        return {"header": self.file.outside, **lengths}

    @property
    def names(self) -> list[str]:
        """Names of all tensors, in the order of the file."""
        return [record.name for record in self.manifest.records]

    def record(self, name: str) -> Record:
        """How the tensor of that name is stored."""
        return self._records[name]

    def tensor(self, name: str) -> Tensor:
        """One tensor; nothing of the others is decoded.

        Raises:
            KeyError: if the file has no tensor of that name.
            FormatError: if the parts of the file that it needs are damaged.
        """
        record = self._records[name]
        record = self._records[record.same_as or name]
        section = "mosaic" if record.stored == "blocks" else "dense"
        self.check_sections(section)
        return joined(record, self.pieces(record))

    def pieces(self, record: Record) -> Iterator[Tensor]:
        """The values of a stored tensor, flat, piece by piece."""
        return self._blocks(record) if record.stored == "blocks" else self._dense(record)

    def indices(self, record: Record) -> Iterator[Tensor]:
        """Index of each block's motif, piece by piece."""
        parts = in_parallel(self.decode, self.streams(record))
        if record.axis and self._code.by_channel:
            return iter([by_position(torch.cat(list(parts)), record)])
        return parts

    def streams(self, record: Record) -> Iterator[Part]:
        """The streams of a tensor stored as blocks."""
        position, first = self._positions[record.name], 0
        count = -(-record.num_weights // self.bank.block_size)
        for rate, length in record.streams:
            data = self.file.read("mosaic", position, length)
            num_blocks = min(count - first, STREAM_SYMBOLS)
            yield Part(Stream(rate, data), record, first, num_blocks)
            position, first = position + length, first + num_blocks

    def decode(self, part: Part) -> Tensor:
        """The indices that a stream codes."""
        indices = torch.empty(
            part.num_blocks, dtype=index_dtype(self.bank.num_motifs), device="cpu"
        )
        with self.file.problems("mosaic"):
            self._code.decode(part.stream, indices, part.record, part.first)
        return indices

    def arrange_(self, indices: Tensor, layout: Layout) -> None:
        """Reorders the blocks of all tensors from the order of their streams to that of the layout."""
        if self._code.by_channel:
            for place in layout.placements:
                if place.axis:
                    own = indices[place.start : place.stop]
                    own.copy_(by_position(own.clone(), place))

    def forget_usage(self) -> None:
        """Frees the memory used for decoding indices, until some are decoded again."""
        self.__dict__.pop("_code", None)

    def verify(self, progress: Progress = quiet) -> None:
        """Decodes everything and compares all checksums.

        Raises:
            FormatError: if one does not match; says which.
        """
        self.check_sections(*self.file.sections)
        self.check_weights(sha256_of(self.manifest.records, self.pieces, progress))

    def check_sections(self, *names: str) -> None:
        """Compares the checksums of sections, each once while the file is open."""
        wanted = [name for name in names if name not in self._checked]
        self.file.check(*wanted)
        self._checked.update(wanted)

    def check_weights(self, sha256: str) -> None:
        """Compares the checksum of all values with the one that they were saved with."""
        if sha256 != self.manifest.sha256:
            raise self.file.error(
                "weights", f"must have SHA-256 {self.manifest.sha256}, got {sha256}"
            )

    @cached_property
    def motifs(self) -> Float[Tensor, "k s"] | Int8[Tensor, "k s"]:
        """The motifs, in their own dtype.

        Raises:
            FormatError: if their section is damaged.
        """
        bank = self.bank
        count = bank.num_motifs * bank.block_size
        if bank.ordered:
            between = torch.empty(count, dtype=torch.uint32, device="cpu")
            list(self._unpacked("motifs", 0, bank.packs, between))
            with self.file.problems("motifs"):
                return _narrowed(in_order(between), bank.dtype)[:, None]
        flat = torch.empty(count, dtype=bank.dtype, device="cpu")
        for values in self._unpacked("motifs", 0, bank.packs, flat):
            if not bool(torch.isfinite(values).all()):
                raise self.file.error("motifs", "motifs must be finite")
        return flat.view(bank.num_motifs, bank.block_size)

    @cached_property
    def scales(self) -> tuple[Float32[Tensor, " c"], ...] | None:
        """Factors of the motifs in each tensor of blocks, if there are scales."""
        bank = self.bank
        if bank.scales is None:
            return None
        scales = torch.empty(bank.num_scales, device="cpu")
        start = num_packed(bank.packs)
        for values in self._unpacked("motifs", start, bank.scales, scales):
            if not bool((torch.isfinite(values) & (values > 0)).all()):
                raise self.file.error("motifs", "scales must be finite and above 0")
        return scales.split([r.num_scales for r in self.manifest.of_kind("blocks")])

    @property
    def bank(self) -> CodedBank:
        """How motifs and usage are coded.

        Raises:
            ValueError: if no tensor of the file is blocks.
        """
        if self.manifest.bank is None:
            raise ValueError(
                f"{self.file.path} must hold a mosaic, but no tensor in it is blocks"
            )
        return self.manifest.bank

    @cached_property
    def _code(self) -> Code:
        bank = self.bank
        if bank.states:
            motifs = self.motifs
            with self.file.problems("motifs"):
                if (values := whole_numbers(motifs)) is None:
                    raise ValueError(
                        "motifs must be different whole numbers where blocks are coded by value"
                    )
                return ByValue(values, bank.states)
        section = self.file.section("usage")
        with self.file.problems("usage"):
            if not bank.significant:
                return ByUsage(Model.uniform(bank.num_motifs))
            streams = list(cut(section, bank.usage))
            table = read_usage_table(streams, bank.num_motifs, significant=bank.significant)
            return ByUsage(Model(table.usage))

    def _unpacked(
        self, section: str, start: int, packs: Packs, values: Tensor
    ) -> Iterator[Tensor]:
        """Fills `values` from the packs at `start`; the values of each pack in turn."""
        self.check_sections(section)
        for planes, part in zip(packs, values.split(PACK_VALUES), strict=True):
            length = num_packed((planes,))
            data = self.file.read(section, start, length)
            with self.file.problems(section):
                unpack(Pack(list(cut(data, planes))), part)
            yield part
            start += length

    @cached_property
    def _records(self) -> dict[str, Record]:
        return {record.name: record for record in self.manifest.records}

    @cached_property
    def _places(self) -> dict[str, Placement]:
        layout = self.manifest.layout()
        return {place.name: place for place in (layout.placements if layout else ())}

    @cached_property
    def _scale_of(self) -> dict[str, Tensor | None]:
        names = [record.name for record in self.manifest.of_kind("blocks")]
        scales = self.scales
        return dict(
            zip(names, [None] * len(names) if scales is None else scales, strict=True)
        )

    def _blocks(self, record: Record) -> Iterator[Tensor]:
        start, count, scale = 0, record.num_weights, self._scale_of[record.name]
        place = self._places[record.name]
        step = max(1, min(PIECE, PACK_VALUES // self.bank.block_size))
        for indices in self.indices(record):
            for part in indices.split(step):
                flat = self.motifs.index_select(0, part.int()).view(-1)[: count - start]
                stop = start + len(flat)
                own = None if scale is None else spread(scale, place, start, stop)
                yield scaled(flat, own, record.dtype)
                start = stop

    def _dense(self, record: Record) -> Iterator[Tensor]:
        start = self._positions[record.name]
        stop = start + record.num_weights
        for number in range(start // PACK_VALUES, -(-stop // PACK_VALUES)):
            low = number * PACK_VALUES
            if start < stop:
                yield self._pack(record.dtype, number)[max(0, start - low) : stop - low]

    def _pack(self, dtype: torch.dtype, number: int) -> Tensor:
        """The values of one pack; the last of each dtype is kept, as tensors share packs."""
        held, values = self._held.get(dtype, (-1, torch.empty(0, device="cpu")))
        if held != number:
            start, packs, count = self._groups[dtype]
            position = start + num_packed(packs[:number])
            values = torch.empty(
                min(PACK_VALUES, count - number * PACK_VALUES), dtype=dtype, device="cpu"
            )
            for _ in self._unpacked("dense", position, packs[number : number + 1], values):
                pass
            self._held[dtype] = number, values
        return values

    def _manifest(self) -> Manifest:
        length = self.file.sections["manifest"].length
        if length > MOST_BYTES:
            raise self.file.error(
                "manifest", f"must have at most {MOST_BYTES} bytes, got {length}"
            )
        section = self.file.section("manifest")
        with self.file.problems("manifest"):
            manifest = read_manifest(section, self.file.version)
        needed = header_size(manifest.num_bytes, self.file.version)
        if needed != self.file.start - 8:
            raise self.file.error(
                "manifest",
                f"what expands to {manifest.num_bytes} bytes must have a header of {needed} "
                f"bytes, got {self.file.start - 8}",
            )
        return manifest

    def _check_lengths(self) -> None:
        """Compares the length of each section with the one in the manifest.

        In version 2 only the manifest has them.
        """
        manifest, bank = self.manifest, self.manifest.bank
        lengths = {
            "motifs": num_packed((*bank.packs, *(bank.scales or ()))) if bank else 0,
            "usage": sum(length for _, length in bank.usage) if bank else 0,
            "mosaic": num_packed(tuple(record.streams for record in manifest.records)),
            "dense": sum(num_packed(packs) for _, packs in manifest.dense),
        }
        if self.file.version > 1:
            return self.file.place(lengths)
        for name, length in lengths.items():
            if length != self.file.sections[name].length:
                raise self.file.error(
                    name,
                    f"must have the {length} bytes that the manifest says, got "
                    f"{self.file.sections[name].length}",
                )
        return None

    @cached_property
    def _groups(self) -> dict[torch.dtype, tuple[int, Packs, int]]:
        """For each dtype: where its packs begin, the packs, and how many values they hold."""
        groups, position = {}, 0
        for dtype, packs in self.manifest.dense:
            count = sum(
                r.num_weights for r in self.manifest.of_kind("dense") if r.dtype == dtype
            )
            groups[dtype] = position, packs, count
            position += num_packed(packs)
        return groups

    @cached_property
    def _positions(self) -> dict[str, int]:
        """First byte of a tensor's streams; or its first value among those of its dtype."""
        positions, byte, value = {}, 0, dict.fromkeys(self._groups, 0)
        for record in self.manifest.records:
            if record.stored == "blocks":
                positions[record.name] = byte
                byte += sum(length for _, length in record.streams)
            elif record.stored == "dense":
                positions[record.name] = value[record.dtype]
                value[record.dtype] += record.num_weights
        return positions


def _narrowed(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers in a dtype that must hold them exactly."""
    narrow = values.to(dtype)
    if not torch.equal(narrow.double(), values.double()):
        raise ValueError(f"motifs must fit {dtype}, got up to {int(values.abs().max())}")
    return narrow
