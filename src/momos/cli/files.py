"""`momos inspect`, `verify` and `expand`: what a .momos file holds, and its tensors again."""

import json
from pathlib import Path
from typing import Annotated

import typer

import momos
from momos.cli.tables import show
from momos.cli.terminal import bars, console, reported, say, write

MosaicPath = Annotated[
    Path, typer.Argument(metavar="FILE.momos", help="A file that momos wrote.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON; `momos inspect --help` lists its keys.")
]


def inspect(path: MosaicPath, as_json: AsJson = False) -> None:
    """Show what a .momos file holds, tensor by tensor and part by part.

    Checksums of all parts are compared; that of the values is for `momos
    verify`. The error of a tensor is ‖w − ŵ‖² / ‖w‖², where it was recorded.

    --json has path, num_bytes, dense_bytes, factor, relative_error, sections
    (their bytes), lengths (in bits), config (the settings), left_out and
    tensors: of each its name, shape, dtype, stored, why, num_weights,
    num_blocks, num_motifs, num_scales, length (in bits), bits_per_weight,
    distortion, energy (‖w‖²) and relative_error. That of compress also has
    source_bytes and, with --evaluate, trials: of each its step (null with the
    dense weights), num_bytes, metric and kept.
    """
    with reported():
        with bars() as progress:
            report = momos.inspect(path, progress=progress)
        print_report(report, as_json)


def verify(path: MosaicPath) -> None:
    """Decode a .momos file and compare all its checksums."""
    with reported():
        with bars() as progress, momos.MosaicFile(path) as file:
            file.verify(progress)
            count = sum(record.num_weights for record in file.manifest.records)
        say(
            f"{path}: whole, {len(file.names):,} tensors, {count:,} values, "
            f"SHA-256 {file.manifest.sha256}"
        )


def print_report(report: momos.SaveReport, as_json: bool) -> None:
    """Prints a report as tables, or as JSON."""
    if as_json:
        write(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        show(report, console())


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
