"""What a terminal gets: only what it can show, and names of others never as commands to it."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import forked_commands
import pytest
import torch
from rich.table import Table
from rich.text import Text
from safetensors.torch import save_file

import momos
from momos.cli import terminal
from momos.cli.terminal import console, printable

EVIL = "a\x1b]0;owned\x07\x9b31m\nmomos: fake\r\u202e\u2028[bold]x[/foo]:smile:é×"
SHOWN = (
    r"a\x1b]0;owned\x07\x9b31m\nmomos: fake\r\u202e\u2028[bold]x[/foo]:smile:" + "é×"
)  # the name in UTF-8
RAW = ("\x1b", "\x07", "\x9b", "\r", "\u202e", "\u2028")


def run(cases: list[tuple[list[str], str, str]], encoding: str) -> list[int]:
    environment = os.environ | {
        "PYTHONIOENCODING": encoding,
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "COLUMNS": "200",
        "TERMINAL_WIDTH": "200",
    }
    command = [sys.executable, forked_commands.__file__, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return list(map(int, done.stdout.split()))


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> list[list[str]]:
    """Commands that print something, about a network with a tensor called `EVIL`."""
    folder = tmp_path_factory.mktemp("terminal")
    torch.manual_seed(0)
    dense, small = str(folder / "x.safetensors"), str(folder / "x.momos")
    save_file({EVIL: torch.randn(6, 5), "b": torch.randn(8)}, dense)
    momos.compress(dense, small, momos.MosaicConfig(num_motifs=4, block_size=2))
    return [
        ["--help"],
        ["--version"],
        ["inspect", small],
        ["inspect", small, "--json"],
        ["verify", small],
        ["expand", small, str(folder / "back.safetensors")],
        ["compress", dense, str(folder / "again.momos")],
        ["measure", small, "--measures", "signs", "--shuffles", "0", "--per-tensor"],
        [
            "measure",
            small,
            "--measures",
            "signs",
            "--shuffles",
            "0",
            "--per-tensor",
            "--csv",
        ],
        ["study", "--help"],
    ]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_every_command_prints_what_the_terminal_can_show(encoding, commands, tmp_path):
    out = [tmp_path / f"{i}.out" for i in range(len(commands))]
    err = tmp_path / "err"
    cases = [(c, str(o), str(err)) for c, o in zip(commands, out, strict=True)]
    assert run(cases, encoding) == [0] * len(cases)
    name = SHOWN if encoding == "utf-8" else SHOWN.replace("×", "x").replace("é", r"\xe9")
    for command, path in zip(commands, out, strict=True):
        text = path.read_bytes().decode(encoding).replace("\r\n", "\n")  # rows of CSV
        assert text
        assert not any(character in text for character in RAW), command
        if {"inspect", "measure"} & {*command} and "--json" not in command:
            assert name in text, command


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_an_output_that_takes_nothing_is_one_line_or_none_and_a_code(commands, tmp_path):
    """None where nobody reads, as after `| head -1`."""
    count = len(commands)
    err = [tmp_path / f"{i}.err" for i in range(2 * count)]
    targets = ["/dev/full"] * count + ["closed"] * count
    cases = [(*c, str(e)) for *c, e in zip(commands * 2, targets, err, strict=True)]
    codes = run(cases, "ascii")
    assert codes[:count] == [3] * count
    assert set(codes[count:]) <= {1, 3}
    said = ["momos: standard output: No space left on device\n"] * count + [""] * count
    assert [path.read_text() for path in err] == said


def test_complaints_about_names_are_one_printable_line(commands, tmp_path):
    rude, shown = "a\x1b]0;x\x07\nb", r"a\x1b]0;x\x07\nb"
    small, absent = commands[2][1], str(tmp_path / rude)
    err = [tmp_path / f"{i}.err" for i in range(3)]
    wrong = [["inspect", absent], ["inspect", small, absent], [rude]]
    cases = [(c, str(tmp_path / "out"), str(e)) for c, e in zip(wrong, err, strict=True)]
    assert run(cases, "utf-8") == [3, 2, 2]
    for path in err:
        text = path.read_text()
        assert not any(character in text for character in RAW)
    assert err[0].read_text() == f"momos: {tmp_path}/{shown}: No such file or directory\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("layer.0.weight", "layer.0.weight"),
        ("größe × 2", "größe × 2"),
        ("\x00\x1f\x7f\x85", r"\x00\x1f\x7f\x85"),
        ("a\tb\nc", r"a\tb\nc"),
        ("\u2066\ufeff\u200b", r"\u2066\ufeff\u200b"),
        ("\ud800\udcff", r"\ud800\udcff"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_escaped(text, shown):
    assert printable(text) == shown


def test_a_console_takes_names_for_text(capsys):
    out = console()
    table = Table("name")
    table.add_row("[red]\x1b[2J")
    table.add_row(Text("\u202eb"))
    out.print("[/nothing] :smile: \x1b]8;;x\x07", soft_wrap=True)
    out.print(table)
    printed = capsys.readouterr().out
    assert r"[/nothing] :smile: \x1b]8;;x" in printed
    assert r"[red]\x1b[2J" in printed
    assert r"\u202eb" in printed
    assert "\x1b" not in printed


def test_a_warning_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", terminal._show_warning)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = terminal._show_warning
        warnings.warn("a lock cannot be\x1b had", stacklevel=1)
    assert capsys.readouterr().err == "momos: warning: a lock cannot be\\x1b had\n"
