"""What a terminal gets: only what it can show, and names of others never as commands to it."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import forked_commands
import pytest
import torch
from rich.table import Table
from rich.text import Text
from safetensors.torch import save_file

import momos
from momos._util.escaping import visible
from momos.cli import terminal
from momos.cli.terminal import console

EVIL = "a\x1b]0;owned\x07\x9b31m\nmomos: fake\r\u202e\u2028[bold]x[/foo]:smile:é×"
SHOWN = (
    r"a\x1b]0;owned\x07\x9b31m\nmomos: fake\r\u202e\u2028[bold]x[/foo]:smile:" + "é×"
)  # the name in UTF-8
RAW = ("\x1b", "\x07", "\x9b", "\r", "\u202e", "\u2028")


RUDE, POLITE = "a\x1b]0;x\x07\nb", r"a\x1b]0;x\x07\nb"


@dataclass
class Printed:
    arguments: list[str]
    code: int
    output: str
    error: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint and a file of a network with a tensor called `EVIL`."""
    folder = tmp_path_factory.mktemp("terminal")
    torch.manual_seed(0)
    save_file({EVIL: torch.randn(6, 5), "b": torch.randn(8)}, folder / "x.safetensors")
    config = momos.MosaicConfig(num_motifs=4, block_size=2)
    momos.compress(folder / "x.safetensors", folder / "x.momos", config)
    return folder


@pytest.fixture(scope="module")
def printed(folder) -> dict[str, list[Printed]]:
    """What commands print: to terminals of two encodings, to outputs that fail, and of errors."""
    small, dense = str(folder / "x.momos"), str(folder / "x.safetensors")
    measure = ["measure", small, "--measures", "signs", "--shuffles", "0", "--per-tensor"]
    commands = [
        ["--help"],
        ["--version"],
        ["inspect", small],
        ["inspect", small, "--json"],
        ["verify", small],
        ["expand", small, str(folder / "back.safetensors")],
        ["compress", dense, str(folder / "again.momos")],
        measure,
        [*measure, "--csv"],
        ["study", "--help"],
    ]
    absent = str(folder / RUDE)
    wrong = [["inspect", absent], ["inspect", small, absent], [RUDE]]
    cases = {name: [(c, "out", name) for c in commands] for name in ("ascii", "utf-8")}
    cases |= {to: [(c, to, "ascii") for c in commands] for to in ("/dev/full", "closed")}
    cases["wrong"] = [(c, "out", "utf-8") for c in wrong]
    rows = []
    for arguments, output, encoding in chain.from_iterable(cases.values()):
        start = folder / str(len(rows))
        output = str(start.with_suffix(".out")) if output == "out" else output
        rows.append((arguments, output, str(start.with_suffix(".err")), encoding))
    environment = os.environ | {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    command = [sys.executable, forked_commands.__file__, json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = iter(zip(rows, map(int, done.stdout.split()), strict=True))
    return {name: [read(*next(found)) for _ in of] for name, of in cases.items()}


def read(row: tuple[list[str], str, str, str], code: int) -> Printed:
    arguments, output, error, encoding = row
    text = Path(output).read_bytes().decode(encoding) if output.endswith(".out") else ""
    return Printed(arguments, code, text, Path(error).read_bytes().decode(encoding))


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_every_command_prints_what_the_terminal_can_show(encoding, printed):
    name = SHOWN if encoding == "utf-8" else SHOWN.replace("×", "x").replace("é", r"\xe9")
    for command in printed[encoding]:
        assert (command.code, command.error) == (0, ""), command
        text = command.output.replace("\r\n", "\n")  # rows of CSV
        assert text, command
        assert not any(character in text for character in RAW), command
        if {"inspect", "measure"} & {*command.arguments}:
            assert name in text or "--json" in command.arguments, command


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_an_output_that_takes_nothing_is_one_line_and_a_code(printed):
    for command in printed["/dev/full"]:
        assert command.code == 3, command
        assert command.error == "momos: standard output: No space left on device\n", command


def test_an_output_that_nobody_reads_is_no_traceback(printed):
    """As after `| head -1`, where nothing is to be told."""
    for command in printed["closed"]:
        assert command.code in (1, 3), command
        assert command.error == "", command


def test_complaints_about_names_are_printable(folder, printed):
    assert [command.code for command in printed["wrong"]] == [3, 2, 2]
    for command in printed["wrong"]:
        assert not any(character in command.error for character in RAW), command
        assert r"a\x1b]0;x\x07" in command.error, command
    expected = f"momos: {folder}/{POLITE}: No such file or directory\n"
    assert printed["wrong"][0].error == expected


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
    assert visible(text) == shown


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
    assert r"\u202e" in printed
    assert "\x1b" not in printed


def test_a_warning_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", terminal.show_warning)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = terminal.show_warning
        warnings.warn("a lock cannot be\x1b had", stacklevel=1)
    assert capsys.readouterr().err == "momos: warning: a lock cannot be\\x1b had\n"
