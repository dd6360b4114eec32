"""Checks what the files of a run folder say, which strangers may have written.

Whatever passes can be tabulated, averaged and drawn: values have the types that reports rely on,
numbers can be divided and squared without overflow, and text can be stored as UTF-8.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DEEPEST = 64  # objects and arrays in one another: cells that start from others are
LONGEST = 4096  # characters of one text
MOST, LEAST = 1e100, 1e-100  # of the magnitude of a number other than 0
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes them


@dataclass(frozen=True)
class Kind:
    """Values for which `holds`, in `words`."""

    words: str
    holds: Callable[[Any], bool]

    def __or__(self, other: "Kind") -> "Kind":
        return Kind(
            f"{self.words} or {other.words}",
            lambda value: self.holds(value) or other.holds(value),
        )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


NOTHING = Kind("null", lambda value: value is None)
NUMBER = Kind("a number", _is_number)
FINITE = Kind("a finite number", lambda v: _is_number(v) and math.isfinite(v))
AMOUNT = Kind("a number of at least 0", lambda v: FINITE.holds(v) and v >= 0)
POSITIVE = Kind("a number above 0", lambda v: FINITE.holds(v) and v > 0)
COUNT = Kind("a whole number of at least 0", lambda v: type(v) is int and v >= 0)
SIZE = Kind("a whole number of at least 1", lambda v: type(v) is int and v >= 1)
FACT = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("text", lambda value: isinstance(value, str))
NAME = Kind("text that is not empty", lambda value: isinstance(value, str) and bool(value))
FILE = Kind(
    "the name of a file in the run folder",
    lambda v: NAME.holds(v) and v not in (".", "..") and not set(v) & set("/\\:\0"),
)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
ARRAY = Kind("an array", lambda value: isinstance(value, list))
USAGE = Kind(
    "an array of numbers of blocks",
    lambda v: ARRAY.holds(v) and all(map(AMOUNT.holds, v)) and (sum(v) > 0 or not v),
)

RESULT = {
    "metric_name": NAME,
    "metric": NUMBER,
    "higher_is_better": FACT,
    "num_weights": SIZE,
    "file": FILE,
    "lengths": OBJECT,
    "measures": ARRAY,
    "seconds": AMOUNT,
}
RESULT_OPTIONS = {
    "motifs_used": COUNT | NOTHING,
    "validation": NUMBER | NOTHING,
    "kept_epoch": COUNT | NOTHING,
    "stopped_epoch": COUNT | NOTHING,
}
LENGTHS = {"dense": POSITIVE, "file": POSITIVE}
LENGTHS_OPTIONS = {"bound": POSITIVE, "entropy": POSITIVE}
ROW = {
    "name": NAME,
    "kind": Kind("code or score", lambda value: value in ("code", "score")),
    "unit": TEXT,
    "tensor": TEXT,
    "value": NUMBER | NOTHING,
}
NUMBERS = (
    *("bits_per_weight", "shuffled_mean", "shuffled_deviation", "shuffled_z"),
    *("shuffled_repeats", "init_value", "arrangement", "value_distribution", "ratio"),
)
ROW_OPTIONS = {
    **dict.fromkeys(("unavailable", "view", "about"), TEXT),
    "num_weights": COUNT,
    "raw_bits": COUNT,
    "ordered": FACT,
    **dict.fromkeys(NUMBERS, NUMBER | NOTHING),
}
LINE = {"epoch": COUNT, "metric": NUMBER}
LINE_OPTIONS = {
    "train_loss": NUMBER | NOTHING,
    "validation": NUMBER,
    "measures": OBJECT,
    "usage": USAGE,
}
DESCRIBED = {"format": SIZE, "cell": OBJECT, "recipe": TEXT, "environment": OBJECT}
ENVIRONMENT = {
    "commit": TEXT,
    "when": TEXT,
    "versions": OBJECT,
    "machine": OBJECT,
}
SETTINGS = {
    "block_size": SIZE,
    "num_motifs": SIZE,
    "capacity": POSITIVE,
}  # reports plot these


def parsed(text: str) -> Any:
    """The value of a JSON text, whose numbers, texts and depth are bounded.

    Raises:
        ValueError: if it is no JSON, or beyond the bounds; what is wrong with the file.
    """
    try:
        value = json.loads(text)
    except ValueError as error:  # also a whole number of thousands of digits
        raise ValueError(f"is no JSON ({error})") from error
    except RecursionError:
        raise ValueError(f"must nest at most {DEEPEST} deep, got more") from None
    _check_bounds(value)
    if SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("must be Unicode text, but has a lone surrogate") from None
    return value


def check_result(result: Mapping[str, Any]) -> None:
    """Raises ValueError if `result.json` does not hold a result."""
    _check(result, RESULT, RESULT_OPTIONS)
    _check(result["lengths"], LENGTHS, LENGTHS_OPTIONS, "lengths")
    for number, row in enumerate(result["measures"]):
        place = f"measures[{number}]"
        if not isinstance(row, dict):
            raise ValueError(f"{place} must be an object, got {_shown(row)}")
        _check(row, ROW, ROW_OPTIONS, place)


def check_line(line: Mapping[str, Any]) -> None:
    """Raises ValueError if this is no line of a history."""
    _check(line, LINE, LINE_OPTIONS)
    for name, row in line.get("measures", {}).items():
        place = f"measures.{name}"
        if not isinstance(row, dict):
            raise ValueError(f"{place} must be an object, got {_shown(row)}")
        _check(row, {}, dict.fromkeys(("value", *NUMBERS), NUMBER | NOTHING), place)


def check_described(described: Mapping[str, Any], version: int) -> None:
    """Raises ValueError if `cell.json` describes no run in this version of the format."""
    _check(described, {"format": SIZE}, {})
    if described["format"] != version:
        raise ValueError(f"its format must be {version}, got {described['format']}")
    _check(described, DESCRIBED, {})
    _check(described["environment"], {}, ENVIRONMENT, "environment")
    settings = described["cell"].get("settings", {})
    if isinstance(settings, dict):  # else the cell says so
        _check(settings, {}, SETTINGS, "settings")


def _check(
    values: Mapping[str, Any],
    needed: Mapping[str, Kind],
    options: Mapping[str, Kind],
    place: str = "",
) -> None:
    for name, kind in {**needed, **options}.items():
        if name not in values:
            if name in needed:
                raise ValueError(f"it lacks {name!r}{place and f' in {place}'}")
        elif not kind.holds(values[name]):
            where = f"{place}.{name}" if place else name
            raise ValueError(f"{where} must be {kind.words}, got {_shown(values[name])}")


def _check_bounds(value: Any) -> None:
    """Bounds of every value inside; a long array of whole numbers is checked at once."""
    left = [(value, 1)]
    while left:
        each, depth = left.pop()
        if isinstance(each, str):
            _check_text(each)
        elif _is_number(each):
            _check_number(each)
        elif isinstance(each, dict | list):
            if depth > DEEPEST:
                raise ValueError(f"must nest at most {DEEPEST} deep, got more")
            inner = each if isinstance(each, list) else [*each, *each.values()]
            if inner and set(map(type, inner)) == {int}:
                inner = [min(inner), max(inner)]
            left += [(one, depth + 1) for one in inner]


def _check_text(text: str) -> None:
    if len(text) > LONGEST:
        raise ValueError(
            f"must have texts of at most {LONGEST} characters, got {len(text)}"
        )


def _check_number(number: float) -> None:
    if isinstance(number, float) and not math.isfinite(number):
        return
    if number and not LEAST <= abs(number) <= MOST:
        size = "more" if abs(number) > MOST else "less"
        raise ValueError(f"must have numbers of 0, or {LEAST:g} to {MOST:g}, got {size}")


def _shown(value: Any) -> str:
    """A value in a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
