"""`momos compress`, `expand`, `inspect` and `verify`: checkpoints to small files and back."""

import json
from pathlib import Path
from typing import Annotated

import typer

import momos
from momos.cli.outcome import told
from momos.cli.progress import bars
from momos.cli.tables import show
from momos.cli.terminal import console, say, write
from momos.config import DenseDtype, Scales, Selection

MosaicPath = Annotated[
    Path, typer.Argument(metavar="FILE.momos", help="A file that momos wrote.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON; `momos inspect --help` lists its keys.")
]


def compress(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A .safetensors file, what torch.save wrote, a TorchScript archive, or a "
            "Hugging Face folder.",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT.momos", help="File to write.")],
    block_size: Annotated[int, typer.Option(min=1, help="Weights in a block, s.")] = 4,
    num_motifs: Annotated[
        int | None,
        typer.Option(min=1, help="Motifs, k; 256 if no capacity is given."),
    ] = None,
    capacity: Annotated[
        float | None, typer.Option(help="Motifs per block instead, as 0.05.")
    ] = None,
    selection: Annotated[
        Selection, typer.Option(help="Where motifs come from.")
    ] = "kmeans",
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Only tensors of these names become blocks: a pattern as '*.weight'."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Tensors of these names stay dense: a pattern as '*bias'."),
    ] = None,
    min_ndim: Annotated[
        int,
        typer.Option(min=0, help="Tensors of fewer dimensions stay dense; 2: biases."),
    ] = 1,
    scales: Annotated[
        Scales,
        typer.Option(
            help="Compare blocks relative to their tensor's or output channel's scale."
        ),
    ] = "none",
    rate_weight: Annotated[
        float,
        typer.Option(
            min=0,
            help="Squared error that a bit less is worth, per mean square of weights, as 0.02.",
        ),
    ] = 0.0,
    bits: Annotated[
        int,
        typer.Option(
            help="Of a motif value: 32 (as the weights), 16 (float16), 2 to 8 (whole)."
        ),
    ] = 32,
    dense_dtype: Annotated[
        DenseDtype,
        typer.Option(help="Round wider tensors that stay dense to this; float32: none."),
    ] = "float32",
    zero_motif: Annotated[bool, typer.Option(help="Motif 0 is all zeros.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of motifs.")] = 0,
    key: Annotated[
        str,
        typer.Option(help="Which state dict of a torch file, as ema or model.state_dict."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a checkpoint a mosaic, without data or training, and write it as a small file.

    What is printed is what `momos inspect` prints. In a pipe, each line is a
    row, names are whole, and cells are two spaces apart or more.
    """
    if num_motifs is None and capacity is None:
        num_motifs = 256
    with told():
        config = momos.MosaicConfig(
            block_size=block_size,
            num_motifs=num_motifs,
            capacity=capacity,
            selection=selection,
            include=tuple(include or ("*",)),
            exclude=tuple(exclude or ()),
            zero_motif=zero_motif,
            seed=seed,
            min_ndim=min_ndim,
            scales=scales,
            rate_weight=rate_weight,
            bits=bits,
            dense_dtype=dense_dtype,
        )
        with bars() as progress:
            report = momos.compress(source, output, config, key=key, progress=progress)
        _print(report, as_json)


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
    with told():
        with bars() as progress:
            momos.expand(path, output, most_bytes=most_bytes, progress=progress)
        say(f"{output}: {output.stat().st_size:,} bytes")


def inspect(path: MosaicPath, as_json: AsJson = False) -> None:
    """Show what a .momos file holds, tensor by tensor and part by part.

    Checksums of all parts are compared; that of the values is for `momos
    verify`. The error of a tensor is ‖w − ŵ‖² / ‖w‖², where it was recorded.

    --json has path, num_bytes, dense_bytes, source_bytes (of compress),
    factor, relative_error, sections (their bytes), lengths (in bits), config
    (the settings), left_out and tensors: of each its name, shape, dtype,
    stored, why, num_weights, num_blocks, num_motifs, num_scales, length (in
    bits), bits_per_weight, distortion, energy (‖w‖²) and relative_error.
    """
    with told():
        with bars() as progress:
            report = momos.inspect(path, progress=progress)
        _print(report, as_json)


def verify(path: MosaicPath) -> None:
    """Decode a .momos file and compare all its checksums."""
    with told():
        with bars() as progress, momos.MosaicFile(path) as file:
            file.verify(progress)
            count = sum(record.num_weights for record in file.manifest.records)
        say(
            f"{path}: whole, {len(file.names):,} tensors, {count:,} values, "
            f"SHA-256 {file.manifest.sha256}"
        )


def _print(report: momos.SaveReport, as_json: bool) -> None:
    if as_json:
        write(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        show(report, console())
