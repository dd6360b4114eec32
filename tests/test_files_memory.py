"""What a file makes a reader allocate is a stated multiple of its size (docs/format.md, §8)."""

import subprocess
import sys
from pathlib import Path

import memory
import pytest
import reader
from files.greedy import greedy
from mutants import Draft, closed

import momos

EXPANDED = 32 << 20
CASES = (
    ("load", "whole motifs"),
    ("inspect", "motifs in a usage table"),
    ("load", "narrow weights of wide motifs"),
    ("load", "indices wider than weights"),
    ("load", "dense complex values"),
    ("load", "blocks by value"),
    ("load", "objects"),
)
GOLDEN = Path(__file__).parent / "files" / "golden" / "v1"
SMALL = (GOLDEN / "half.momos").read_bytes()
DENSE = (GOLDEN / "batchnorm.momos").read_bytes()
FAR = 1 << 36


@pytest.mark.skipif(not memory.COUNTED, reason="the system does not count it")
def test_a_file_makes_a_reader_take_no_more_than_its_size_allows(tmp_path):
    files = greedy(EXPANDED)
    arguments = []
    for number, (read, name) in enumerate(CASES):
        path = tmp_path / f"{number}.momos"
        path.write_bytes(files[name])
        assert len(files[name]) < 200_000
        arguments += [read, path]
    command = [sys.executable, memory.__file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for case, path, line in zip(
        CASES, arguments[1::2], done.stdout.splitlines(), strict=True
    ):
        growth, error = line.split("\t")
        assert error == "", case
        assert int(growth) <= memory.allowed(path), case


def sparse(path: Path, section: str, file: bytes) -> Path:
    """`file` with a section of its that goes on with a hole of `FAR` bytes."""
    size, parts = reader.outside(file)
    text = reader.header(parts)
    length = len(parts[section])
    ends, end = {}, 0
    for name in reader.SECTIONS:
        begin, end = end, end + len(parts[name]) + FAR * (name == section)
        ends[name] = begin, end
    for name, (begin, end) in ends.items():
        old = text[text.index(b'"%s":{"dtype"' % name.encode()) :].partition(b"}")[0]
        new = b'"%s":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]' % (
            *(name.encode(), end - begin),
            *(begin, end),
        )
        text = text.replace(old, new)
    start = 8 + size + ends[section][0] + length
    whole = closed(parts, size, text)
    path.write_bytes(whole[:start])
    with open(path, "r+b") as target:
        target.seek(start + FAR)
        target.write(whole[start:])
        target.truncate(8 + size + ends["manifest"][1])
    return path


def test_a_manifest_beyond_any_is_refused_unread(tmp_path):
    path = sparse(tmp_path / "x.momos", "manifest", SMALL)
    with pytest.raises(momos.FormatError, match=r"manifest: must have at most 134217728 b"):
        momos.load(path)


@pytest.mark.parametrize("rate", [0, 1, 32])
def test_a_part_longer_than_any_coder_makes_it_is_refused_unread(rate, tmp_path):
    draft = Draft.of(DENSE)
    pool = draft.manifest["dense"][0]["packs"][0]
    pool[-1][0] = rate
    pool[-1][1] += FAR
    path = sparse(tmp_path / "x.momos", "dense", draft.file())
    with pytest.raises(momos.FormatError, match=r"'packs' of 'dense' must be an integer 0"):
        momos.load(path)


def test_the_longest_part_that_a_symbol_may_take_is_no_error_of_its_length(tmp_path):
    draft = Draft.of(SMALL)
    stream = draft.tensor("a")["streams"][0]
    for length, problem in ((64 + 4 * 5, "mosaic"), (64 + 4 * 5 + 1, "integer 0 to 84")):
        stream[1] = length
        path = tmp_path / "x.momos"
        path.write_bytes(draft.file())
        with pytest.raises(momos.FormatError, match=problem):
            momos.load(path)
