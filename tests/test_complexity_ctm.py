"""The CTM tables are those of pybdm 0.1.0, read without importing it, or not read at all."""

import gzip
import hashlib
import json
import os
import pickle
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from momos.complexity import bdm, ctm, ordered_bdm
from momos.complexity.ctm import sequence_table, square_table

REFERENCE = json.loads(
    (Path(__file__).parent / "reference/pybdm_reference.json").read_text()
)
TABLES = {
    name.partition(":")[2]: values for name, values in REFERENCE["ctm_tables"].items()
}


def table(size: str) -> np.ndarray:
    return square_table(int(size[0])) if "x" in size else sequence_table(int(size))


@pytest.fixture
def forgotten():
    """The tables are read anew, and once more afterwards."""
    for cached in (sequence_table, square_table):
        cached.cache_clear()
    yield
    for cached in (sequence_table, square_table):
        cached.cache_clear()


@pytest.fixture
def package(forgotten, monkeypatch, tmp_path) -> Path:
    """The folder of tables of an installed pybdm whose files are to be written."""

    class Package:
        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(metadata, "distribution", lambda name: Package())
    folder = tmp_path / "pybdm/ctmdata"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("size", TABLES)
def test_the_tables_are_those_of_pybdm_bit_for_bit(size):
    found, expected = table(size), TABLES[size]
    digest = hashlib.sha256(found.astype("<f8").tobytes()).hexdigest()
    assert digest == expected["sha256_dense_float64_le"]
    assert found.min() == expected["min"] == found[int(expected["argmin_key"], 2)]
    assert found.max() == expected["max"]
    assert found[0] == expected["zero_block"]


@pytest.mark.parametrize(
    ("samples", "size"), [("ctm_samples_1d12", "12"), ("ctm_samples_4x4", "4x4")]
)
def test_the_first_cell_is_the_most_significant_bit(samples, size):
    for key, value in REFERENCE[samples].items():
        assert table(size)[int(key, 2)] == value


def test_a_table_is_read_once_and_cannot_be_changed():
    assert sequence_table(12) is sequence_table(12)
    assert square_table(4) is square_table(4)
    with pytest.raises(ValueError, match="read-only"):
        sequence_table(12)[0] = 0


@pytest.mark.parametrize("length", [0, 13])
def test_there_are_tables_of_1_to_12_cells(length):
    with pytest.raises(ValueError, match=f"length must be 1 to 12, got {length}"):
        sequence_table(length)


@pytest.mark.parametrize("side", [0, 5])
def test_there_are_tables_of_squares_of_1_to_4(side):
    with pytest.raises(ValueError, match=f"side must be 1 to 4, got {side}"):
        square_table(side)


@pytest.mark.parametrize("size", ["12", "4x4"])
def test_a_block_and_its_complement_have_one_value(size):
    assert np.array_equal(table(size), table(size)[::-1])


def test_a_reversed_sequence_has_the_same_value():
    codes = np.arange(4096)
    reverse = sum((codes >> i & 1) << (11 - i) for i in range(12))
    assert np.array_equal(sequence_table(12), sequence_table(12)[reverse])


@pytest.mark.parametrize("axes", [(1, 0, 2), (0, 2, 1)], ids=["transposed", "flipped"])
def test_a_transposed_or_flipped_square_has_the_same_value(axes):
    cells = square_table(4).reshape([2] * 16)
    places = np.arange(16).reshape(4, 4)
    moved = places.T if axes == (1, 0, 2) else places[::-1]
    assert np.array_equal(cells, cells.transpose(moved.reshape(-1)))


@pytest.mark.parametrize("measure", [bdm, ordered_bdm])
def test_without_pybdm_the_error_names_the_extra(measure, forgotten, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    if measure is ordered_bdm:
        module = sys.modules["momos.complexity.bdm"]  # whose name the function has too
        monkeypatch.setattr(module, "block_lengths", module.block_lengths.__wrapped__)
    with pytest.raises(ImportError) as error:
        measure(np.zeros(12, int))
    assert str(error.value) == (
        'momos.bdm needs the CTM tables of pybdm: pip install "mosaic-of-motifs[bdm]"'
    )


@pytest.mark.parametrize("name", [ctm.SEQUENCES, ctm.SQUARES])
def test_another_file_is_not_read(name, package):
    (package / name).write_bytes(b"of another version")
    read = sequence_table if name == ctm.SEQUENCES else square_table
    message = rf"must be those of pybdm 0\.1\.0, with sha256 {ctm.SHA256[name]}, got "
    with pytest.raises(ValueError, match=message) as error:
        read(1)
    assert str(package / name) in str(error.value)


def test_a_pickle_that_makes_anything_but_dictionaries_is_refused(package, monkeypatch):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(package / "made"),)

    packed = gzip.compress(pickle.dumps({(1,): Harmful()}))
    (package / ctm.SEQUENCES).write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    monkeypatch.setitem(ctm.SHA256, ctm.SEQUENCES, digest)
    with pytest.raises(pickle.UnpicklingError, match=r"dictionaries alone, got \w+\.mkdir"):
        sequence_table(1)
    assert not (package / "made").exists()


def test_measuring_does_not_import_pybdm_nor_what_it_needs():
    program = (
        "import sys, numpy, momos.complexity as c;"
        "c.bdm(numpy.zeros(12, int)); c.ordered_bdm(numpy.zeros((4, 4), int), ndim=2);"
        "print({'pybdm', 'pkg_resources', 'scipy', 'constriction'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert (process.stdout, process.stderr) == ("set()\n", "")
