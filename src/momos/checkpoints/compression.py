"""Compresses a checkpoint on disk, or a module, to a small file, without training.

Tensors are read piece by piece, so that memory holds the coded file, or the indices where there
is a bank, and little else.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from momos._util.atomic import refuse_same
from momos._util.reading import watch
from momos._util.work import Progress, quiet
from momos.blocks import Layout, matches
from momos.calibration.sensitivity import weight_sensitivities
from momos.checkpoints.banks import (
    assign,
    choose_banks,
    in_steps,
    rate_weight_of,
    stored_motifs,
)
from momos.checkpoints.dense import (
    Config,
    check_dense,
    check_lossless,
    chosen_of,
    lossless_contents,
    read_dense,
    warning_of,
    why_dense,
    without_odd,
)
from momos.checkpoints.opening import open_source
from momos.checkpoints.rounding import EMBEDDINGS, lattice_mosaic
from momos.checkpoints.search import CompressionReport as CompressionReport
from momos.checkpoints.search import (
    Search,
    check_evaluation,
    check_target,
    check_writable,
    reaching,
    target_size,
    written_size,
)
from momos.checkpoints.search import Trial as Trial
from momos.checkpoints.source import (
    Source,
    SourceTensor,
    copied,
    dense_values,
    module_source,
    stored_values,
    with_values,
)
from momos.checkpoints.trellis import Rounded
from momos.checkpoints.weights import (
    Weights,
    check_calibration,
    mean_squares,
    measured_scales,
)
from momos.codec import PACK_VALUES
from momos.config import LatticeConfig, MosaicConfig
from momos.files.api import save_contents
from momos.files.contents import Contents, as_stored
from momos.files.manifest import Record
from momos.mosaic import Mosaic

Sensitivities = Mapping[str, Tensor]


def compress(
    source: str | os.PathLike[str] | nn.Module,
    path: str | os.PathLike[str],
    config: Config | None = None,
    *,
    target_bytes: int | None = None,
    target_factor: float | None = None,
    evaluate: Callable[[Any], Any] | None = None,
    max_drop: float | None = None,
    calibration: Iterable[Any] | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    lossless: bool = False,
    key: str = "",
    on_trial: Callable[[Trial], object] | None = None,
    progress: Progress = quiet,
) -> CompressionReport:
    """Makes the checkpoint or module `source` a mosaic and writes it to `path`.

    A checkpoint is a safetensors file, what torch.save wrote, or a folder with either, as
    Hugging Face writes it; of several state dicts in a torch file `key` chooses one, as "ema" or
    "model.state_dict". Of a module it is the state dict that is compressed; the module itself is
    never changed. All floating tensors that `config` chooses become blocks, except running
    statistics and single numbers. The report lists how every tensor is stored, and what else the
    checkpoint held; quantized and sparse tensors can only be excluded, which leaves them out. A
    warning says if it seems to be quantized already, so that its scales are all that becomes
    blocks.

    `dense_dtype` of the config rounds floating tensors of wider dtypes that stay dense, running
    statistics included; they keep their dtype. "float32" leaves all as they are.

    Without a `config` weights are rounded to whole numbers of half steps (`LatticeConfig`), so
    finely that most networks stay what they are. A `target_bytes`, or a `target_factor` (bytes of
    the tensors over bytes of the file), chooses the step: the file is the largest found within
    it, by some trials of the whole work, mostly fewer than a dozen.

    `evaluate` chooses the step by a metric instead: the file is the smallest found with which the
    metric is at most `max_drop` lower than with the dense weights. `evaluate` is given the state
    dict that a file would return, or, for a module, a copy of it with those weights, and returns
    one number, higher is better. It is called at most 12 times, first with the dense weights.
    `on_trial` is given each `Trial`; the report has them all. Two or three such sets of weights
    are in memory at once.

    With `calibration`, batches for which `loss(batch)` runs the module, as `sensitivities` takes
    them, rounding favours the weights to which the loss is sensitive.

    With `lossless` every tensor is stored as it is, bit for bit.

    Of a `MosaicConfig`:

    - `scales` divides each tensor, or output channel, by the root of its mean square before
      blocks are compared, so that small tensors are not lost among large ones.
    - `rate_weight` moves motifs to the means of their blocks and drops those that none wants.
    - `bits` of 2 to 8 makes motifs whole numbers; their step, the one of some tried that loses
      least by usage, becomes part of the scales.

    Raises:
        FormatError: if `source` is damaged or not a checkpoint.
        TypeError: if an argument, or what `evaluate` returns, is of another type.
        ValueError: if no tensor is chosen, a weight is not finite, or values do not fit what
            they are stored in; names the tensor. Also if `path` is one of the files that are
            read, or one of these changes meanwhile, no step reaches the target or keeps the
            metric, the metric is not finite, or arguments exclude each other.
        OSError: if a file cannot be read or written.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
        >>> report = momos.compress(model, "net.momos", momos.LatticeConfig(step=0.14))
        >>> report.factor > 5, report.relative_error < 0.01
        (True, True)
        >>> report = momos.compress(model, "small.momos", target_factor=12)
        >>> report.factor >= 12
        True
    """
    targets = {"target_bytes": target_bytes, "target_factor": target_factor}
    own = {"config": config, "evaluate": evaluate, "calibration": calibration}
    check_lossless(lossless, own | targets)
    config = LatticeConfig() if config is None else config
    if not isinstance(config, MosaicConfig | LatticeConfig):
        raise TypeError(f"config must be a MosaicConfig or a LatticeConfig, got {config!r}")
    check_target(config, target_bytes, target_factor)
    targeted = any(target is not None for target in targets.values())
    check_evaluation(config, evaluate, max_drop, targeted=targeted)
    check_calibration(source, config, calibration, loss)
    held = copied(source) if evaluate and isinstance(source, nn.Module) else source
    with torch.device("cpu"):  # whatever the default device is
        opened = _opened(held, key, None if lossless else config)
        refuse_same(opened.files, path)
        check_writable(path)
        check_unchanged = watch(opened.files)
        if lossless:
            contents = lossless_contents(opened, check_unchanged)
            return _saved(contents, path, opened, (), progress)
        if warning := warning_of(opened, config):
            warnings.warn(warning, stacklevel=2)
        work = _Work(opened, config, check_unchanged, progress)
    sensitivities = _sensitivities(source, calibration, loss)
    contents_of = partial(work.contents, sensitivities=sensitivities)
    size = partial(written_size, path=path)
    if evaluate is None:
        target = target_size(opened, target_bytes, target_factor)
        contents, trials = _within(target, config, contents_of, size, opened.num_bytes), ()
    else:
        assert isinstance(config, LatticeConfig)
        assert max_drop is not None
        search = Search(
            config=config,
            max_drop=max_drop,
            dense_bytes=opened.num_bytes,
            contents=contents_of,
            size=size,
            measure=partial(_measured, evaluate, held, opened),
            on_trial=on_trial or _ignore,
            progress=progress,
        )
        contents, trials = search.run()
    return _saved(contents, path, opened, trials, progress)


def _saved(
    contents: Contents,
    path: str | os.PathLike[str],
    source: Source,
    trials: tuple[Trial, ...],
    progress: Progress,
) -> CompressionReport:
    """Writes `contents` to `path`, and reports its size and that of `source`."""
    with torch.device("cpu"):
        report = save_contents(contents, path, progress)
    before = sum(file.stat().st_size for file in source.files) if source.files else None
    about = {"left_out": source.left_out, "source_bytes": before, "trials": trials}
    return CompressionReport(**vars(report) | about)


def _within(
    target: int | None,
    config: Config,
    contents_of: Callable[[Config], Contents],
    size: Callable[[Contents], int],
    dense_bytes: int,
) -> Contents:
    """The contents by `config`, its step chosen for a file of at most `target` bytes."""
    if target is None or not isinstance(config, LatticeConfig):
        return contents_of(config)
    fitting: list[Contents] = []  # the last that fitted, which is the one that is reached

    def num_bytes(tried: LatticeConfig) -> int:
        contents = contents_of(tried)
        if (found := size(contents)) <= target:
            fitting[:] = [contents]
        return found

    reaching(config, target, num_bytes, dense_bytes)
    return fitting[0]


def _opened(
    source: str | os.PathLike[str] | nn.Module, key: str, config: Config | None
) -> Source:
    """The tensors of `source`, without the odd ones that `config` excludes."""
    opened = _read(source, key)
    return opened if config is None else without_odd(opened, config)


def _read(source: str | os.PathLike[str] | nn.Module, key: str) -> Source:
    if not isinstance(source, nn.Module):
        if not isinstance(source, str | os.PathLike):
            raise TypeError(
                f"source must be a path or a Module, got {type(source).__name__} (torch.save "
                "makes a path of a state dict)"
            )
        return open_source(source, key=key)
    if key:
        raise ValueError(
            f"key must be given for what torch.save writes only, got {key!r} for a Module"
        )
    return module_source(source)


def _sensitivities(
    source: object, calibration: Iterable[Any] | None, loss: Callable[[Any], Tensor] | None
) -> Sensitivities | None:
    if calibration is None:
        return None
    assert isinstance(source, nn.Module)
    assert loss is not None
    return weight_sensitivities(source, calibration, loss)


def _measured(
    evaluate: Callable[[Any], Any],
    held: object,
    source: Source,
    contents: Contents | None,
) -> object:
    """What `evaluate` returns for `contents`, or the dense weights; on the user's own device."""
    with torch.device("cpu"):
        values = dense_values(source) if contents is None else stored_values(contents)
    return evaluate(with_values(held, values) if isinstance(held, nn.Module) else values)


