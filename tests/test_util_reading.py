"""Only ordinary files are opened, and nothing is waited for."""

import os
import socket

import pytest

import momos
from momos._util.reading import open_ordinary


def test_an_ordinary_file_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b"whole")
    (tmp_path / "link").symlink_to("x")
    for name in ("x", "link"):
        with open_ordinary(tmp_path / name) as file:
            assert file.read() == b"whole"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        open_ordinary(tmp_path / "absent")


def test_what_is_no_file_is_named_for_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "bound"))
        for path, kind in (
            (tmp_path / "pipe", "a pipe"),
            (tmp_path / "bound", "a socket"),
            ("/dev/zero", "a device"),
        ):
            with pytest.raises(
                OSError, match=f"must be an ordinary one, but {path} is {kind}"
            ):
                open_ordinary(path)
    with pytest.raises(IsADirectoryError, match=f"got the folder {tmp_path}"):
        open_ordinary(tmp_path)


def test_a_pipe_that_takes_the_place_of_a_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"")
    real = os.open

    def replaced(name: str, flags: int) -> int:
        (tmp_path / "x").unlink()
        os.mkfifo(tmp_path / "x")
        return real(name, flags)

    monkeypatch.setattr("momos._util.reading.os.open", replaced)
    with pytest.raises(OSError, match="is a pipe"):
        open_ordinary(tmp_path / "x")


@pytest.mark.parametrize("read", [momos.load, momos.inspect, momos.MosaicFile])
def test_no_reader_waits_for_a_pipe(read, tmp_path):
    os.mkfifo(tmp_path / "x.momos")
    with pytest.raises(OSError, match=r"x\.momos is a pipe"):
        read(tmp_path / "x.momos")
