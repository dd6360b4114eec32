"""`momos expand`: a .momos file back to a dense checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

import momos
from momos.cli.inspect import MosaicPath
from momos.cli.terminal import bars, reported, say


def expand(
    path: MosaicPath,
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.safetensors",
            help="Dense checkpoint to write; .pt, .pth or .bin make it one of torch.save.",
        ),
    ],
    most_bytes: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Bytes that a .safetensors file may have; 65 536 times FILE's if not given.",
        ),
    ] = None,
) -> None:
    """Write a .momos file's tensors as a dense checkpoint, exactly as they were saved."""
    with reported():
        with bars() as progress:
            momos.expand(path, output, most_bytes=most_bytes, progress=progress)
        say(f"{output}: {output.stat().st_size:,} bytes")
