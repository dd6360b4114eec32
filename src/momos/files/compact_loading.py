"""Reads a file into packed indices and dense tensors, without making weights of blocks dense.

Weights are only decoded piece by piece, to compare the checksum of all values.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from momos._util.work import Progress, quiet
from momos.blocks import Layout, Placement
from momos.compact.bitpack import index_bits, num_packed_bytes, pack, unpack
from momos.files.contents import as_stored, joined, named_tensors, sha256_of, takes
from momos.files.manifest import Record
from momos.files.reader import MosaicFile
from momos.mosaic import scaled
from momos.stored import spread

PIECE = 1 << 18  # weights that are decoded at once, or one block


@dataclass(frozen=True, eq=False)
class PackedContents:
    """Everything in a file: tensors of blocks as packed indices, the others dense, by name.

    `aliases` has the other names of tensors, and their first.
    """

    layout: Layout
    motifs: Tensor
    indices: dict[str, UInt8[Tensor, " b"]]
    scales: dict[str, Tensor | None]
    dense: dict[str, Tensor]
    aliases: dict[str, str]

    def still_dense(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The values of the dense tensors and of the blocks `names`, under all their names."""
        places = {place.name: place for place in self.layout.placements}
        values = dict(self.dense)
        for name in names:
            place = places[name]
            pieces = _values(self.motifs, self.indices[name], place, self.scales[name])
            values[name] = torch.cat(list(pieces)).view(place.shape)
        others = {n: values[first] for n, first in self.aliases.items() if first in values}
        return values | others


def read_packed(file: MosaicFile, progress: Progress = quiet) -> PackedContents:
    """Everything in `file`, every checksum compared.

    Raises:
        FormatError: if the file is damaged.
        ValueError: if no tensor in it is blocks.
    """
    layout = file.manifest.layout()
    if layout is None:
        raise ValueError(
            f"{file.path} must hold a mosaic to be loaded compact, but no tensor in it is blocks"
        )
    file.check_sections(*file.file.sections)
    places = {place.name: place for place in layout.placements}
    scales = dict(zip(places, file.scales or [None] * len(places), strict=True))
    indices: dict[str, Tensor] = {}
    dense: dict[str, Tensor] = {}

    def pieces(record: Record) -> Iterator[Tensor]:
        if record.stored == "dense":
            dense[record.name] = tensor = joined(record, file.pieces(record))
            return iter([as_stored(tensor).view(-1)])
        place = places[record.name]
        indices[record.name] = own = _packed(file, record, place)
        return _values(file.motifs, own, place, scales[record.name])

    file.check_weights(sha256_of(file.manifest.records, pieces, progress))
    file.forget_usage()
    aliases = {r.name: r.same_as for r in file.manifest.records if r.stored == "same"}
    return PackedContents(layout, file.motifs, indices, scales, dense, aliases)


def _packed(file: MosaicFile, record: Record, place: Placement) -> UInt8[Tensor, " b"]:
    """The indices of a tensor, packed as they are decoded."""
    bits = index_bits(file.bank.num_motifs)
    result = torch.empty(num_packed_bytes(place.num_blocks, bits), dtype=torch.uint8)
    start = 0
    for part in file.indices(record):  # all but the last are of an even number
        own = pack(part, bits)
        result[start : start + len(own)] = own
        start += len(own)
    return result


def _values(
    motifs: Tensor, packed: Tensor, place: Placement, scale: Tensor | None
) -> Iterator[Tensor]:
    """The values of a tensor, flat, piece by piece."""
    size, bits = motifs.shape[1], index_bits(len(motifs))
    step = max(1, PIECE // size)
    for first in range(0, place.num_blocks, step):
        last = min(first + step, place.num_blocks)
        blocks = motifs.index_select(0, unpack(packed, bits, first, last))
        flat = blocks.view(-1)[: place.num_weights - first * size]
        stop = first * size + len(flat)
        own = None if scale is None else spread(scale, place, first * size, stop)
        yield scaled(flat, own, place.dtype)


@torch.no_grad()
def fill_dense_(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Gives the tensors of `model` the values of these names.

    Those on the meta device are replaced, and buffers that cannot take theirs stay as they are.
    """
    replaced: dict[int, Tensor] = {}
    for name, tensor, _ in list(named_tensors(model)):
        if name not in values:
            continue
        new = values[name]
        if not tensor.is_meta:
            if takes(tensor, new.shape, new.dtype):
                tensor.copy_(new)
            continue
        if isinstance(tensor, nn.Parameter):
            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
        replaced[id(tensor)] = new
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) in replaced:
                    held[name] = replaced[id(tensor)]  # type: ignore[assignment]
