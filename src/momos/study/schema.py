"""Values that are checked when they are made: cells, recipes, and what run folders hold.

`value` declares a class whose fields are checked, `checked` reads one from JSON that strangers may
have written. Numbers that pass can be divided and squared without overflow, and text can be stored
as UTF-8.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache, wraps
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, PlainValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

DEEPEST = 64  # objects and arrays in one another: cells that start from others are
LONGEST = 4096  # characters of one text
MOST, LEAST = 1e100, 1e-100  # of the magnitude of a number other than 0
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes them
CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
T = TypeVar("T")


def kind(words: str, holds: Callable[[Any], bool]) -> PlainValidator:
    """Values for which `holds`, left as they are: 1 and 1.0 differ in the key of a cell."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(f"must be {words}")
        return value

    return PlainValidator(check)


def _is_finite(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _is_file_name(value: Any) -> bool:
    named = isinstance(value, str) and value not in ("", ".", "..")
    return named and not set(value) & set("/\\:\0")


def _is_usage(value: Any) -> bool:
    counts = isinstance(value, list) and all(_is_finite(v) and v >= 0 for v in value)
    return counts and (sum(value) > 0 or not value)


Number = Annotated[float, kind("a number", lambda v: type(v) in (int, float))]
Amount = Annotated[
    float, kind("a number of at least 0", lambda v: _is_finite(v) and v >= 0)
]
Positive = Annotated[float, kind("above 0 and finite", lambda v: _is_finite(v) and v > 0)]
Count = Annotated[int, kind("a whole number of at least 0", lambda v: _is_whole(v, 0))]
Size = Annotated[int, kind("a whole number of at least 1", lambda v: _is_whole(v, 1))]
Fact = Annotated[bool, kind("true or false", lambda v: isinstance(v, bool))]
Text = Annotated[str, kind("text", lambda v: isinstance(v, str))]
Name = Annotated[
    str, kind("text that is not empty", lambda v: isinstance(v, str) and v != "")
]
FileName = Annotated[str, kind("the name of a file in the run folder", _is_file_name)]
Object = Annotated[dict[str, Any], kind("an object", lambda v: isinstance(v, dict))]
Usage = Annotated[list[int], kind("an array of numbers of blocks", _is_usage)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def value(cls: type[T]) -> type[T]:
    """A frozen dataclass of keywords, whose fields must be of their kinds.

    Making one raises ValueError, with the words of `checked`, if a field is wrong or unknown.
    """
    made = dataclass(frozen=True, kw_only=True, config=CONFIG)(cls)
    build = made.__init__

    @wraps(build)
    def __init__(self: Any, **given: Any) -> None:
        try:
            build(self, **given)
        except ValidationError as error:
            raise ValueError(explained(error)) from None

    made.__init__ = __init__  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


def checked(form: type[T], values: Any) -> T:
    """`values`, of JSON, as a value of that form.

    Raises:
        ValueError: if something is missing, unknown, or not of its kind; says which.
    """
    try:
        return _adapter(form).validate_python(values)
    except ValidationError as error:
        raise ValueError(explained(error)) from None


@cache
def _adapter(form: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(form)


def explained(error: ValidationError) -> str:
    """The first thing that is wrong: where, what was required, and what was found."""
    first = error.errors(include_url=False)[0]
    *inside, name = first["loc"] or ("",)
    place = _joined((*inside, name))
    if first["type"] == "missing":
        return f"it lacks {name!r}" + (f" in {_joined(tuple(inside))}" if inside else "")
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"fields must be known, got {place!r}"
    words = str(first.get("ctx", {}).get("error", first["msg"]))
    if not words.startswith(("must ", "Input should ")):
        return words  # of the value as a whole
    return f"{place} {words.replace('Input should', 'must')}, got {shown(first['input'])}"


def _joined(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location)
    return text.removeprefix(".")


def got(name: str, known: Iterable[str]) -> str:
    """The end of a message: a name, and the known ones that are like it."""
    near = get_close_matches(name, known := list(known), n=3, cutoff=0.5) or known
    return f"got {name!r} (near it: {', '.join(near)})"


def shown(found: Any) -> str:
    """A value in a message, shortened."""
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:59]}…"


def parsed(text: str) -> Any:
    """The value of a JSON text, whose numbers, texts and depth are bounded.

    Raises:
        ValueError: if it is no JSON, or beyond the bounds; what is wrong with the file.
    """
    try:
        found = json.loads(text)
    except ValueError as error:  # also a whole number of thousands of digits
        raise ValueError(f"is no JSON ({error})") from error
    except RecursionError:
        raise ValueError(f"must nest at most {DEEPEST} deep, got more") from None
    _check_bounds(found)
    if SURROGATE.search(text):
        try:
            json.dumps(found, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("must be Unicode text, but has a lone surrogate") from None
    return found


def _check_bounds(found: Any) -> None:
    """Bounds of every value inside; a long array of whole numbers is checked at once."""
    left: list[tuple[Any, int]] = [(found, 1)]
    while left:
        each, depth = left.pop()
        if isinstance(each, str) and len(each) > LONGEST:
            raise ValueError(
                f"must have texts of at most {LONGEST} characters, got {len(each)}"
            )
        size = abs(each) if isinstance(each, int | float) and _is_finite(each) else 0
        if size and not LEAST <= size <= MOST:
            more = "more" if size > MOST else "less"
            raise ValueError(
                f"must have numbers of 0, or {LEAST:g} to {MOST:g}, got {more}"
            )
        if isinstance(each, dict | list):
            if depth > DEEPEST:
                raise ValueError(f"must nest at most {DEEPEST} deep, got more")
            inner = each if isinstance(each, list) else [*each, *each.values()]
            if inner and set(map(type, inner)) == {int}:
                inner = [min(inner), max(inner)]
            left += [(one, depth + 1) for one in inner]
