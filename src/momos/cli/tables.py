"""A file as tables: each tensor, what each part takes, how long it is; and what follows, in words."""

import json
from collections.abc import Iterator

from rich.console import Console

from momos import CompressionReport, SaveReport, TensorReport, Trial
from momos._util.escaping import visible
from momos.cli.columns import Column, print_rows, shortened_names
from momos.lengths import DescriptionLength

LARGE_ERROR = 0.05  # relative errors above it are pointed out
MOST_NAMES = 3  # that a line in words lists
LONG_NAME = 40  # of a tensor, in words on a terminal
TENSORS = (
    *(Column("tensor"), Column("shape"), Column("stored")),
    *(Column("blocks", number=True, rank=1), Column("motifs", number=True, rank=2)),
    *(Column("bits/weight", number=True), Column("error", number=True)),
    *(Column("distortion", number=True, rank=4), Column("dtype", rank=3)),
    Column("why", rank=5),
)
TRIALS = (
    Column("trial"),
    *(Column("bytes", number=True), Column("metric", number=True), Column("outcome")),
)


def show(report: SaveReport, console: Console) -> None:
    """Prints everything about a file."""
    _show_tensors(report, console)
    for line in _words(report, console):
        console.print(visible(line), soft_wrap=not console.is_terminal)
    console.print()
    print_rows(
        console, _amounts("part of the file", "bytes", "share"), list(_parts(report))
    )
    if report.lengths:
        console.print()
        titles = _amounts("length of the blocks", "bits", "bits/weight")
        print_rows(console, titles, list(_lengths(report, report.lengths)))
    if isinstance(report, CompressionReport) and report.trials:
        console.print()
        print_rows(console, TRIALS, [_trial(trial) for trial in report.trials])
    console.print()
    if report.config is not None:
        settings = f"settings: {_settings(report.config)}"
        console.print(visible(settings), soft_wrap=not console.is_terminal)
    for line in _sizes(report):
        console.print(visible(line), soft_wrap=True)


def _amounts(title: str, *numbers: str) -> tuple[Column, ...]:
    return (Column(title), *(Column(number, number=True) for number in numbers))


def _show_tensors(report: SaveReport, console: Console) -> None:
    """The tensors, without columns that are empty throughout."""
    rows = [_row(tensor) for tensor in report.tensors]
    filled = [any(row[at] for row in rows) or at < 3 for at in range(len(TENSORS))]
    columns = [column for column, some in zip(TENSORS, filled, strict=True) if some]
    rows = [[c for c, some in zip(row, filled, strict=True) if some] for row in rows]
    print_rows(console, columns, rows)


def _row(tensor: TensorReport) -> list[str]:
    same, blocks = tensor.stored == "same", tensor.stored == "blocks"
    scales = f"{tensor.num_scales:,} scales" * (tensor.num_scales > 1)
    return [
        tensor.name,
        "" if same else "×".join(map(str, tensor.shape)) or "()",
        tensor.stored,
        f"{tensor.num_blocks:,}" if blocks else "",
        f"{tensor.num_motifs:,}" if blocks else "",
        f"{tensor.bits_per_weight:.2f}" if tensor.num_weights else "",
        "" if tensor.relative_error is None else _percent(tensor.relative_error),
        "" if tensor.distortion is None else f"{tensor.distortion:.4g}",
        tensor.dtype,
        tensor.why or scales,
    ]


def _trial(trial: Trial) -> list[str]:
    outcome = "kept" if trial.kept else "too low"
    return [trial.name, f"{trial.num_bytes:,}", f"{trial.metric:.6g}", outcome]


def _percent(share: float) -> str:
    """Three digits at least, and no exponent."""
    return f"{share:.2%}" if share >= 0.0001 or not share else f"{100 * share:.2g}%"


def _words(report: SaveReport, console: Console) -> Iterator[str]:
    """What the rows come to: why tensors are dense, and how far blocks are from the weights."""

    def listed(names: list[str], notes: list[str] | None = None) -> str:
        more, shown = len(names) - MOST_NAMES, names[:MOST_NAMES]
        if console.is_terminal:
            shown = shortened_names(shown, LONG_NAME)
        if notes is not None:
            shown = [f"{name} ({note})" for name, note in zip(shown, notes, strict=False)]
        return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")

    reasons: dict[str, list[str]] = {}
    for tensor in report.tensors:
        if tensor.stored == "dense":
            reasons.setdefault(tensor.why or "no reason recorded", []).append(tensor.name)
    for why, names in reasons.items():
        yield f"dense, {why}: {listed(names)}"
    if same := [t for t in report.tensors if t.stored == "same"]:
        yield f"stored once: {listed([t.name for t in same], [t.why for t in same])}"
    for name, kind in report.left_out.items():
        yield f"left out: {name} ({kind})"
    if report.relative_error is None:
        return
    yield f"error of all blocks, ‖w − ŵ‖² / ‖w‖²: {_percent(report.relative_error)}"
    far = [t for t in report.tensors if (t.relative_error or 0) > LARGE_ERROR]
    far.sort(key=lambda tensor: -(tensor.relative_error or 0))
    if far:
        shares = [_percent(t.relative_error or 0) for t in far]
        names = listed([t.name for t in far], shares)
        yield f"error above {LARGE_ERROR:.0%}, which may damage a network: {names}"


def _parts(report: SaveReport) -> Iterator[tuple[str, ...]]:
    names = {
        "header": "header",
        "manifest": "manifest: names, shapes, lengths",
        "motifs": "motifs",
        "usage": "usage table",
        "mosaic": "mosaic: which motif each block is",
        "dense": "dense tensors",
    }
    for section, name in names.items():
        count = report.sections[section]
        yield name, f"{count:,}", f"{count / report.num_bytes:.1%}"
    yield "all", f"{report.num_bytes:,}", "100.0%"


def _lengths(report: SaveReport, lengths: DescriptionLength) -> Iterator[tuple[str, ...]]:
    parts = sum(report.sections[name] for name in ("motifs", "usage", "mosaic"))
    for name, bits in (
        ("dense, 32 bits a weight", lengths.dense),
        ("bound: motifs, ceil(log2 k) bits a block", lengths.bound),
        ("entropy: motifs, entropy of usage, its table", lengths.entropy),
        ("in the file: motifs, usage table, mosaic", 8 * parts),
        ("the whole file, dense tensors included", 8 * report.num_bytes),
    ):
        yield name, f"{bits:,.0f}", f"{bits / lengths.num_weights:.3f}"


def _settings(config: dict[str, object]) -> str:
    """The settings that are not empty, as `name=value`."""
    given = {name: value for name, value in config.items() if value not in (None, [], ())}
    return " ".join(f"{name}={_value(value)}" for name, value in given.items())


def _value(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return ",".join(map(str, value))
    return json.dumps(value, separators=(",", ":"))


def _sizes(report: SaveReport) -> Iterator[str]:
    path, size, dense = report.path, report.num_bytes, report.dense_bytes
    before = report.source_bytes
    if before is not None and size >= before:
        yield f"larger than the original: {size:,} bytes instead of {before:,}"
    elif before is not None and report.lengths is None:
        share = f"{size / before:.1%}"
        yield f"{share} of the original: {size:,} bytes instead of {before:,}"
    if size >= dense:
        times = f"{size / dense:.2f} times larger" if dense else "larger"
    else:
        times = f"{report.factor:.2f} times smaller"
    yield f"{path}: {size:,} bytes for {dense:,} bytes of tensors, {times}"