def _ignore(trial: Trial) -> None:
    """Reports nothing."""


class _Work:
    """What all trials of one compression share: the chosen weights, and their mean squares."""

    def __init__(
        self,
        source: Source,
        config: Config,
        check_unchanged: Callable[[], None],
        progress: Progress,
    ) -> None:
        self.source, self.check_unchanged, self.progress = source, check_unchanged, progress
        chosen = chosen_of(source, config)
        check_dense(source, config, progress)
        tensors = ((t.name, t.shape, t.dtype) for t in chosen)
        layout = Layout.cut(config.block_size, tensors, _axes(chosen, config))
        dtype = layout.dtype
        if isinstance(config, LatticeConfig) or (
            config.scales != "none" or config.rate_weight or config.bits <= 8
        ):
            dtype = torch.promote_types(dtype, torch.float32)
        self.weights = Weights(source.tensors, layout, dtype)
        self.squares = None
        if isinstance(config, LatticeConfig):
            self.squares = mean_squares(self.weights, "channel", progress)

    def contents(self, config: Config, sensitivities: Sensitivities | None) -> Contents:
        """The contents of the file by `config`, which may differ in its step."""
        source = self.source

        def read(name: str, start: int, stop: int) -> Tensor:
            return read_dense(source.tensors[name], config, start, stop)

        def dense(name: str) -> Iterator[Tensor]:
            count = source.tensors[name].num_weights
            for start in range(0, count, PACK_VALUES):
                yield as_stored(read(name, start, min(start + PACK_VALUES, count)))

        with torch.device("cpu"):
            if isinstance(config, LatticeConfig):
                assert self.squares is not None
                about = self.squares, config, self.progress, dense
                rounded = lattice_mosaic(self.weights, *about, sensitivities)
            else:
                rounded = _banked(self.weights, config, self.progress)
        return Contents(
            records=_records(source, rounded, config),
            mosaic=rounded.mosaic,
            read=read,
            metadata=source.metadata,
            check_unchanged=self.check_unchanged,
            # What a file held is compared with what it holds; a Module may change meanwhile.
            sha256=rounded.sha256 if source.files else None,
        )


