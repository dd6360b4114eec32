"""Saving a network."""

import dataclasses
import os
from pathlib import Path

import torch
from torch import nn

from momos._util.atomic import replacing
from momos._util.work import Progress, quiet
from momos.config import MosaicConfig
from momos.files.checkpoint import Checkpoint
from momos.files.contents import Contents
from momos.files.reader import MosaicFile
from momos.files.report import SaveReport, report_on
from momos.files.writer import write
from momos.mosaic import Mosaic


def save(
    network: nn.Module | Mosaic | Checkpoint,
    path: str | os.PathLike[str],
    *,
    config: MosaicConfig | None = None,
) -> SaveReport:
    """Writes a network to `path`, and says what it takes.

    A module must be a mosaic (`project_` makes it one); all its parameters and buffers are saved,
    those that are not blocks losslessly. An old file at `path` stays whole until the new one is.
    Every value is read once, so weights that another thread changes meanwhile are saved as they
    were when they were read. A module that only holds the weights of a mosaic, as after
    `load_state_dict`, needs the `config` that made them (see `Mosaic.of`).

    Raises:
        TypeError: if `network` is none of these.
        ValueError: if the module is not a mosaic, or holds what is not an ordinary tensor, or
            `config` is given for what is no module.
        OSError: if `path` cannot be written, or another process is writing it.
    """
    if config is not None and not isinstance(network, nn.Module):
        raise ValueError(
            f"config must be given for a Module only, got one for a {type(network).__name__}"
        )
    with torch.device("cpu"):  # whatever the default device is
        return save_contents(_contents_of(network, config), path)


def _contents_of(
    network: nn.Module | Mosaic | Checkpoint, config: MosaicConfig | None
) -> Contents:
    if isinstance(network, nn.Module):
        return Contents.of_model(network, config)
    if isinstance(network, Mosaic):
        return Contents.of_mosaic(network)
    if isinstance(network, Checkpoint):
        return network.contents()
    raise TypeError(
        f"a Module, a Mosaic or a Checkpoint can be saved, got {type(network).__name__}"
    )


def save_contents(
    contents: Contents, path: str | os.PathLike[str], progress: Progress = quiet
) -> SaveReport:
    """Writes `contents` to `path`, and says what it takes.

    The new file is opened and reported on before it replaces an old one, so nothing can fail
    once that is gone.
    """
    with replacing(path) as file:
        write(file, contents, progress=progress)
        contents.check_unchanged()
        file.flush()
        with MosaicFile(file.name) as written:
            report = report_on(written, contents.mosaic)
    return dataclasses.replace(report, path=Path(path))
