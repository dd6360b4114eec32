"""Saving a network."""

import dataclasses
import os
from pathlib import Path

from torch import nn

from momos.files.atomic import replacing
from momos.files.checkpoint import Checkpoint
from momos.files.contents import Contents
from momos.files.progress import Progress, quiet
from momos.files.reader import MosaicFile
from momos.files.report import SaveReport, report_on
from momos.files.writer import write
from momos.mosaic import Mosaic


def save(
    network: nn.Module | Mosaic | Checkpoint, path: str | os.PathLike[str]
) -> SaveReport:
    """Writes a network to `path`, and says what it takes.

    A module must be a mosaic (`project_` makes it one); all its parameters and buffers are saved,
    those that are not blocks losslessly. An old file at `path` stays whole until the new one is.
    Every value is read once, so weights that another thread changes meanwhile are saved as they
    were when they were read.

    Raises:
        TypeError: if `network` is none of these.
        ValueError: if the module is not a mosaic, or holds what is not an ordinary tensor.
        OSError: if `path` cannot be written, or another process is writing it.
    """
    if isinstance(network, nn.Module):
        contents = Contents.of_model(network)
    elif isinstance(network, Mosaic):
        contents = Contents.of_mosaic(network)
    elif isinstance(network, Checkpoint):
        contents = network.contents()
    else:
        raise TypeError(
            f"a Module, a Mosaic or a Checkpoint can be saved, got {type(network).__name__}"
        )
    return save_contents(contents, path)


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
