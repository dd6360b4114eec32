"""Tables as text: for eyes on a terminal, for programs in a pipe.

A terminal gets what fits its width: long names are shortened in the middle, the columns that
matter least are left out, and what is still too wide continues in a further table. A pipe gets
every column and every name whole, one line a row, two spaces between cells, none empty, and
numbers without separators of thousands: `awk -F '  +'` finds its fields.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from momos._util.escaping import visible
from momos.cli.terminal import writable

GAP = "  "
PART = re.compile(r"[^./]*[./]|[^./]+")  # of a tensor's name
NOTHING = "-"  # a cell without a value, in a pipe
LEAST_NAME = 24  # columns of a terminal that a name keeps while others can be left out


@dataclass(frozen=True)
class Column:
    """A column: numbers are right-aligned; on a terminal those of the highest `rank` go first.

    Those of rank 0 are never left out. Cells are shortened to `most` on a terminal. Columns that
    do not fit beside each other go on in a further table, best from one that `opens` it.
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
    """`names` in at most `width` cells each, such that they still differ where that is possible.

    Their middle goes. Where that leaves equal ones, first goes what these have in common, from
    the left, except for the last part.
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
    """The parts of a name, without as few of the `common` ones as make it fit, or all of them."""
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
    for number, part in enumerate(_parts(columns, widths, console.width - least)):
        if number:
            console.print()
        room = console.width - sum(len(GAP) + widths[at] for at in part)
        names = shortened_names([row[0] for row in cells], max(room, least), mark)
        own = [[name, *row[1:]] for name, row in zip(names, cells, strict=True)]
        _print(console, columns, own, (0, *part))


def _parts(columns: Sequence[Column], widths: list[int], room: int) -> list[list[int]]:
    """Which columns but the first stand in each table, so that each fits into `room`."""
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
