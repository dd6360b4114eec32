"""What is not a .momos file is told for what it is, and damage in any section is found."""

import os
from pathlib import Path

import pytest
import reader
import torch
from safetensors.torch import save
from test_util_formats import CONTENTS, torch_saved

import momos
from momos._util import formats

GOLDEN = Path(__file__).parent / "files" / "golden" / "v1"
EVERYTHING = (GOLDEN / "everything.momos").read_bytes()
SIZE, PARTS = reader.outside(EVERYTHING)


@pytest.mark.parametrize("kind", [kind for kind in CONTENTS if "MOMOS" not in kind])
def test_a_file_of_another_kind_is_told_for_what_it_is(kind, path):
    path.write_bytes(CONTENTS[kind])
    about = getattr(formats, kind.partition(" ")[0])
    for read in (momos.load, momos.inspect):
        with pytest.raises(momos.FormatError) as raised:
            read(path)
        assert str(raised.value).startswith(
            f"{path}: header: must be that of a .momos file, but this is {about}"
        )


def test_a_checkpoint_is_told_what_makes_a_momos_file_of_it(path):
    for data in (save({"w": torch.zeros(8, 8)}), torch_saved()):
        path.write_bytes(data)
        with pytest.raises(momos.FormatError, match=r"momos compress makes a \.momos file"):
            momos.load(path)


def test_a_damaged_momos_file_is_told_to_be_damaged(path):
    """Not to be the safetensors file that it also is."""
    start = EVERYTHING.index(b'"usage":')
    for damage in (b"\0", b"}", b"'"):
        path.write_bytes(EVERYTHING[:start] + damage + EVERYTHING[start + 1 :])
        with pytest.raises(momos.FormatError, match="header: ") as raised:
            momos.load(path)
        assert "this is" not in str(raised.value)


@pytest.mark.parametrize("data", [b"w" * 5, b"w" * 5000])
def test_what_is_nothing_known_is_asked_about(data, path):
    path.write_bytes(data)
    with pytest.raises(momos.FormatError, match=r"is this a \.momos file\?"):
        momos.load(path)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    pipe = tmp_path / "x.momos"
    os.mkfifo(pipe)
    for read in (momos.load, momos.inspect):
        with pytest.raises(OSError, match=r"must be an ordinary one, but .* is a pipe"):
            read(pipe)


@pytest.mark.parametrize("section", reader.SECTIONS)
def test_inspect_finds_damage_in_every_section(section, path):
    assert PARTS[section]
    start = 8 + SIZE
    for name in reader.SECTIONS[: reader.SECTIONS.index(section)]:
        start += len(PARTS[name])
    for at in (start, start + len(PARTS[section]) - 1):
        data = bytearray(EVERYTHING)
        data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises(momos.FormatError, match=f"{section}: must have the checksum"):
            momos.inspect(path)
