"""Tables as text, for people on a terminal and for programs in a pipe; and a file as tables.

On a terminal tables fit its width: long names are shortened in the middle, the least important
columns are left out, and columns that still do not fit continue in another table. A pipe gets every
column and every name in full: one line per row, two spaces between cells, no empty cell, and no
thousands separators, so that `awk -F '  +'` finds the fields.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from momos import CompressionReport, SaveReport, TensorReport, Trial
from momos._util.escaping import visible
from momos.cli.terminal import writable
from momos.lengths import DescriptionLength

GAP = "  "
PART = re.compile(r"[^./]*[./]|[^./]+")  # a part of a tensor's name
NOTHING = "-"  # a cell without a value, in a pipe
LEAST_NAME = 24  # columns of a terminal that a name keeps while others can be left out
LARGE_ERROR = 0.05  # relative errors above this are pointed out
MOST_NAMES = 3  # listed in one sentence
LONG_NAME = 40  # of a tensor, in words on a terminal

if TYPE_CHECKING:
    from momos.study.analysis.comparison import Compared, Comparison
    from momos.study.report.listings import Table


@dataclass(frozen=True)
class Column:
    """A column. Numbers are right-aligned; on a terminal the highest `rank` is left out first.

    Columns of rank 0 are never left out. Cells are shortened to `most` on a terminal. Columns that
    do not fit side by side continue in another table, preferably from one that `opens` it.
    """

    title: str
    number: bool = False
    rank: int = 0
    most: int = 1000
    opens: bool = False


def print_rows(
    console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]]
) -> None:
    """Prints `rows` under the titles of `columns`; the first column names the row."""
    cells = [[column.title for column in columns], *rows]
    cells = [[writable(visible(cell), console.encoding) for cell in row] for row in cells]
    if console.is_terminal:
        _for_eyes(console, columns, cells)
    else:
        _for_programs(console, columns, cells)


def shortened_names(names: Sequence[str], width: int, mark: str = "…") -> list[str]:
    """`names` in at most `width` cells each, still distinct where possible.

    Names are cut in the middle. If that makes some equal, the parts that these have in common are
    removed first, from the left, except for the last part.
    """
    alike: dict[str, set[str]] = {}
    for name in names:
        alike.setdefault(shortened(name, width, mark), set()).add(name)
    cut = {}
    for short, same in alike.items():
        parts = {name: PART.findall(name) for name in same}
        common = set.intersection(*map(set, parts.values()))
        for name, own in parts.items():
            cut[name] = short if len(same) == 1 else _without(own, common, width, mark)
    return [cut[name] for name in names]


def _without(parts: list[str], common: set[str], width: int, mark: str) -> str:
    """A name without its first `common` parts, as few as make it fit, or all of them."""
    text, gone = "".join(parts), set()
    for at, part in enumerate(parts[:-1]):
        if cell_len(text) <= width:
            break
        if part in common:
            gone.add(at)
            runs = (mark if n in gone else one for n, one in enumerate(parts))
            text = "".join(runs)
            while mark * 2 in text:
                text = text.replace(mark * 2, mark)
    return shortened(text, width, mark)


def shortened(text: str, width: int, mark: str = "…") -> str:
    """`text` in at most `width` cells of a terminal, its middle replaced by `mark`."""
    if cell_len(text) <= width:
        return text
    kept = max(0, width - len(mark))
    head = set_cell_size(text, kept - kept // 2)
    tail = set_cell_size(text[::-1], kept // 2)[::-1]
    return f"{head}{mark}{tail}"[: max(width, 0)]


def _for_programs(
    console: Console, columns: Sequence[Column], cells: list[list[str]]
) -> None:
    whole = [cells[0]]
    for row in cells[1:]:
        plain = (
            c.replace(",", "") if column.number else c
            for column, c in zip(columns, row, strict=True)
        )
        whole.append([cell or NOTHING for cell in plain])
    _print(console, columns, whole, range(len(columns)))


def _for_eyes(console: Console, columns: Sequence[Column], cells: list[list[str]]) -> None:
    mark = "…" if console.encoding.startswith("utf") else "~"
    cells = [
        [shortened(cell, c.most, mark) for c, cell in zip(columns, row, strict=True)]
        for row in cells
    ]
    widths = [max(cell_len(row[at]) for row in cells) for at in range(len(columns))]
    least = min(widths[0], LEAST_NAME, max(8, console.width // 3))
    for number, part in enumerate(_tables(columns, widths, console.width - least)):
        if number:
            console.print()
        room = console.width - sum(len(GAP) + widths[at] for at in part)
        names = shortened_names([row[0] for row in cells], max(room, least), mark)
        own = [[name, *row[1:]] for name, row in zip(names, cells, strict=True)]
        _print(console, columns, own, (0, *part))


def _tables(columns: Sequence[Column], widths: list[int], room: int) -> list[list[int]]:
    """The columns of each table besides the first column, so that each fits into `room`."""
    kept = list(range(1, len(columns)))
    while sum(len(GAP) + widths[at] for at in kept) > room:
        least = max(kept, key=lambda at: columns[at].rank)
        if not columns[least].rank:
            break
        kept.remove(least)
    together = sum(len(GAP) + widths[at] for at in kept) <= room
    parts, left = [[]], room
    for at in kept:
        left -= len(GAP) + widths[at]
        if parts[-1] and (left < 0 or (columns[at].opens and not together)):
            parts.append([])
            left = room - len(GAP) - widths[at]
        parts[-1].append(at)
    return parts


def _print(
    console: Console,
    columns: Sequence[Column],
    cells: list[list[str]],
    shown: Sequence[int],
) -> None:
    widths = {at: max(cell_len(row[at]) for row in cells) for at in shown}
    for number, row in enumerate(cells):
        aligned = []
        for at in shown:
            space = " " * (widths[at] - cell_len(row[at]))
            aligned.append(space + row[at] if columns[at].number else row[at] + space)
        line = Text(GAP.join(aligned).rstrip(), style="" if number else "bold")
        console.print(line, soft_wrap=True)


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
    """Prints the tensors, without empty columns."""
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
    """A percentage with at least three digits and no exponent."""
    return f"{share:.2%}" if share >= 0.0001 or not share else f"{100 * share:.2g}%"


def _words(report: SaveReport, console: Console) -> Iterator[str]:
    """The rows in sentences: why tensors are dense, and how far blocks are from the weights."""

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


def of_study(table: "Table") -> RichTable:
    """A table of the study, its caption below."""
    shown = RichTable(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns:
        title = Text("\n".join(map(visible, column.split("\n"))))
        justify = "right" if column in table.numeric else "left"
        shown.add_column(title, justify=justify, overflow="fold")
    for place, row in enumerate(table.rows):
        style = "bold" if place in table.strong else ""
        shown.add_row(*(Text(visible(entry.text), style=style) for entry in row))
    lines = map(visible, table.caption.splitlines())
    shown.caption = Text("\n".join(lines)) if table.caption else None
    shown.caption_justify = "left"
    return shown


def table_of_comparison(comparison: "Comparison") -> "Table":
    """What differs beyond chance stands out, and says so."""
    from momos.study.analysis.metric import plural
    from momos.study.report.listings import Table, words

    numbers = (*comparison.labels, "first to second", "95 % interval", "n", "differ")
    notes = [
        f"{task}: left out, as only one has them: {plural(len(seeds), 'seed')} "
        f"{', '.join(map(str, seeds))}"
        for task, seeds in comparison.lone.items()
    ]
    notes += [
        f"{r.task}, {r.name}: {r.unavailable}" for r in comparison.rows if r.unavailable
    ]
    return Table(
        name="comparison",
        title="",
        caption="\n".join(notes),
        columns=("task", "of", *numbers),
        numeric=frozenset(numbers),
        rows=[tuple(words(row.task, row.name, *_compared(row))) for row in comparison.rows],
        strong=frozenset(n for n, row in enumerate(comparison.rows) if row.decided),
    )


def _compared(row: "Compared") -> tuple[str, ...]:
    """Both means, how one is to the other, the interval, and whether that is beyond chance."""
    from momos.study.analysis.metric import factor_text, number
    from momos.study.report.listings import NONE

    found = row.found
    if found is None or row.first is None or row.second is None:
        return (NONE,) * 6
    if row.is_ratio:
        texts = [f"{v:,.0f}" if v >= 1000 else f"{v:.5g}" for v in (row.first, row.second)]
        mean = f"× {factor_text(found.mean)}"
        ends = f"{factor_text(found.low)} to {factor_text(found.high)}"
    else:
        texts = [number(value, 3) for value in (row.first, row.second)]
        mean = f"{number(found.mean, 2, sign=True)} {row.unit}"
        ends = f"{number(found.low, 2, sign=True)} to {number(found.high, 2, sign=True)}"
    if found.n == 1:
        return (*texts, mean, NONE, "1", NONE)
    return (*texts, mean, ends, str(found.n), "yes" if row.decided else "no")
