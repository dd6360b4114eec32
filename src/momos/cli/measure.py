"""`momos measure`: how complex the weights of networks are, side by side."""

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import momos
from momos.cli.outcome import told
from momos.cli.progress import bars
from momos.cli.terminal import console, write
from momos.escaping import csv_cell, visible


def measure(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="NETWORK …",
            help="Checkpoints (.safetensors, a folder, .pt) or .momos files.",
        ),
    ],
    init: Annotated[
        Path | None,
        typer.Option(
            help="The same network before training: splits what training changed."
        ),
    ] = None,
    measures: Annotated[
        str,
        typer.Option(
            help="default, paper (arXiv 2602.14896), qubd (2605.15551), compressors, or names "
            "of measures, separated by ';'."
        ),
    ] = "default",
    shuffles: Annotated[
        int, typer.Option(min=0, help="Shuffles that each measure is compared with.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the shuffles.")] = 0,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="Rows for each tensor too.")
    ] = False,
    hidden_width: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Units of a hidden layer: adds what their order is worth."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated rows.")
    ] = False,
) -> None:
    """Measure how complex weights are: codes in bits, scores that are none, controls beside."""
    found = {}
    with told(), bars() as progress:
        if as_json and as_csv:
            raise ValueError("one of --json and --csv can be given, got both")
        for path in paths:
            found[str(path)] = momos.measure(
                path,
                measures=tuple(name.strip() for name in measures.split(";")),
                controls=shuffles,
                init=init,
                generator=torch.Generator().manual_seed(seed),
                per_tensor=per_tensor,
                hidden_widths=tuple(hidden_width or ()),
                progress=progress,
            )
    with told():
        if as_json:
            values = {path: measurement.to_dict() for path, measurement in found.items()}
            write(json.dumps(values, indent=2) + "\n")
        elif as_csv:
            write(_csv(found))
        else:
            _show(found, console())


def _csv(found: dict[str, momos.Measurement]) -> str:
    rows = [
        {"network": path} | row
        for path, measurement in found.items()
        for row in measurement.to_dict()["rows"]
    ]
    rows = [
        {k: visible(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({name: csv_cell(cell) for name, cell in row.items()} for row in rows)
    return text.getvalue()


def _show(found: dict[str, momos.Measurement], out: Console) -> None:
    """Tables, without markup: names may hold brackets."""
    for path, measurement in found.items():
        out.print(visible(path), soft_wrap=True, style="bold")
        out.print(_table(measurement))
        for row in measurement.rows:
            if row.unavailable:
                where = visible(f"{row.tensor}: {row.name}" if row.tensor else row.name)
                note = f"not available: {where}: {row.unavailable}"
                out.print(visible(note), soft_wrap=True)
        if measurement.left_out:
            counts = Counter(measurement.left_out.values())
            left = ", ".join(f"{count} tensors ({why})" for why, count in counts.items())
            out.print(f"not measured: {left}", style="dim")
    if len(found) > 1:
        out.print("side by side: bits/weight of codes, values of scores", style="bold")
        out.print(_side_by_side(found))
    rows = [row for measurement in found.values() for row in measurement.rows]
    for row in {row.name: row for row in rows if not row.tensor}.values():
        text = f"{row.name} [{row.kind}; {row.view}]: {row.about}"
        out.print(visible(text), style="dim", soft_wrap=True)


def _table(measurement: momos.Measurement) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("measure", overflow="fold")
    table.add_column("kind")
    split = any(row.factors for row in measurement.rows)
    names = ("value", "bits/weight", "of shuffled", "z")
    for name in (*names, *(("of init", "arrangement", "values") if split else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for row in measurement.rows:
        table.add_row(*map(Text, map(visible, _cells(row, split))))
    return table


def _side_by_side(found: dict[str, momos.Measurement]) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("measure", overflow="fold")
    for path in found:
        table.add_column(Text(visible(path)), justify="right", overflow="fold")
    names = {row.name: None for one in found.values() for row in one.rows if not row.tensor}
    for name in names:
        cells = [name]
        for measurement in found.values():
            rows = [r for r in measurement.rows if r.name == name and not r.tensor]
            cells.append(_amount(rows[0]) if rows else "")
        table.add_row(*map(Text, map(visible, cells)))
    return table


def _amount(row: momos.Row) -> str:
    if row.value is None:
        return "–"
    if row.bits_per_weight is not None:
        return f"{row.bits_per_weight:.4f}"
    return f"{row.value:.4f}" if row.unit == "ratio" else f"{row.value:,.0f}"


def _cells(row: momos.Row, split: bool) -> list[str]:
    name = visible(f"{row.tensor}: {row.name}" if row.tensor else row.name)
    if row.value is None:
        return [name, row.kind, "–"]
    per_weight = row.bits_per_weight
    cells = [
        name,
        row.kind if row.unit != "ratio" else "ratio",
        f"{row.value:,.0f}" if row.unit != "ratio" else f"{row.value:.4f}",
        "" if per_weight is None else f"{per_weight:.4f}",
    ]
    if row.control is None:
        cells += ["" if row.ordered else "the same", ""]
    else:
        cells += [f"{row.value / row.control.mean:.2%}", f"{row.control.z:+.1f}"]
    if split and row.factors is not None:
        factors = row.factors
        values = (factors.ratio, factors.arrangement, factors.value_distribution)
        cells += [f"{value:.2%}" for value in values]
    return cells
