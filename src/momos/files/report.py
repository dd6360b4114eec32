"""Reports on a file: its tensors, and the size of each part."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from momos.blocks import PIECE, Placement
from momos.files.coding import CodedMosaic
from momos.files.manifest import DTYPES, Manifest, name_of, num_packed
from momos.files.reader import MosaicFile
from momos.lengths import DescriptionLength, description_length
from momos.mosaic import Mosaic


@dataclass(frozen=True)
class TensorReport:
    """One tensor of a file.

    `length` is in bits: of its streams, or its share of the packs that it is in.
    `num_blocks` and `num_motifs` (how many different ones it uses) are 0 if it is not blocks,
    `num_scales` if it is not blocks or the file has no scales;
    `distortion` and `energy`, the sum of squares of the weights before, are None if they were
    not recorded.

    Example:
        >>> report = momos.compress(nn.Linear(100, 100), "net.momos")
        >>> by_name = {tensor.name: tensor for tensor in report.tensors}
        >>> by_name["weight"].stored, by_name["bias"].stored
        ('blocks', 'dense')
        >>> by_name["weight"].relative_error < 0.001
        True
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str
    why: str
    num_weights: int
    num_blocks: int
    num_motifs: int
    num_scales: int
    length: float
    distortion: float | None
    energy: float | None = None

    @property
    def relative_error(self) -> float | None:
        """‖w − ŵ‖² / ‖w‖², as 0.01; None if it was not recorded or no weight is other than 0."""
        return _share(self.distortion, self.energy)

    @property
    def bits_per_weight(self) -> float:
        """Bits of its streams for each weight; 0 if it has no weights."""
        return self.length / self.num_weights if self.num_weights else 0.0


@dataclass(frozen=True)
class SaveReport:
    """A file: its tensors, the bytes of its sections, and its lengths in bits.

    `lengths` is None if the file holds no mosaic. `left_out` is what a compressed checkpoint
    held that the file does not, and what it is: other values than tensors, and excluded tensors
    that no file can hold. `source_bytes` is what the files of a compressed checkpoint have, and
    None of a file that is only inspected.

    Example:
        >>> model = nn.Linear(64, 64)
        >>> result = momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=16))
        >>> report = momos.save(model, "net.momos")
        >>> report.num_bytes == sum(report.sections.values())
        True
        >>> report.lengths.bound
        6208
    """

    path: Path
    tensors: tuple[TensorReport, ...]
    sections: dict[str, int]
    lengths: DescriptionLength | None
    config: dict[str, Any] | None
    left_out: dict[str, str] = field(default_factory=dict)
    source_bytes: int | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the file."""
        return sum(self.sections.values())

    @property
    def dense_bytes(self) -> int:
        """Bytes of all tensors as they are in memory, each once."""
        return sum(
            tensor.num_weights * DTYPES[tensor.dtype].itemsize
            for tensor in self.tensors
            if tensor.stored != "same"
        )

    @property
    def factor(self) -> float:
        """How many times smaller than its tensors the file is."""
        return self.dense_bytes / self.num_bytes

    @property
    def relative_error(self) -> float | None:
        """‖w − ŵ‖² / ‖w‖² of all weights in blocks; None if it was not recorded of each."""
        blocks = [tensor for tensor in self.tensors if tensor.stored == "blocks"]
        distortion = energy = 0.0
        for tensor in blocks:
            if tensor.distortion is None or tensor.energy is None:
                return None
            distortion, energy = distortion + tensor.distortion, energy + tensor.energy
        return _share(distortion, energy) if blocks else None

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it; lengths in bits, sizes in bytes."""
        value: dict[str, Any] = dataclasses.asdict(self) | {"path": str(self.path)}
        value |= {"num_bytes": self.num_bytes, "dense_bytes": self.dense_bytes}
        value |= {"factor": self.factor, "relative_error": self.relative_error}
        for own, tensor in zip(value["tensors"], self.tensors, strict=True):
            own["bits_per_weight"] = tensor.bits_per_weight
            own["relative_error"] = tensor.relative_error
        if self.lengths is not None:
            value["lengths"] |= {
                "entropy": self.lengths.entropy,
                "file": 8 * self.num_bytes,
            }
        return value


def _share(distortion: float | None, energy: float | None) -> float | None:
    """`distortion` / `energy`, if that is a finite number."""
    if distortion is None or energy is None or not energy:
        return None
    share = distortion / energy
    return share if math.isfinite(share) else None


def report_on(file: MosaicFile, mosaic: Mosaic | CodedMosaic | None) -> SaveReport:
    """The report on `file`, whose mosaic is `mosaic`."""
    manifest = file.manifest
    places = {place.name: place for place in mosaic.layout.placements} if mosaic else {}
    bits_of_dense = _bits_of_dense(manifest)
    tensors = []
    for record in manifest.records:
        used = blocks = scales = 0
        length = 0.0
        if record.stored == "dense":
            length = record.num_weights * bits_of_dense[record.dtype]
        if mosaic and record.stored == "blocks":
            place = places[record.name]
            blocks = place.num_blocks
            length = 8.0 * num_packed((record.streams,))
            used = _num_used(mosaic, place)
            scales = record.num_scales if mosaic.scales else 0
        tensors.append(
            TensorReport(
                name=record.name,
                shape=record.shape,
                dtype="" if record.stored == "same" else name_of(record.dtype),
                stored=record.stored,
                why=record.why or (record.same_as and f"same as {record.same_as}"),
                num_weights=record.num_weights if record.stored != "same" else 0,
                num_blocks=blocks,
                num_motifs=used,
                num_scales=scales,
                length=length,
                distortion=record.distortion,
                energy=record.energy,
            )
        )
    return SaveReport(
        path=file.path,
        tensors=tuple(tensors),
        sections=file.sections,
        lengths=description_length(mosaic) if mosaic else None,
        config=manifest.config,
    )


def _num_used(mosaic: Mosaic | CodedMosaic, place: Placement) -> int:
    """How many different motifs a tensor has."""
    if isinstance(mosaic, CodedMosaic):
        return mosaic.used[place.name]
    return _num_different(mosaic.part(place), mosaic.num_motifs)


def _num_different(indices: torch.Tensor, num_motifs: int) -> int:
    """How many motifs occur in `indices`; fast for many small tensors too."""
    if len(indices) < num_motifs:
        return len(torch.unique(indices.int()))
    used = torch.zeros(num_motifs, dtype=torch.bool, device="cpu")
    for part in indices.split(PIECE):
        used[part.int().cpu()] = True
    return int(used.sum())


def _bits_of_dense(manifest: Manifest) -> dict[torch.dtype, float]:
    """Average bits of a dense value of each dtype: tensors share packs."""
    counts: dict[torch.dtype, int] = {}
    for record in manifest.of_kind("dense"):
        counts[record.dtype] = counts.get(record.dtype, 0) + record.num_weights
    return {
        dtype: 8 * num_packed(packs) / max(1, counts[dtype])
        for dtype, packs in manifest.dense
    }
