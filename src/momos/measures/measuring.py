"""Measures weights: one pass over the tensors and their shuffles, and a table of rows as the result."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from momos._util.work import Progress, in_parallel, quiet
from momos.complexity import Control, Factors, factors, symmetry_slack
from momos.complexity.codes import two_part_of
from momos.lengths import description_length, scales_length
from momos.measures.accumulators import QubdPlanes, View
from momos.measures.inputs import Inputs, Measurable
from momos.measures.instruments import Instrument, choose


@dataclass(frozen=True)
class Row:
    """One measure of some weights.

    A `code` is a code length (an upper bound, in bits); a `score` is a number that is not in bits. `control` is the measure of shuffles of the weights, None if their order does not matter or
    none were requested; `init_value` the measure of the initialization, and
    `factors` how both explain the value. `unavailable` says why there is no value, or none of
    the initialization. `num_weights` and `raw_bits` are of the weights that the measure is of:
    QuBD has no score of vectors and small matrices.

    Example:
        >>> measurement = momos.measure(torch.randn(64, 64), measures="signs, order 4", controls=3)
        >>> row = measurement.rows[0]
        >>> row.kind, row.unit, row.control.repeats
        ('code', 'bits', 3)
    """

    name: str
    kind: Literal["code", "score"]
    view: str
    unit: Literal["bits", "score", "ratio"]
    about: str
    num_weights: int
    raw_bits: int
    value: float | None = None
    unavailable: str = ""
    ordered: bool = True
    control: Control | None = None
    init_value: float | None = None
    factors: Factors | None = None
    tensor: str = ""

    @property
    def bits_per_weight(self) -> float | None:
        """For a code, its bits over the weights that it describes."""
        if self.kind != "code" or self.value is None or not self.num_weights:
            return None
        return self.value / self.num_weights


@dataclass(frozen=True)
class Measurement:
    """The rows of one network, and the tensors that were not measured, with reasons.

    Example:
        >>> measurement = momos.measure(nn.Linear(64, 64), measures="signs", controls=2)
        >>> [row.name for row in measurement.rows]
        ['signs']
        >>> measurement.rows[0].value > 0
        True
    """

    rows: tuple[Row, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Row:
        """The row of that name for the whole network.

        Raises:
            KeyError: if there is none.
        """
        for row in self.rows:
            if row.name == name and not row.tensor:
                return row
        raise KeyError(f"rows are {', '.join(row.name for row in self.rows)}, got {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """The measurement as JSON-compatible values."""
        return {"rows": [_flat(row) for row in self.rows], "left_out": self.left_out}

    def to_pandas(self) -> Any:
        """A pandas DataFrame with one line for each row.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas  # pyright: ignore[reportMissingImports], optional
        except ModuleNotFoundError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        return pandas.DataFrame([_flat(row) for row in self.rows])


def _flat(row: Row) -> dict[str, Any]:
    value: dict[str, Any] = asdict(row) | {"bits_per_weight": row.bits_per_weight}
    control = value.pop("control") or {}
    factors = value.pop("factors") or {}
    for name in ("mean", "deviation", "z", "repeats"):
        value[f"shuffled_{name}"] = _finite(control.get(name))
    for name in ("arrangement", "value_distribution", "ratio"):
        value[name] = factors.get(name)
    return value


def _finite(number: float | None) -> float | None:
    """None for infinities, which JSON cannot hold and z-scores may be."""
    return number if number is None or math.isfinite(number) else None


