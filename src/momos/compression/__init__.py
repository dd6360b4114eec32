"""From a checkpoint on disk to a small file, without data and without training.

Tensors are read piece by piece, so that memory holds the indices and little else.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from momos.blocks import Layout, matches
from momos.compression.assigning import assign
from momos.compression.banks import choose_banks, in_steps, rate_weight_of, stored_motifs
from momos.compression.dense import (
    Config,
    check_dense,
    chosen_of,
    read_dense,
    warning_of,
    why_dense,
    without_odd,
)
from momos.compression.lattice import EMBEDDINGS, lattice_mosaic
from momos.compression.target import check_target, reaching, target_size, written_size
from momos.compression.unchanged import watch
from momos.compression.weights import Weights, measured_scales
from momos.config import LatticeConfig
from momos.files.atomic import refuse_same
from momos.files.contents import Contents
from momos.files.manifest import Record
from momos.files.progress import Progress, quiet
from momos.files.report import SaveReport
from momos.files.saving import save_contents
from momos.mosaic import Mosaic
from momos.sources import Source, SourceTensor, open_source


def compress(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    config: Config | None = None,
    *,
    target_bytes: int | None = None,
    target_factor: float | None = None,
    key: str = "",
    progress: Progress = quiet,
) -> SaveReport:
    """Makes the checkpoint at `source` a mosaic and writes it to `path`.

    A checkpoint is a safetensors file, what torch.save wrote, or a folder with either, as
    Hugging Face writes it; of several state dicts in a torch file `key` chooses one, as "ema" or
    "model.state_dict". All floating tensors that `config` chooses become blocks, running
    statistics and single numbers excepted. The report says what became of every tensor, and what
    else the checkpoint held; quantized and sparse tensors can only be excluded, which leaves them
    out. A warning says if it seems to be quantized already, so that its scales are all that
    becomes blocks.

    Without a `config` weights are rounded to whole steps (`LatticeConfig`), so finely that most
    networks stay what they are. A `target_bytes`, or a `target_factor` (bytes of the tensors over
    bytes of the file), chooses the step: the file is the largest found within it, by some
    trials of the whole work, mostly fewer than a dozen.

    Of a `MosaicConfig`:

    - `scales` divides each tensor, or output channel, by the root of its mean square before
      blocks are compared, so that small tensors are not lost among large ones.
    - `rate_weight` moves motifs to the means of their blocks and drops those that none wants.
    - `bits` of 2 to 8 makes motifs whole numbers; their step, the one of some tried that loses
      least by usage, becomes part of the scales.
    - `dense_dtype` rounds floating tensors of wider dtypes that stay dense, running statistics
      included; they keep their dtype. "float32" leaves all as they are.

    Raises:
        FormatError: if `source` is damaged or not a checkpoint.
        ValueError: if no tensor is chosen, a weight is not finite, or values do not fit what
            they are stored in; names the tensor. Also if `path` is one of the files that are
            read, or one of these changes meanwhile, or no step reaches the target.
        OSError: if a file cannot be read or written.
    """
    config = LatticeConfig() if config is None else config
    check_target(config, target_bytes, target_factor)
    with torch.device("cpu"):  # whatever the default device is
        opened = without_odd(open_source(source, key=key), config)
        refuse_same(opened.files, path)
        if warning := warning_of(opened, config):
            warnings.warn(warning, stacklevel=2)
        check_unchanged = watch(opened.files)
        if isinstance(config, LatticeConfig):
            config = reaching(
                config,
                target_size(opened, target_bytes, target_factor),
                lambda tried: written_size(
                    _contents(opened, tried, check_unchanged, progress)
                ),
            )
        contents = _contents(opened, config, check_unchanged, progress)
        report = save_contents(contents, path, progress)
        return replace(
            report,
            left_out=opened.left_out,
            source_bytes=sum(file.stat().st_size for file in opened.files),
        )


def _contents(
    source: Source, config: Config, check_unchanged: Callable[[], None], progress: Progress
) -> Contents:
    """What the file will hold."""
    mosaic, distortions, energies = _mosaic(source, config, progress)
    return Contents(
        records=_records(source, mosaic, distortions, energies, config),
        mosaic=mosaic,
        read=lambda name, start, stop: read_dense(
            source.tensors[name], config, start, stop
        ),
        metadata=source.metadata,
        check_unchanged=check_unchanged,
    )


def _mosaic(
    source: Source, config: Config, progress: Progress
) -> tuple[Mosaic, dict[str, float], dict[str, float]]:
    """The mosaic of the chosen tensors; the distortion and the sum of squares of each."""
    if isinstance(config, LatticeConfig):
        return lattice_mosaic(_weights(source, config, progress), config, progress)
    weights = _weights(source, config, progress)
    rate_weight = rate_weight_of(weights, config, progress)
    banks = list(choose_banks(weights, config, rate_weight, progress))
    motifs, step = stored_motifs(banks, config, weights.layout.dtype)
    if step is not None:
        weights, rate_weight = in_steps(weights, step), rate_weight / step / step
    indices, distortions, energies = assign(weights, banks, motifs, rate_weight, progress)
    mosaic = Mosaic(motifs, indices, weights.layout, weights.scales, config)
    return mosaic, distortions, energies


def _weights(source: Source, config: Config, progress: Progress) -> Weights:
    chosen = chosen_of(source, config)
    check_dense(source, config, progress)
    tensors = ((t.name, t.shape, t.dtype) for t in chosen)
    layout = Layout.cut(config.block_size, tensors, _axes(chosen, config))
    dtype = layout.dtype
    if isinstance(config, LatticeConfig):
        return Weights(source.tensors, layout, torch.promote_types(dtype, torch.float32))
    if config.scales != "none" or config.rate_weight or config.bits <= 8:
        dtype = torch.promote_types(dtype, torch.float32)
    weights = Weights(source.tensors, layout, dtype)
    if config.scales == "none":
        return weights
    return weights.scaled(measured_scales(weights, config.scales, progress))


def _axes(chosen: Sequence[SourceTensor], config: Config) -> dict[str, int]:
    """Which dimension holds the output channels; of an embedding the first is its rows."""
    if not isinstance(config, LatticeConfig) or config.channel_axis == "first":
        return {}
    return {
        tensor.name: max(0, len(tensor.shape) - 1)
        for tensor in chosen
        if not matches(tensor.name, EMBEDDINGS)
    }


def _records(
    source: Source,
    mosaic: Mosaic,
    distortions: dict[str, float],
    energies: dict[str, float],
    config: Config,
) -> tuple[Record, ...]:
    axes = mosaic.layout.axes
    return tuple(
        Record(
            name,
            "blocks" if name in distortions else "dense",
            tensor.shape,
            tensor.dtype,
            axis=axes.get(name, 0),
            distortion=distortions.get(name),
            energy=energies.get(name),
            why=why_dense(tensor, config),
        )
        for name, tensor in source.tensors.items()
    ) + tuple(Record(name, "same", same_as=first) for name, first in source.aliases.items())
