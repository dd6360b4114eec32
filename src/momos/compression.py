"""From a checkpoint on disk to a small file, without data and without training.

Tensors are read piece by piece, so that memory holds the indices and little else.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from momos.assign import searcher
from momos.blocks import DTYPES, PIECE, Layout, Placement, matches
from momos.config import MosaicConfig
from momos.files.atomic import refuse_same
from momos.files.contents import EMPTY, LEFT_OUT, Contents
from momos.files.manifest import Record
from momos.files.progress import Progress, quiet
from momos.files.report import SaveReport
from momos.files.saving import save_contents
from momos.mosaic import Mosaic, index_dtype, scaled
from momos.motifs import distinct_motifs, kmeans_motifs, sample_positions, with_zero
from momos.projection import keep_held
from momos.sources import STATISTICS, Source, SourceTensor, open_source

POOL = 1 << 20  # blocks that k-means and distinct samples look at, and 32 for each motif


def compress(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    config: MosaicConfig,
    *,
    motif_dtype: torch.dtype | None = None,
    per_tensor_scale: bool = False,
    progress: Progress = quiet,
) -> SaveReport:
    """Makes the checkpoint at `source` a mosaic and writes it to `path`.

    A checkpoint is a safetensors file, a Hugging Face folder of them, or what torch.save wrote.
    All floating tensors that `config` chooses become blocks, running statistics excepted.
    `motif_dtype` rounds the motifs; `per_tensor_scale` divides each tensor by the root of its
    mean square before blocks are compared, so that small tensors are not lost among large ones.
    The report says what became of every tensor.

    Raises:
        FormatError: if `source` is damaged or not a checkpoint.
        ValueError: if no tensor is chosen, a weight is not finite, or motifs do not fit
            `motif_dtype`; names the tensor.
        OSError: if a file cannot be read or written.
    """
    if motif_dtype is not None and motif_dtype not in DTYPES:
        raise ValueError(f"motif_dtype must be a floating one, got {motif_dtype}")
    refuse_same(source, path)
    opened = open_source(source)
    weights = _Weights(opened, _choose(opened, config), config.block_size)
    if per_tensor_scale:
        weights.scales = _scales(weights, progress)
    motifs = _motifs(weights, config, progress)
    if motif_dtype is not None:
        motifs = _rounded(motifs, motif_dtype)
    indices, distortions = _assign(weights, motifs, progress)
    mosaic = Mosaic(motifs, indices, weights.layout, weights.scales, config)
    del indices
    contents = Contents(
        records=_records(opened, distortions, config),
        mosaic=mosaic,
        read=lambda name, start, stop: opened.tensors[name].read(start, stop),
        metadata=opened.metadata,
    )
    return replace(save_contents(contents, path, progress), left_out=opened.left_out)


class _Weights:
    """The chosen tensors of a source, as blocks in the dtype of the layout."""

    def __init__(self, source: Source, names: list[str], block_size: int) -> None:
        self.tensors = source.tensors
        chosen = (source.tensors[name] for name in names)
        self.layout = Layout.cut(block_size, ((t.name, t.shape, t.dtype) for t in chosen))
        self.scales: Tensor | None = None

    def pieces(self) -> Iterator["_Piece"]:
        """All weights, at most `PIECE` blocks of one tensor at a time."""
        size = self.layout.block_size
        for number, place in enumerate(self.layout.placements):
            scale = None if self.scales is None else self.scales[number]
            for start in range(0, place.num_weights, PIECE * size):
                stop = min(start + PIECE * size, place.num_weights)
                flat = self.tensors[place.name].read(start, stop)
                if not bool(torch.isfinite(flat).all()):
                    raise ValueError(
                        f"weights must be finite, got NaN or infinite ones in tensor "
                        f"{place.name!r} (exclude it to store it as it is)"
                    )
                yield _Piece(number, place, place.start + start // size, flat, scale)

    def blocks(self, piece: "_Piece") -> Float[Tensor, "b s"]:
        """The blocks of a piece, divided by the scale of its tensor."""
        size = self.layout.block_size
        values = piece.flat.to(self.layout.dtype)
        if piece.scale is not None:
            values = values / piece.scale.to(values.dtype)
        return nn.functional.pad(values, (0, -len(values) % size)).view(-1, size)

    def take(self, rows: Int[Tensor, " r"], progress: Progress) -> Float[Tensor, "r s"]:
        """The blocks at `rows`, in their order."""
        ordered, order = rows.sort()
        taken = torch.empty(len(rows), self.layout.block_size, dtype=self.layout.dtype)
        for piece in self.pieces():
            blocks = self.blocks(piece)
            ends = torch.tensor([piece.row, piece.row + len(blocks)])
            low, high = torch.searchsorted(ordered, ends).tolist()
            taken[order[low:high]] = blocks[ordered[low:high] - piece.row]
            progress("reading weights", piece.row + len(blocks), self.layout.num_blocks)
        return taken


@dataclass(frozen=True)
class _Piece:
    """Weights of successive blocks of one tensor."""

    number: int
    place: Placement
    row: int
    flat: Tensor
    scale: Tensor | None


def _why_dense(tensor: SourceTensor, config: MosaicConfig) -> str:
    """Why a tensor does not become blocks; nothing if it does."""
    if not tensor.num_weights:
        return EMPTY
    if tensor.dtype not in DTYPES:
        return "not of a floating dtype"
    if matches(tensor.name, STATISTICS):
        return "running statistics"
    chosen = matches(tensor.name, config.include) and not matches(
        tensor.name, config.exclude
    )
    return "" if chosen else LEFT_OUT


def _choose(source: Source, config: MosaicConfig) -> list[str]:
    names = [t.name for t in source.tensors.values() if not _why_dense(t, config)]
    if not names:
        raise ValueError(
            f"at least one floating tensor must be chosen, got none for "
            f"include={config.include}, exclude={config.exclude} among "
            f"{len(source.tensors)} tensors of {source.path}"
        )
    return names


def _scales(weights: _Weights, progress: Progress) -> Float32[Tensor, " p"]:
    """The root of the mean square of each tensor, to 8 bits; 1 where that is no normal number."""
    squares = torch.zeros(len(weights.layout.placements), dtype=torch.float64)
    for piece in weights.pieces():
        squares[piece.number] += piece.flat.double().square().sum()
        progress("measuring scales", piece.number + 1, len(squares))
    counts = torch.tensor([place.num_weights for place in weights.layout.placements])
    scales = (squares / counts).sqrt().bfloat16().float()
    normal = torch.isfinite(scales) & (scales >= torch.finfo(torch.float32).tiny)
    return torch.where(normal, scales, 1.0)


def _motifs(weights: _Weights, config: MosaicConfig, progress: Progress) -> Tensor:
    generator = torch.Generator().manual_seed(config.seed)
    total = weights.layout.num_blocks
    wanted = config.motifs_for(total)
    if config.selection == "sample":
        rows = sample_positions(total, wanted - config.zero_motif, generator=generator)
        return with_zero(weights.take(rows, progress), config.zero_motif)
    pool = max(POOL, 32 * wanted)
    rows = (
        torch.arange(total)
        if total <= pool
        else sample_positions(total, pool, generator=generator)
    )
    blocks = weights.take(rows, progress)
    progress("choosing motifs", 0, 1)
    choose = distinct_motifs if config.selection == "distinct" else kmeans_motifs
    motifs = choose(blocks, wanted, zero_motif=config.zero_motif, generator=generator)
    progress("choosing motifs", 1, 1)
    return motifs


def _rounded(motifs: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = motifs.to(dtype)
    if not bool(torch.isfinite(rounded).all()):
        raise ValueError(
            f"motifs must fit motif_dtype {dtype}, got {float(motifs.abs().max())}"
        )
    return rounded


def _assign(
    weights: _Weights, motifs: Tensor, progress: Progress
) -> tuple[Tensor, dict[str, float]]:
    """Which motif each block is, and each tensor's distortion."""
    layout = weights.layout
    wide = motifs.to(layout.dtype)
    search = searcher(wide)
    indices = torch.empty(layout.num_blocks, dtype=index_dtype(len(motifs)))
    distortions = dict.fromkeys((place.name for place in layout.placements), 0.0)
    for piece in weights.pieces():
        own = search(weights.blocks(piece)).int()
        if piece.scale is None:
            keep_held(piece.flat, own, wide)
        indices[piece.row : piece.row + len(own)] = own.to(indices.dtype)
        values = motifs.index_select(0, own).view(-1)[: len(piece.flat)]
        values = scaled(values, piece.scale, piece.place.dtype)
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"motifs must fit the {piece.place.dtype} of tensor {piece.place.name!r}, got "
                f"{float(motifs.abs().max())}"
            )
        difference = piece.flat.double() - values.double()
        distortions[piece.place.name] += float(difference.square().sum())
        progress("assigning", piece.row + len(own), layout.num_blocks)
    return indices, distortions


def _records(
    source: Source, distortions: dict[str, float], config: MosaicConfig
) -> tuple[Record, ...]:
    return tuple(
        Record(
            name,
            "blocks" if name in distortions else "dense",
            tensor.shape,
            tensor.dtype,
            distortion=distortions.get(name),
            why=_why_dense(tensor, config),
        )
        for name, tensor in source.tensors.items()
    ) + tuple(Record(name, "same", same_as=first) for name, first in source.aliases.items())
