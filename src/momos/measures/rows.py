"""What measuring gives: a table of rows, each with its kind, its unit and its controls."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from momos.complexity import Control, Factors


@dataclass(frozen=True)
class Row:
    """One measure of some weights.

    A `code` is a number of bits that somebody could decode the view from; a `score` is a number
    that is none. `control` is the measure of the weights' own shuffles, None where their order
    does not matter or none were asked for; `init_value` the measure of the initialization, and
    `factors` how both explain the value. `unavailable` says why there is no value, or none of
    the initialization. `num_weights` and `raw_bits` are of the weights that the measure is of:
    QuBD has no score of vectors and small matrices.
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
    """The rows of one network, and the tensors that were not measured, and why."""

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
        """All of it as JSON can hold it."""
        return {"rows": [_flat(row) for row in self.rows], "left_out": self.left_out}

    def to_pandas(self) -> Any:
        """One line a row, as a pandas DataFrame.

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
    """JSON has no infinities; a z-score may be one."""
    return number if number is None or math.isfinite(number) else None
