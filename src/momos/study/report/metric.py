"""How a metric is written, and what a difference in it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """`unit` of values, `difference_unit` of differences, each with so many decimals.

    Differences are in the unit of values, or in per cent of the reference where `relative`.
    """

    label: str
    unit: str
    decimals: int
    difference_unit: str
    scale: float = 1
    higher_is_better: bool = True
    relative: bool = False

    def difference(self, value: float, reference: float) -> float:
        """How far a value is above the reference."""
        return 100 * (value / reference - 1) if self.relative else value - reference

    def gain(self, value: float, reference: float) -> float:
        """How much better than the reference a value is."""
        difference = self.difference(value, reference)
        return difference if self.higher_is_better else -difference

    def at_gain(self, gain: float, reference: float) -> float:
        """The value that is better than the reference by so much."""
        difference = gain if self.higher_is_better else -gain
        return (
            reference * (1 + difference / 100) if self.relative else reference + difference
        )

    def amount(self, difference: float) -> str:
        """A difference with its unit."""
        unit = self.difference_unit
        return (
            f"{difference:g} {unit[:-1] if unit == 'points' and difference == 1 else unit}"
        )

    def text(self, value: float) -> str:
        return number(value, self.decimals)


METRICS = {
    "accuracy": Metric("accuracy, %", " %", 2, "points", scale=100),
    "bits per character": Metric(
        "bits per character", "", 3, "%", higher_is_better=False, relative=True
    ),
}


def metric_of(name: str) -> Metric:
    """The metric of that name in a line.

    Raises:
        ValueError: if there is none.
    """
    if name not in METRICS:
        raise ValueError(f"metric_name must be one of {', '.join(METRICS)}, got {name!r}")
    return METRICS[name]


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """A number with a true minus sign; with a plus sign as well if wanted."""
    rounded = round(value, decimals) + 0.0  # no negative zero
    return f"{rounded:{'+' if sign else ''}.{decimals}f}".replace("-", "−")
