"""`momos measure`: complexity of the weights of networks, side by side."""

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

import momos
from momos._util.escaping import csv_cell, visible
from momos.cli.tables import Column, print_rows
from momos.cli.terminal import bars, console, reported, write

UNAVAILABLE = "–"
MOST_PATH = 30  # of a path above a column, on a terminal


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
            help="default, paper (arXiv 2602.14896), qubd (2605.15551), compressors, split, or "
            "names of measures, separated by ';'."
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
    key: Annotated[
        str, typer.Option(help="Which state dict of torch files, as ema, to measure.")
    ] = "",
    init_key: Annotated[str, typer.Option(help="Which state dict of --init.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated rows.")
    ] = False,
) -> None:
    """Measure how complex weights are: code lengths in bits, scores, and controls.

    --json has for each NETWORK its rows and left_out, --csv the rows: tensor
    (empty for the whole network), name, kind, view, unit, about, num_weights,
    raw_bits, value, bits_per_weight, unavailable, ordered, shuffled_mean,
    shuffled_deviation, shuffled_z, shuffled_repeats, and of --init init_value,
    ratio, arrangement and value_distribution.
    """
    found = {}
    with reported(), bars() as progress:
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
                key=key,
                init_key=init_key,
                progress=progress,
            )
    with reported():
        if as_json:
            values = {path: measurement.to_dict() for path, measurement in found.items()}
            write(json.dumps(values, indent=2) + "\n")
        elif as_csv:
            write(_csv(found))
        else:
            show_measurements(found, console())


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


def show_measurements(found: dict[str, momos.Measurement], out: Console) -> None:
    """Tables, without markup: names may hold brackets."""
    for path, measurement in found.items():
        out.print(visible(path), soft_wrap=True, style="bold")
        _show_rows(measurement, out)
        for row in measurement.rows:
            if row.unavailable:
                where = f"{row.tensor}: {row.name}" if row.tensor else row.name
                note = f"not available: {where}: {row.unavailable}"
                out.print(visible(note), soft_wrap=True)
        if measurement.left_out:
            counts = Counter(measurement.left_out.values())
            left = ", ".join(
                f"{count} tensor{'s' * (count != 1)} ({why})"
                for why, count in counts.items()
            )
            out.print(visible(f"not measured: {left}"), style="dim", soft_wrap=True)
    if len(found) > 1:
        out.print("side by side: bits/weight of codes, values of scores", style="bold")
        _show_side_by_side(found, out)
    rows = [row for measurement in found.values() for row in measurement.rows]
    for row in {row.name: row for row in rows if not row.tensor}.values():
        text = f"{row.name} [{row.kind}; {row.view}]: {row.about}"
        out.print(visible(text), style="dim", soft_wrap=not out.is_terminal)


def _show_rows(measurement: momos.Measurement, out: Console) -> None:
    split = any(row.factors for row in measurement.rows)
    names = ("value", "bits/weight", "of shuffled", "z")
    names += ("of init", "arrangement", "values") if split else ()
    columns = [Column("measure"), Column("kind")]
    columns += [Column(name, number=True, opens=name == "of init") for name in names]
    rows = [_cells(row) for row in measurement.rows]
    print_rows(out, columns, [row[: len(columns)] for row in rows])


def _show_side_by_side(found: dict[str, momos.Measurement], out: Console) -> None:
    columns = [Column("measure")]
    columns += [Column(path, number=True, most=MOST_PATH) for path in found]
    names = {row.name: None for one in found.values() for row in one.rows if not row.tensor}
    cells = []
    for name in names:
        cells.append([name])
        for measurement in found.values():
            rows = [r for r in measurement.rows if r.name == name and not r.tensor]
            cells[-1].append(_amount(rows[0]) if rows else "")
    print_rows(out, columns, cells)


def _amount(row: momos.Row) -> str:
    if row.value is None:
        return UNAVAILABLE
    if row.bits_per_weight is not None:
        return f"{row.bits_per_weight:.4f}"
    return f"{row.value:.4f}" if row.unit == "ratio" else f"{row.value:,.0f}"


def _cells(row: momos.Row) -> list[str]:
    """The cells of a row of the widest table."""
    name = f"{row.tensor}: {row.name}" if row.tensor else row.name
    if row.value is None:
        return [name, row.kind, UNAVAILABLE, *("" for _ in range(6))]
    per_weight = row.bits_per_weight
    cells = [
        name,
        row.kind if row.unit != "ratio" else "ratio",
        f"{row.value:,.0f}" if row.unit != "ratio" else f"{row.value:.4f}",
        "" if per_weight is None else f"{per_weight:.4f}",
    ]
    if row.control is None:
        cells += ["" if row.ordered else "same", ""]
    else:
        cells += [f"{row.value / row.control.mean:.2%}", f"{row.control.z:+.1f}"]
    if row.factors is None:
        return [*cells, "", "", ""]
    factors = row.factors
    values = (factors.ratio, factors.arrangement, factors.value_distribution)
    return cells + [f"{value:.2%}" for value in values]