def _banked(weights: Weights, config: MosaicConfig, progress: Progress) -> Rounded:
    """The mosaic of the chosen tensors and a bank of motifs."""
    if config.scales != "none":
        weights = weights.scaled(measured_scales(weights, config.scales, progress))
    rate_weight = rate_weight_of(weights, config, progress)
    banks = list(choose_banks(weights, config, rate_weight, progress))
    motifs, step = stored_motifs(banks, config, weights.layout.dtype)
    if step is not None:
        weights, rate_weight = in_steps(weights, step), rate_weight / step / step
    indices, distortions, energies = assign(weights, banks, motifs, rate_weight, progress)
    mosaic = Mosaic(motifs, indices, weights.layout, weights.scales, config)
    return Rounded(mosaic, distortions, energies)


def _axes(chosen: Sequence[SourceTensor], config: Config) -> dict[str, int]:
    """Which dimension holds the output channels; of an embedding the first is its rows."""
    if not isinstance(config, LatticeConfig) or config.channel_axis == "first":
        return {}
    return {
        tensor.name: max(0, len(tensor.shape) - 1)
        for tensor in chosen
        if not matches(tensor.name, EMBEDDINGS)
    }


def _records(source: Source, rounded: Rounded, config: Config) -> tuple[Record, ...]:
    axes, energies = rounded.mosaic.layout.axes, rounded.energies
    distortions = rounded.distortions
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
