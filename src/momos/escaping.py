"""Text from files of strangers, made harmless for terminals, pictures and spreadsheets."""

import re

FORMULA = ("=", "+", "-", "@")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def visible(text: str) -> str:
    """The same text with � for every character that cannot be printed.

    Those are control characters, which a terminal obeys, marks that reverse the direction of
    writing, line ends, and lone surrogates, which no file can hold.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def csv_cell(value: object) -> object:
    """A value as a cell of a CSV file: text that a spreadsheet would calculate begins with '.

    Numbers stay numbers, also those that are text (CWE-1236).
    """
    if not isinstance(value, str):
        return value
    formula = value.lstrip().startswith(FORMULA) or value.startswith(("\t", "\r", "\n"))
    text = visible(value)
    return f"'{text}" if formula and not NUMBER.fullmatch(value) else text
