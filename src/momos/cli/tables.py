"""A file as tables: what became of each tensor, what each part takes, how long it is."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from momos import SaveReport, TensorReport
from momos.description import DescriptionLength
from momos.escaping import visible


def show(report: SaveReport, console: Console) -> None:
    """Prints everything about a file."""
    console.print(_tensors(report))
    for name, kind in report.left_out.items():
        console.print(f"left out: {visible(name)} ({visible(kind)})")
    console.print(_sections(report))
    if report.lengths:
        console.print(_lengths(report, report.lengths))
    console.print(
        f"{visible(str(report.path))}: {report.num_bytes:,} bytes for {report.dense_bytes:,} bytes of "
        f"tensors, {report.factor:.2f} times smaller",
        soft_wrap=True,
    )


def _tensors(report: SaveReport) -> Table:
    recorded = any(tensor.distortion is not None for tensor in report.tensors)
    table = _table(
        ("tensor", "shape", "stored as"),
        ("blocks", "motifs", "bits/weight", *(("distortion",) if recorded else ())),
    )
    for tensor in report.tensors:
        shape = "×".join(map(str, tensor.shape))
        row = [
            visible(tensor.name),
            f"{tensor.dtype} {shape}".strip() if tensor.stored != "same" else "",
            visible(_stored(tensor)),
            f"{tensor.num_blocks:,}" if tensor.num_blocks else "",
            f"{tensor.num_motifs:,}" if tensor.num_blocks else "",
            f"{tensor.bits_per_weight:.2f}" if tensor.num_weights else "",
        ]
        if recorded:
            row.append("" if tensor.distortion is None else f"{tensor.distortion:.4g}")
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table


def _stored(tensor: TensorReport) -> str:
    if tensor.stored == "same":
        return tensor.why
    stored = tensor.stored + (f", {tensor.num_scales:,} scales" * (tensor.num_scales > 1))
    return f"{stored} ({tensor.why})" if tensor.why else stored


def _sections(report: SaveReport) -> Table:
    table = _table(("part of the file",), ("bytes", "share"))
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
        table.add_row(name, f"{count:,}", f"{count / report.num_bytes:.1%}")
    table.add_row("all", f"{report.num_bytes:,}", "")
    return table


def _lengths(report: SaveReport, lengths: DescriptionLength) -> Table:
    table = _table(("length of the blocks",), ("bits", "bits/weight"))
    parts = sum(report.sections[name] for name in ("motifs", "usage", "mosaic"))
    for name, bits in (
        ("dense, 32 bits a weight", lengths.dense),
        ("bound: motifs, ceil(log2 k) bits a block", lengths.bound),
        ("entropy: motifs, entropy of usage, its table", lengths.entropy),
        ("in the file: motifs, usage table, mosaic", 8 * parts),
        ("the whole file, dense tensors included", 8 * report.num_bytes),
    ):
        table.add_row(name, f"{bits:,.0f}", f"{bits / lengths.num_weights:.3f}")
    return table


def _table(texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for text in texts:
        table.add_column(text, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table
