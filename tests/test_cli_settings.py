"""Options of `momos compress` as settings, and sizes as people write them."""

import pytest
import typer

from momos.cli.compress import compress_config, num_bytes
from momos.config import LatticeConfig, MosaicConfig

NONE = {"num_motifs": None, "capacity": None, "bits": None}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("100kB", 100_000),
        ("1.5MB", 1_500_000),
        ("2 MiB", 2 << 20),
        ("1gb", 10**9),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert num_bytes(text) == size


@pytest.mark.parametrize("text", ["", "kB", "-1", "1 kilo", "1e3", "1,5MB"])
def test_other_words_are_no_sizes(text):
    with pytest.raises(typer.BadParameter, match="must be like 100kB, 2MB or 4096, got"):
        num_bytes(text)


def test_without_the_size_of_a_bank_it_is_a_lattice():
    assert compress_config({}, {"step": None}, NONE) == LatticeConfig()
    assert compress_config({"min_ndim": 1}, {"step": 0.3}, NONE) == LatticeConfig(
        step=0.3, min_ndim=1
    )


def test_with_it_a_bank_by_kmeans():
    expected = MosaicConfig(num_motifs=9, block_size=4, min_ndim=1, selection="kmeans")
    assert compress_config({}, {"step": None}, NONE | {"num_motifs": 9}) == expected
