"""Makes untrusted text safe to show in terminals, pictures and spreadsheets."""

import re
import unicodedata

FORMULA = ("=", "+", "-", "@")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def visible(text: str) -> str:
    """The same text as one printable line; invisible characters become escapes.

    Escaped are control characters, which a terminal would obey, line ends, marks that change the
    direction of writing or have no width, unassigned characters, and lone surrogates, which no
    encoding can represent.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escaped, text))


def csv_cell(value: object) -> object:
    """A value as a cell of a CSV file: text that a spreadsheet would evaluate is prefixed with '.

    Numbers stay numbers, even those given as text (CWE-1236).
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
