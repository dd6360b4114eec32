"""Reads the zip archives of torch.save: records by position, and strided tensors piece by piece."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from momos._util.reading import open_ordinary, read_piece
from momos.errors import FormatError

LOCAL_HEADER = struct.Struct(
    "<4s22xHH"
)  # signature, lengths of the name and the extra field
MOST_DEFLATED = 1032  # bytes that one deflated byte can stand for
# zipfile raises a RuntimeError for what it cannot read, as a later version of the format.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError),
    RuntimeError,
)
Raw = Callable[[int, int], Tensor]  # bytes of a storage, from one position up to another


class Records:
    """The records of the archive at `path` by name, without the folder that they share.

    Stored records are read piece by piece; a compressed one is inflated whole, and kept until
    another is read.

    Raises:
        FormatError: if the archive is damaged.
        OSError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inflated: tuple[str, Tensor] | None = None
        try:
            with open_ordinary(path) as file, zipfile.ZipFile(file) as zipped:
                infos = zipped.infolist()
                end = os.fstat(file.fileno()).st_size
        except DAMAGE as error:
            raise FormatError(path, "archive", f"must be a whole zip: {error}") from error
        if not all(0 <= info.header_offset < end for info in infos):
            raise FormatError(path, "archive", "must have its records within the file")
        self._infos = _by_name(path, infos)

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    @property
    def names(self) -> list[str]:
        return list(self._infos)

    def size(self, name: str) -> int:
        """Bytes of a record, inflated.

        Raises:
            FormatError: if there is no such record.
        """
        if name not in self._infos:
            raise FormatError(self.path, f"record {name!r}", "must be there, but is not")
        return self._infos[name].file_size

    def content(self, name: str) -> bytes:
        """All of a record."""
        return bytes(self.read(name, 0, self.size(name)).numpy())

    def read(self, name: str, first: int, last: int) -> Tensor:
        """Bytes of a record from one position up to another.

        Raises:
            FormatError: if the record does not hold them.
            OSError: if the file cannot be read.
        """
        if not 0 <= first <= last <= self.size(name):
            raise FormatError(
                self.path,
                f"record {name!r}",
                f"must hold {last:,} bytes, got {self.size(name):,}",
            )
        info = self._infos[name]
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            return read_piece(
                self.path, self._start(info) + first, torch.uint8, last - first
            )
        if self._inflated is None or self._inflated[0] != name:
            self._inflated = None
            self._inflated = name, self._inflate(info, name)
        return self._inflated[1][first:last]

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Where the bytes of a stored record begin."""
        with open_ordinary(self.path) as file:
            end = os.fstat(file.fileno()).st_size
            file.seek(info.header_offset)
            header = file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise FormatError(self.path, info.filename, "must have a local header")
        _, name_length, extra_length = LOCAL_HEADER.unpack(header)
        start = info.header_offset + len(header) + name_length + extra_length
        if info.compress_size != info.file_size or start + info.file_size > end:
            raise FormatError(
                self.path,
                info.filename,
                f"must hold {info.file_size:,} bytes, but the file ends early",
            )
        return start

    def _inflate(self, info: zipfile.ZipInfo, name: str) -> Tensor:
        """A whole compressed record, its checksum compared."""
        section = f"record {name!r}"
        if info.flag_bits & 1 or info.compress_type != zipfile.ZIP_DEFLATED:
            raise FormatError(self.path, section, "must be stored or deflated")
        if info.file_size > MOST_DEFLATED * info.compress_size:
            raise FormatError(
                self.path,
                section,
                f"must inflate to at most {MOST_DEFLATED} times its "
                f"{info.compress_size:,} bytes, but claims {info.file_size:,}",
            )
        try:
            with (
                open_ordinary(self.path) as file,
                zipfile.ZipFile(file) as zipped,
                zipped.open(info) as inflated,
            ):
                data = bytearray(inflated.read())
        except DAMAGE as error:
            raise FormatError(self.path, section, f"must be whole: {error}") from error
        if len(data) != info.file_size:
            raise FormatError(
                self.path,
                section,
                f"must inflate to {info.file_size:,} bytes, got {len(data):,}",
            )
        return (
            torch.frombuffer(data, dtype=torch.uint8)
            if data
            else torch.empty(0, dtype=torch.uint8, device="cpu")
        )


def _by_name(path: Path, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    folder = infos[0].filename.partition("/")[0] + "/" if infos else ""
    named = {info.filename.removeprefix(folder): info for info in infos}
    if len(named) < len(infos):
        raise FormatError(path, "archive", "must name each record once")
    return named


@dataclass
class Kept:
    """Cache of the memory that one tensor spans, while its pieces are read."""

    owner: object = None
    values: Tensor = field(default_factory=lambda: torch.empty(0, device="cpu"))


@dataclass(frozen=True, eq=False)
class Strided:
    """A tensor without its storage: `value` has its shape and strides, `raw` reads the storage.

    A contiguous tensor is read piece by piece. For any other, the part of the storage that it
    spans is read once, and kept until another tensor is read: copying a transposed tensor for each
    of its pieces would take quadratic time.
    """

    value: Tensor
    raw: Raw
    kept: Kept

    @property
    def span(self) -> tuple[int, int]:
        """First and end of the tensor in its storage, in values."""
        first = int(self.value.storage_offset())
        if not self.value.numel():
            return first, first
        steps = zip(self.value.shape, self.value.stride(), strict=True)
        return first, first + sum((size - 1) * int(stride) for size, stride in steps) + 1

    def read(self, first: int, last: int) -> Tensor:
        """Values from one position up to another, flat and contiguous."""
        if self.value.is_contiguous():
            start = self.span[0]
            return self._as_meant(self._stored(start + first, start + last))
        if self.kept.owner is not self:
            self.kept.owner, self.kept.values = None, torch.empty(0, device="cpu")
            self.kept.values, self.kept.owner = self._stored(*self.span), self
        view = self.kept.values.as_strided(self.value.shape, self.value.stride())
        return self._as_meant(piece(view, first, last).contiguous())

    def _stored(self, first: int, last: int) -> Tensor:
        dtype = self.value.dtype
        raw = self.raw(first * dtype.itemsize, last * dtype.itemsize)
        return (raw if raw.storage_offset() % dtype.itemsize == 0 else raw.clone()).view(
            dtype
        )

    def _as_meant(self, values: Tensor) -> Tensor:
        if self.value.is_conj():
            values = values.conj().resolve_conj()
        return -values if self.value.is_neg() else values


def piece(view: Tensor, first: int, last: int) -> Tensor:
    """`view.reshape(-1)[first:last]`, copying nothing else."""
    if view.dim() <= 1:
        return view.reshape(-1)[first:last]
    row = view[0].numel()
    top, bottom = -(-first // row), last // row  # the whole rows
    if top > bottom:  # within one row
        return piece(view[bottom], first - bottom * row, last - bottom * row)
    parts = [view[top:bottom].reshape(-1)]
    if first < top * row:
        parts.insert(0, piece(view[top - 1], first - (top - 1) * row, row))
    if last > bottom * row:
        parts.append(piece(view[bottom], 0, last - bottom * row))
    return torch.cat(parts) if len(parts) > 1 else parts[0]