def measure(
    x: Measurable,
    *,
    measures: str | tuple[str, ...] = "default",
    controls: int = 10,
    init: Measurable | None = None,
    generator: torch.Generator | None = None,
    per_tensor: bool = False,
    hidden_widths: Sequence[int] = (),
    key: str = "",
    init_key: str = "",
    progress: Progress = quiet,
) -> Measurement:
    """Complexity of the weights of `x`: code lengths (bits), scores (not bits), and their controls.

    `x` is a module, state dict, tensor, mosaic, or the path of a checkpoint or .momos file;
    `measures` names sets ("default", "paper" for arXiv 2602.14896, "qubd" for 2605.15551) or
    single measures. Each measure that depends on order is repeated on `controls` shuffles
    within each tensor. With `init`, the same network before training, each value is split into
    arrangement and value distribution. The lengths of a mosaic come first. Of a sharded model
    every rank calls this, holds one whole tensor at a time, and returns the same. `per_tensor` adds the
    rows of each tensor; `hidden_widths` the bits that any code of the weights spends on the
    order of hidden units, which does not matter. `key` chooses one of several state dicts in a
    torch file, such as "ema", and `init_key` one in that of `init`. Without a `generator` shuffles are those of seed 0.

    Raises:
        TypeError: if `x` is not a network, or `controls` not an int.
        ValueError: if a weight is not finite (names the tensor), nothing can be measured, a
            measure is unknown, or `controls` is 1 or negative.
        FormatError: if a file is damaged.
        OSError: if a file cannot be read.

    Example:
        >>> start = nn.Linear(64, 64)
        >>> trained = nn.Linear(64, 64)  # stands for the network after training
        >>> measurement = momos.measure(trained, init=start, measures=("signs", "4-bit codes"))
        >>> for row in measurement.rows:
        ...     print(row.name, row.kind, 0.9 < row.factors.ratio < 1.1)
        signs code True
        4-bit codes code True
    """
    if isinstance(controls, bool) or not isinstance(controls, int):
        raise TypeError(f"controls must be an int, got {controls!r}")
    if controls < 0 or controls == 1:
        raise ValueError(f"controls must be 0, or at least 2 shuffles, got {controls}")
    instruments = choose(measures)
    weights = Inputs.of(x, key)
    start = None if init is None else Inputs.of(init, init_key)
    if start is not None:
        _check_start(weights, start)
    generator = generator or torch.Generator().manual_seed(0)
    seeds = torch.randint(
        2**62,
        (max(1, controls), len(weights.tensors)),
        generator=generator,
        device=generator.device,
    )[:controls]
    names = list(weights.tensors)
    rows = _of_mosaic(weights) + _of_symmetry(weights, hidden_widths)
    rows += _rows(instruments, weights, start, names, seeds, "", progress)
    for number, name in enumerate(names if per_tensor else ()):
        own = seeds[:, number : number + 1]
        rows += _rows(instruments, weights, start, [name], own, name, progress)
    return Measurement(tuple(rows), weights.left_out)


def _check_start(weights: Inputs, start: Inputs) -> None:
    """Refuses an initialization of another network, saying where it differs."""
    if others := sorted(start.tensors.keys() ^ weights.tensors.keys()):
        raise ValueError(
            f"init must have the tensors of what is measured, got others or lacks some: "
            f"{', '.join(others)}"
        )
    for name, shape in weights.shapes.items():
        if start.shapes[name] != shape:
            raise ValueError(
                f"init must have the shapes of what is measured, got {start.shapes[name]} and "
                f"{shape} for tensor {name!r}"
            )


def _rows(
    instruments: tuple[Instrument, ...],
    weights: Inputs,
    start: Inputs | None,
    names: list[str],
    seeds: Tensor,
    tensor: str,
    progress: Progress,
) -> list[Row]:
    """The rows of the tensors `names`, taken together."""
    taken = _take(instruments, weights, names, seeds.tolist(), progress)
    initial = None
    if start is not None:
        try:
            initial = _take(instruments, start, names, [], progress)
        except ValueError as error:
            raise ValueError(f"init: {error}") from error
    rows = []
    for one in instruments:
        row = Row(
            name=one.name,
            kind=one.kind,
            view=one.view,
            unit=one.unit,
            about=one.about,
            num_weights=taken.num_weights,
            raw_bits=taken.raw_bits,
            ordered=one.ordered,
            tensor=tensor,
        )
        rows.append(_filled(row, one, taken, initial))
    return rows


def _filled(row: Row, one: Instrument, taken: "_Taken", initial: "_Taken | None") -> Row:
    """`row` with its value and controls, or with the reason why there is none."""
    try:
        value = taken.own[one.start].read(one.read)
    except (ValueError, ImportError) as error:
        return replace(row, unavailable=str(error))
    init_value = control = split = None
    if initial is not None:
        try:
            init_value = initial.own[one.start].read(one.read)
        except ValueError as error:
            row = replace(row, unavailable=f"init: {error}")
    if taken.shuffled and one.ordered:
        slots = [slots[one.start] for slots in taken.shuffled]
        control = Control.of(
            value, list(in_parallel(lambda slot: slot.read(one.read), slots))
        )
    middle = control.mean if control else value
    if init_value and middle and (control or not one.ordered):
        split = factors(value, shuffled_mean=middle, init_value=init_value)
    seen = taken.own[one.start].accumulator
    if isinstance(seen, QubdPlanes):  # which has no score of vectors and small matrices
        row = replace(row, num_weights=seen.num_weights, raw_bits=seen.raw_bits)
    return replace(row, value=value, control=control, init_value=init_value, factors=split)


