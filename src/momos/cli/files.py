"""`momos compress`, `expand`, `inspect` and `verify`: checkpoints to small files and back."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

import momos
from momos.cli.functions import function_named
from momos.cli.outcome import told
from momos.cli.progress import bars
from momos.cli.settings import check_lossless, check_search, compress_config, num_bytes
from momos.cli.tables import show
from momos.cli.terminal import console, say, write
from momos.config import ChannelAxis, DenseDtype, Scales, Selection, Unit

MosaicPath = Annotated[
    Path, typer.Argument(metavar="FILE.momos", help="A file that momos wrote.")
]
BANK = "Instead: a bank of a given size"
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
    step: Annotated[
        float | None,
        typer.Option(
            help="Rounding step relative to a typical weight, 0.07 if not given; twice as "
            "large takes about a bit a weight less."
        ),
    ] = None,
    target_size: Annotated[
        int | None,
        typer.Option(
            parser=num_bytes,
            metavar="SIZE",
            help="Choose the step for a file of at most so many bytes, as 100kB or 2MB.",
        ),
    ] = None,
    target_factor: Annotated[
        float | None,
        typer.Option(help="Choose the step for a file so many times smaller, as 12."),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Choose the step by this function of a state dict, higher is better; or "
            "module:function. With --max-drop.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="How much lower than with the dense weights the metric may be, in its units."
        ),
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Keep every tensor as it is, bit for bit.")
    ] = False,
    unit: Annotated[
        Unit | None,
        typer.Option(
            help="One step for the network, or for each channel; auto: by kind of layer."
        ),
    ] = None,
    channel_axis: Annotated[
        ChannelAxis | None,
        typer.Option(
            help="Which dimension holds output channels: first (PyTorch), or last (Flax, Keras)."
        ),
    ] = None,
    states: Annotated[
        int | None,
        typer.Option(
            help="Of the trellis that rounds: 256, fewer for large networks; 1 is none, and quicker."
        ),
    ] = None,
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
        int | None,
        typer.Option(
            min=0, help="Tensors of fewer dimensions stay dense: 2; 1 with a bank."
        ),
    ] = None,
    dense_dtype: Annotated[
        DenseDtype | None,
        typer.Option(
            help="Round wider tensors that stay dense to this: bfloat16; float32 (none) "
            "with a bank."
        ),
    ] = None,
    rate_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Squared error that a bit less is worth: 0.1 squares of a step; with a bank 0 "
            "mean squares of weights.",
        ),
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(min=1, help="Weights in a block, s: 1; 4 with a bank.")
    ] = None,
    num_motifs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Choose a bank of so many motifs, k.", rich_help_panel=BANK
        ),
    ] = None,
    capacity: Annotated[
        float | None,
        typer.Option(help="Or of so many motifs per block, as 0.05.", rich_help_panel=BANK),
    ] = None,
    selection: Annotated[
        Selection | None,
        typer.Option(help="Where motifs come from: kmeans.", rich_help_panel=BANK),
    ] = None,
    scales: Annotated[
        Scales | None,
        typer.Option(
            help="Compare blocks relative to their tensor's or output channel's scale: none.",
            rich_help_panel=BANK,
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            help="Of a motif value: 32 (as the weights), 16 (float16), 2 to 8 (whole).",
            rich_help_panel=BANK,
        ),
    ] = None,
    zero_motif: Annotated[
        bool | None,
        typer.Option(
            "--zero-motif/--no-zero-motif",
            help="Motif 0 is all zeros: yes.",
            rich_help_panel=BANK,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of the choice of motifs: 0.", rich_help_panel=BANK),
    ] = None,
    key: Annotated[
        str,
        typer.Option(help="Which state dict of a torch file, as ema or model.state_dict."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a checkpoint a mosaic, without data or training, and write it as a small file.

    Weights are rounded to whole steps, as finely as most networks need to stay what they are. With
    --num-motifs or --capacity a bank of so many motifs is chosen instead.

    With --evaluate the file is the smallest found with which a metric of your own is at most
    --max-drop lower: the function is called at most 12 times, and must return one number.

    What is printed is what `momos inspect` prints. In a pipe, each line is a
    row, names are whole, and cells are two spaces apart or more.
    """
    shared = {
        "block_size": block_size,
        "min_ndim": min_ndim,
        "dense_dtype": dense_dtype,
        "rate_weight": rate_weight,
        "include": tuple(include) if include else None,
        "exclude": tuple(exclude) if exclude else None,
    }
    lattice = {
        "step": step,
        "unit": unit,
        "channel_axis": channel_axis,
        "states": states,
    }
    bank = {
        "num_motifs": num_motifs,
        "capacity": capacity,
        "selection": selection,
        "scales": scales,
        "bits": bits,
        "zero_motif": zero_motif,
        "seed": seed,
    }
    targets = {"target_size": target_size, "target_factor": target_factor}
    with told(), ExitStack() as stack:
        check_search(evaluate, max_drop, targets, bank)
        if lossless:
            check_lossless({"evaluate": evaluate} | targets | shared | lattice | bank)
        config = None if lossless else compress_config(shared, lattice, bank)
        function = evaluate and stack.enter_context(function_named(evaluate))
        progress = stack.enter_context(bars())
        report = momos.compress(
            source,
            output,
            config,
            key=key,
            target_bytes=target_size,
            target_factor=target_factor,
            evaluate=function or None,
            max_drop=max_drop,
            lossless=lossless,
            on_trial=lambda trial: say(f"momos: {trial}", error=True),
            progress=progress,
        )
        stack.close()
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

    --json has path, num_bytes, dense_bytes, factor, relative_error, sections
    (their bytes), lengths (in bits), config (the settings), left_out and
    tensors: of each its name, shape, dtype, stored, why, num_weights,
    num_blocks, num_motifs, num_scales, length (in bits), bits_per_weight,
    distortion, energy (‖w‖²) and relative_error. That of compress also has
    source_bytes and, with --evaluate, trials: of each its step (null with the
    dense weights), num_bytes, metric and kept.
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
