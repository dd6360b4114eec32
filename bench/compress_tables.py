"""The tables of compress.py: every row, then methods at equal quality and at equal size."""

from collections.abc import Callable, Sequence

from compress_fits import bytes_at, bytes_for, value_at
from compress_networks import Subject
from compress_rows import Row
from measure import table

DENSE, REFERENCE = "dense", "NNCodec"
COMPARED = ("momos", "int + xz")
DIVERGENCES = (0.001, 0.003, 0.01, 0.03)
LOSSES = (0.5, 1.0, 2.0)  # points of accuracy
CHANGES = (0.5, 1.0, 3.0)  # percent of decisions
FACTORS = (5, 6, 7, 8, 10, 12, 14, 16)
NONE = "–"


def print_rows(subject: Subject, rows: Sequence[Row]) -> None:
    inputs = f"{len(subject.inputs):,} inputs".replace(",", " ")
    print(f"### {subject.name}, {inputs}\n")
    header = ["how", "bytes", "times smaller"]
    header += ["accuracy, %"] * (subject.labels is not None)
    cells = []
    for row in rows:
        size = f"{row.num_bytes:,}".replace(",", " ")
        line = [f"{row.method}, {row.setting}", size, f"{row.factor:.2f}"]
        line += [] if row.accuracy is None else [f"{row.accuracy:.2f}"]
        line += [f"{row.changed:.2f}", f"{row.divergence:.5f}", f"{row.seconds:.2f}"]
        cells.append(line)
    table([*header, "decisions changed, %", "KL", "seconds, one thread"], cells)
    print()


def print_summary(networks: Sequence[Sequence[Row]]) -> None:
    """Tables over all networks; ratios only where there are rows of NNCodec."""
    if any(row.method == REFERENCE for rows in networks for row in rows):
        _print_ratios(networks)
    print("### At equal size: accuracy, or % of decisions kept where there are no labels\n")
    cells = [
        [rows[0].network, method, *_by_size(_of(rows, method))]
        for rows in networks
        for method in _methods(rows)
    ]
    table(["network", "how", *(f"{factor}×" for factor in FACTORS)], cells)


def _print_ratios(networks: Sequence[Sequence[Row]]) -> None:
    print(f"### Bytes at equal divergence ÷ {REFERENCE}'s\n")
    print("± is the standard error of the fit (compress_fits.py); below 1 is smaller.\n")
    _equal_quality(networks, [(f"KL {v:g}", _by_divergence, v) for v in DIVERGENCES])
    print(f"### Bytes at equal decisions ÷ {REFERENCE}'s\n")
    print("By the share of decisions that differ from the dense network's.\n")
    _equal_quality(networks, [(f"{v:g} % changed", _by_changes, v) for v in CHANGES])
    labelled = [rows for rows in networks if rows[0].accuracy is not None]
    if labelled:
        print(f"### Bytes at equal accuracy ÷ {REFERENCE}'s\n")
        print("Points lost of the dense network's; no fit, so chance is in it.\n")
        wanted = [(f"{v:g} points lost", _by_accuracy, v) for v in LOSSES]
        _equal_quality(labelled, wanted)


# Of a network's rows, a method and a quality: the bytes, and their relative error if it is known.
Measure = Callable[[Sequence[Row], str, float], tuple[float, float | None] | None]


def _equal_quality(
    networks: Sequence[Sequence[Row]], wanted: Sequence[tuple[str, Measure, float]]
) -> None:
    cells = []
    for rows in networks:
        for method in _methods(rows):
            if method not in COMPARED:
                continue
            line = [rows[0].network, method]
            for _, measure, value in wanted:
                own = measure(rows, method, value)
                line.append(_ratio(own, measure(rows, REFERENCE, value)))
            cells.append(line)
    table(["network", "how", *(title for title, _, _ in wanted)], cells)
    print()


def _ratio(
    own: tuple[float, float | None] | None, other: tuple[float, float | None] | None
) -> str:
    if own is None or other is None:
        return NONE
    ratio = f"{own[0] / other[0]:.3f}"
    if own[1] is None or other[1] is None:
        return ratio
    return f"{ratio} ± {own[0] / other[0] * (own[1] ** 2 + other[1] ** 2) ** 0.5:.3f}"


def _by_divergence(
    rows: Sequence[Row], method: str, value: float
) -> tuple[float, float] | None:
    own = _of(rows, method)
    return bytes_at([r.num_bytes for r in own], [r.divergence for r in own], value)


def _by_changes(
    rows: Sequence[Row], method: str, value: float
) -> tuple[float, float] | None:
    own = _of(rows, method)
    return bytes_at([r.num_bytes for r in own], [r.changed for r in own], value)


def _by_accuracy(
    rows: Sequence[Row], method: str, lost: float
) -> tuple[float, None] | None:
    own, wanted = _of(rows, method), _kept(_of(rows, DENSE)[0]) - lost
    found = bytes_for([r.num_bytes for r in own], [_kept(r) for r in own], wanted)
    return None if found is None else (found, None)


def _by_size(rows: Sequence[Row]) -> list[str]:
    dense = rows[0].dense_bytes
    pairs = [row.num_bytes for row in rows], [_kept(row) for row in rows]
    found = [value_at(*pairs, dense / factor) for factor in FACTORS]
    return [NONE if value is None else f"{value:.2f}" for value in found]


def _kept(row: Row) -> float:
    return 100 - row.changed if row.accuracy is None else row.accuracy


def _methods(rows: Sequence[Row]) -> list[str]:
    return [m for m in dict.fromkeys(row.method for row in rows) if m != DENSE]


def _of(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row.method == method]