class _Slot:
    """An accumulator, or the reason why it stopped."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self.accumulator = start()
        self.error: ValueError | ImportError | None = None

    def add(self, view: View) -> None:
        if self.error is None:
            try:
                self.accumulator.add(view)
            except ImportError as error:
                self.error = error
            except ValueError as error:
                self.error = ValueError(f"{error} (tensor {view.name!r})")

    def read(self, read: Callable[[Any], float]) -> float:
        if self.error is not None:
            raise self.error
        return read(self.accumulator)


Slots = dict[Callable[[], Any], _Slot]  # by what starts them


@dataclass
class _Taken:
    """Accumulators of the weights, and of each shuffle of them."""

    own: Slots
    shuffled: list[Slots]
    num_weights: int = 0
    raw_bits: int = 0


def _take(
    instruments: tuple[Instrument, ...],
    weights: Inputs,
    names: list[str],
    seeds: list[list[int]],
    progress: Progress,
) -> _Taken:
    """One pass over the tensors `names`; `seeds` has a row for each shuffle, one for each name."""

    def slots(ordered: bool) -> Slots:
        return {
            one.start: _Slot(one.start) for one in instruments if one.ordered or not ordered
        }

    taken = _Taken(slots(False), [slots(True) for _ in seeds])
    for number, name in enumerate(names):
        view = View(name, weights.tensors[name]())
        for slot in taken.own.values():
            slot.add(view)

        def shuffle(repeat: int, view: View = view, number: int = number) -> None:
            shuffled = view.shuffled(seeds[repeat][number])
            for slot in taken.shuffled[repeat].values():
                slot.add(shuffled)

        for _ in in_parallel(shuffle, range(len(seeds))):
            pass
        taken.num_weights += view.weight.numel()
        taken.raw_bits += 8 * view.weight.nbytes
        progress("measuring", number + 1, len(names))
    return taken


def _of_symmetry(weights: Inputs, hidden_widths: Sequence[int]) -> list[Row]:
    """Bits for the order of hidden units, if the widths of their layers are given."""
    if not hidden_widths:
        return []
    sizes = [prod(shape) for shape in weights.shapes.values()]
    return [
        Row(
            name="symmetry slack",
            kind="code",
            view="the order of hidden units",
            unit="bits",
            about="sum of log2(h!): what every code here spends on an order that no output sees",
            num_weights=sum(sizes),
            raw_bits=0,
            value=symmetry_slack(hidden_widths),
            ordered=False,
        )
    ]


def _of_mosaic(weights: Inputs) -> list[Row]:
    """The lengths of a mosaic: bound, entropy, two-part code, file."""
    mosaic = weights.mosaic
    if mosaic is None:
        return []
    lengths = description_length(mosaic)
    two_part = two_part_of(mosaic.motifs, mosaic.usage().cpu())
    found = [
        (
            "mosaic, bound",
            float(lengths.bound),
            "k·s·q + m·ceil(log2 k) (arXiv 2602.14896)",
        ),
        ("mosaic, entropy", lengths.entropy, "motifs, m·H(usage), and the table of usage"),
        (
            "mosaic, two-part",
            two_part.total + scales_length(mosaic),
            "used motifs, then indices, both KT",
        ),
    ]
    if weights.file is not None:
        about = "all of the file: names, dense tensors and checksums too"
        found.append(("mosaic, file", float(weights.file.bits), about))
    rows = [
        Row(
            name=name,
            kind="code",
            view="motifs and mosaic",
            unit="bits",
            about=about,
            num_weights=lengths.num_weights,
            raw_bits=lengths.dense,
            value=value,
            ordered=False,
        )
        for name, value, about in found
    ]
    if weights.file is not None:
        size, raw = weights.file.num_weights, weights.file.raw_bits
        rows[-1] = replace(rows[-1], view="the file", num_weights=size, raw_bits=raw)
    return rows
