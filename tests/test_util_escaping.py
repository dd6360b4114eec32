"""Text of strangers does nothing to a terminal, and calculates nothing in a spreadsheet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from momos._util.escaping import csv_cell, visible


@given(st.text(st.characters()))
def test_what_is_visible_can_be_printed_and_stored(text: str) -> None:
    shown = visible(text)
    assert all(c.isprintable() or c.isspace() for c in shown)
    assert len(shown.splitlines()) <= 1
    assert visible(shown) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv.weight, 10 µm → 漢字", "conv.weight, 10 µm → 漢字"),
        ("a\x1b[2Jb\x07", r"a\x1b[2Jb\x07"),
        ("one\ntwo\r\t", r"one\ntwo\r\t"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_is_hidden_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+SUM(A1)", "-cmd|' /C calc'!A0", "@now", " =1", "-inf", "−=", "\t=1", "\rx"],
)
def test_formulas_become_text(text: str) -> None:
    first = str(csv_cell(text))[0]
    assert first == ("−" if text[0] == "−" else "'")


@pytest.mark.parametrize(
    "value", [-1.5, 7, None, True, "-1.5", "+3", "-.5e-3", "-2.", "a=b", "", "–"]
)
def test_numbers_and_plain_words_stay(value: object) -> None:
    assert csv_cell(value) == value
