"""`momos compress`: its options, and the function that `--evaluate` names.

That function is code of the user's, which may raise anything: errors become one line that says
where, and what it prints goes to standard error, so that standard output has only the result.
"""

import importlib
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import typer

import momos
from momos._util.work import Progress
from momos.cli.files import AsJson, print_report
from momos.cli.terminal import bars, reported, say
from momos.config import (
    ChannelAxis,
    DenseDtype,
    LatticeConfig,
    MosaicConfig,
    Scales,
    Selection,
    Unit,
)

BANK = "Instead: a bank of a given size"
# The module name of a script whose own name is taken by another module.
NAME = "momos_evaluation"
SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9} | {
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
BANK_DEFAULTS = {"block_size": 4, "min_ndim": 1, "selection": "kmeans"}
MOST_SIZE = 2**62
Target = Literal["transformers"]


def num_bytes(text: str) -> int:
    """Parses a number of bytes, such as 100kB, 1.5MB, 2MiB or 4096."""
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if parts is None or parts[2].lower() not in SIZES:
        raise typer.BadParameter(f"a size must be like 100kB, 2MB or 4096, got {text!r}")
    size = float(parts[1]) * SIZES[parts[2].lower()]
    if size >= MOST_SIZE:
        raise typer.BadParameter(f"a size must be below 2**62 bytes, got {text[:40]!r}")
    return int(size)


def compress(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A .safetensors file, what torch.save wrote, a TorchScript archive, or a "
            "Hugging Face folder.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT.momos", help="File to write; a folder with --for."),
    ],
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
            help="Choose the step for a file of at most this many bytes, such as 100kB or 2MB.",
        ),
    ] = None,
    target_factor: Annotated[
        float | None,
        typer.Option(
            help="Choose the step for a file this many times smaller, such as 12."
        ),
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
            min=1, help="Choose a bank of this many motifs, k.", rich_help_panel=BANK
        ),
    ] = None,
    capacity: Annotated[
        float | None,
        typer.Option(
            help="Or of this many motifs per block, such as 0.05.", rich_help_panel=BANK
        ),
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
    target: Annotated[
        Target | None,
        typer.Option(
            "--for",
            help="Write a folder that from_pretrained loads and runs compact, from a Hugging Face "
            "folder.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a checkpoint a mosaic, without data or training, and write it as a small file.

    Weights are rounded to whole numbers of a step, as finely as most networks need to stay what
    they are. With --num-motifs or --capacity a bank of that many motifs is chosen instead.

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
    with reported(), ExitStack() as stack:
        check_search(evaluate, max_drop, targets, bank)
        if lossless:
            others = {"evaluate": evaluate, "for": target} | targets
            check_lossless(others | shared | lattice | bank)
        config = None if lossless else compress_config(shared, lattice, bank)
        file = stack.enter_context(_intermediate(source, output)) if target else output
        function = evaluate and stack.enter_context(function_named(evaluate))
        progress = stack.enter_context(bars())
        report = momos.compress(
            source,
            file,
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
        if target:
            write_for_transformers(file, source, output, progress)
            report = replace(report, path=output)
        stack.close()
        print_report(report, as_json)


@contextmanager
def _intermediate(source: Path, output: Path) -> Iterator[Path]:
    """Where the .momos file is for a while that a folder is made of."""
    if not (source / "config.json").is_file():
        raise ValueError(
            f"--for transformers needs a Hugging Face folder, but {source} has no config.json"
        )
    folders = integration("transformers.folder")
    folders.settings_of(source)
    folders.check_free(output)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / f"{output.name}.momos"


def integration(name: str) -> ModuleType:
    """A module of `momos.integrations`.

    Raises:
        ValueError: if what it needs is not installed.
    """
    try:
        return importlib.import_module(f"momos.integrations.{name}")
    except ImportError as error:
        raise ValueError(str(error)) from None


def write_for_transformers(
    file: Path, source: Path, output: Path, progress: Progress
) -> None:
    """Writes the folder, and says on standard error how large its weights are."""
    integration("transformers").write_folder(file, source, output, progress=progress)
    size = sum(path.stat().st_size for path in output.glob("*.safetensors"))
    say(
        f"momos: {output} has {size:,} bytes of packed weights, which stay so in memory; below, "
        "the same as a .momos file",
        error=True,
    )


@contextmanager
def function_named(where: str) -> Iterator[Callable[..., Any]]:
    """The function that `where` names, with its folder first on `sys.path`.

    `where` is a file or a module, a colon, and a name in it. Whatever its code raises becomes a
    ValueError with the last line of the traceback.

    Raises:
        ValueError: if there is no such file, module or function.
    """
    place, colon, name = where.rpartition(":")
    if not colon or not place or not name:
        raise ValueError(
            f"a function must be named as script.py:function or module:function, got {where!r}"
        )
    path = Path(place)
    is_file = path.suffix == ".py" or len(path.parts) > 1 or path.is_file()
    if is_file and not path.is_file():
        raise ValueError(f"{place} must be a Python file, but there is none")
    folder = str(path.resolve().parent) if is_file else os.getcwd()
    sys.path.insert(0, folder)
    try:
        with _reported(where):
            module = _run(path) if is_file else importlib.import_module(place)
        yield _guarded(_function_of(module, place, name), where)
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _run(path: Path) -> ModuleType:
    """The module that the script at `path` defines, run as an import, not as a main program.

    It is registered under its own name, as pickle, dataclasses and its child processes need it.
    """
    name = path.stem if path.stem not in sys.modules else NAME
    file = str(path.resolve())
    sys.modules[name] = module = ModuleType(name)
    module.__file__ = file
    exec(compile(path.read_bytes(), file, "exec"), vars(module))
    return module


def _function_of(module: ModuleType, place: str, name: str) -> Callable[..., Any]:
    if not hasattr(module, name):
        others = [
            other
            for other, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__
        ]
        raise ValueError(
            f"{place} must have a function {name!r}, got "
            + (", ".join(map(repr, others[:5])) or "none")
        )
    function = getattr(module, name)
    if not callable(function):
        raise ValueError(
            f"{name!r} of {place} must be a function, got {type(function).__name__}"
        )
    return function


def _guarded(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    def guarded(*arguments: Any) -> Any:
        with _reported(where):
            return function(*arguments)

    return guarded


@contextmanager
def _reported(where: str) -> Iterator[None]:
    """Turns errors of the user's code into a ValueError of one line."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:  # code of the user's may raise anything
        raise ValueError(f"{where} failed: {_last_line(error, where)}") from error


def _last_line(error: BaseException, where: str) -> str:
    """The last line of a traceback, and its place: in the user's own file if possible."""
    line = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename:
        return f"{line} ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    script = str(Path(where.rpartition(":")[0]).resolve())
    own = [frame for frame in frames if frame.filename == script] or frames
    if not own:
        return line
    return f"{line} ({own[-1].filename}, line {own[-1].lineno}, in {own[-1].name})"


def compress_config(
    shared: dict[str, Any], lattice: dict[str, Any], bank: dict[str, Any]
) -> MosaicConfig | LatticeConfig:
    """The settings from the given options: of a bank if its size is given, else of a lattice.

    Raises:
        ValueError: if options for the one are given with those for the other.
    """
    banked = bank["num_motifs"] is not None or bank["capacity"] is not None
    found, others = (bank, lattice) if banked else (lattice, bank)
    if surplus := [_option(name) for name, value in others.items() if value is not None]:
        needed = "without" if banked else "with"
        raise ValueError(
            f"{surplus[0]} must be given {needed} --num-motifs or --capacity, got it "
            f"{'with' if banked else 'without'}"
        )
    given = {name: value for name, value in (shared | found).items() if value is not None}
    return MosaicConfig(**(BANK_DEFAULTS | given)) if banked else LatticeConfig(**given)


def check_search(
    evaluate: str | None,
    max_drop: float | None,
    targets: dict[str, Any],
    bank: dict[str, Any],
) -> None:
    """Refuses options that exclude each other if an evaluation chooses the step.

    Raises:
        ValueError: if `evaluate` or `max_drop` is given alone, or with other options.
    """
    if evaluate is None and max_drop is not None:
        raise ValueError("--max-drop must be given with --evaluate, got it without")
    if evaluate is not None and max_drop is None:
        raise ValueError(
            "--evaluate must be given with --max-drop, got it without (how much lower the "
            "metric may be, in its own units)"
        )
    if evaluate is not None:
        _check_alone("--evaluate", targets | bank)


def check_lossless(others: dict[str, Any]) -> None:
    """Refuses options, by name, that change or choose what becomes blocks.

    Raises:
        ValueError: if one is given.
    """
    _check_alone("--lossless", others)


def _check_alone(option: str, others: dict[str, Any]) -> None:
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"{option} must be given without {_option(name)}, got both")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
