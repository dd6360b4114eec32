"""Text from files of strangers, made harmless for terminals, pictures and spreadsheets."""

import re
import unicodedata

FORMULA = ("=", "+", "-", "@")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def visible(text: str) -> str:
    """The same text in one line that can be shown as it is: what is hidden becomes an escape.

    Hidden are control characters, which a terminal obeys, line ends, marks that change the
    direction of writing or take no room, unassigned characters, and lone surrogates, which no
    encoding has.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escaped, text))


def csv_cell(value: object) -> object:
    """A value as a cell of a CSV file: text that a spreadsheet would calculate begins with '.

    Numbers stay numbers, also those that are text (CWE-1236).
    """
    if not isinstance(value, str):
        return value
    formula = value.lstrip().startswith(FORMULA) or value.startswith(("\t", "\r", "\n"))
    text = visible(value)
    return f"'{text}" if formula and not NUMBER.fullmatch(value) else text


def _escaped(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":  # spaces
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()
