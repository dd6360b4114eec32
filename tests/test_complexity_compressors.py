"""Compressors say what a payload takes; which payload it is decides what they can see."""

import bz2
import gzip
import lzma
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import momos
from momos.complexity import (
    available,
    byte_planes,
    compressed_bits,
    float_code,
    packed,
    pcodec_bits,
    published_rates,
    raw_bytes,
    signs,
)
from momos.complexity.compressors import COMPRESSORS

NAMES = ["gzip", "bz2", "lzma", "zstd", "brotli"]
EXTRA = {"brotli", "compression.zstd", "pcodec", "zstandard"}
LEAN = """
import sys, torch
before = set(sys.modules)
import momos.complexity
print(*(set(sys.modules) - before))
"""


def gaussian(num_weights: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_weights, generator=generator).to(dtype)


@pytest.fixture
def without_packages(monkeypatch):
    """As where the extra is not installed."""

    def load(name):
        if name in EXTRA:
            raise ImportError(name)
        return import_module(name)

    def find(name):
        return None if name in EXTRA else find_spec(name)

    monkeypatch.setattr("momos.complexity.compressors.import_module", load)
    monkeypatch.setattr("momos.complexity.compressors.find_spec", find)


# Lengths


@pytest.mark.parametrize("name", NAMES)
def test_of_nothing_there_are_no_bits(name):
    assert compressed_bits(b"", name) == 0


@pytest.mark.parametrize("name", NAMES)
def test_random_signs_need_one_bit_each_when_packed(name):
    payload = packed(signs(gaussian(400_000)))
    assert compressed_bits(payload, name) / 400_000 == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize(("name", "bits"), [("gzip", 1.2), ("bz2", 1.24), ("lzma", 1.09)])
def test_random_signs_need_more_when_each_is_a_byte(name, bits):
    payload = raw_bytes(signs(gaussian(200_000)))
    assert compressed_bits(payload, name) / 200_000 == pytest.approx(bits, abs=0.04)


@pytest.mark.parametrize("name", ["gzip", "lzma", "zstd"])
def test_floats_take_less_by_their_byte_planes_and_less_yet_by_the_float_code(name):
    weight = gaussian(100_000)
    whole = compressed_bits(raw_bytes(weight), name)
    planes = compressed_bits(raw_bytes(byte_planes(weight)), name)
    assert float_code(weight) < planes < whole < 32 * len(weight)


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("gzip", lambda payload: len(gzip.compress(payload, 9))),
        ("bz2", lambda payload: len(bz2.compress(payload, 9))),
        (
            "lzma",
            lambda payload: len(lzma.compress(payload, preset=9 | lzma.PRESET_EXTREME)),
        ),
    ],
)
def test_the_strongest_level_is_the_rule(name, length):
    payload = raw_bytes(gaussian(3_000).round(decimals=1))
    bits = compressed_bits(payload, name)
    assert bits == 8 * (length(payload) - length(b""))
    assert bits == compressed_bits(payload, name, level=9)
    assert bits <= compressed_bits(payload, name, level=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_level_is_taken(name):
    payload = raw_bytes(gaussian(300).round(decimals=1))
    levels = COMPRESSORS[name].levels
    assert all(compressed_bits(payload, name, level=level) > 0 for level in levels)
    for level in (levels[0] - 1, levels[-1] + 1):
        message = f"level of {name} must be {levels[0]} to {levels[-1]}, got {level}$"
        with pytest.raises(ValueError, match=message):
            compressed_bits(payload, name, level=level)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(payload=st.binary(min_size=1, max_size=500))
def test_what_comes_twice_takes_hardly_more(name, payload):
    once = compressed_bits(payload, name)
    assert once > 0
    assert compressed_bits(2 * payload, name) <= once + 8 * 64 + 4 * len(payload)
    assert compressed_bits(payload, name) == once


def test_a_long_window_finds_what_gzip_cannot():
    half = np.random.default_rng(0).bytes(1 << 20)
    for name, ratio in (("zstd", 1), ("lzma", 1), ("brotli", 1), ("gzip", 2)):
        level = {"brotli": 5, "zstd": 1}.get(name)  # fast, and as far back
        bits = compressed_bits(half + half, name, level=level)
        assert bits / (8 * len(half)) == pytest.approx(ratio, abs=0.01)


def test_a_name_of_no_compressor_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of gzip, bz2, .*, got zip$"):
        compressed_bits(b"", "zip")  # pyright: ignore[reportArgumentType]


# Numbers


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_pcodec_codes_gaussian_weights_about_as_the_float_code_does(dtype):
    weight = gaussian(200_000, dtype)
    assert pcodec_bits(weight) / float_code(weight) == pytest.approx(1, abs=0.01)


NUMBERS = [torch.float64, torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int64]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_pcodec_takes_numbers_of_every_kind_and_shape(dtype):
    numbers = (100 * gaussian(5_000).abs()).to(dtype).view(50, 100)
    bits = pcodec_bits(numbers)
    assert 0 < bits <= 8 * numbers.itemsize * numbers.numel()
    assert bits == pcodec_bits(numbers.numpy()) == pcodec_bits(numbers.flatten())
    assert pcodec_bits(numbers[:0]) == 0
    assert pcodec_bits(numbers, level=0) >= bits


def test_pcodec_refuses_what_it_has_no_code_for():
    for values in (torch.ones(3, dtype=torch.bool), np.ones(3, dtype=np.complex64)):
        with pytest.raises(TypeError, match="values must be integers or floats, got"):
            pcodec_bits(values)
    for level in (-1, 13):
        with pytest.raises(
            ValueError, match=f"level of pcodec must be 0 to 12, got {level}"
        ):
            pcodec_bits(torch.ones(3), level=level)


# As published


def test_published_rates_are_raw_over_compressed_headers_and_all():
    payload = raw_bytes(gaussian(20_000))
    rates = published_rates(payload)
    assert rates.gzip == 80_000 / len(gzip.compress(payload, compresslevel=9))
    assert rates.bz2 == 80_000 / len(bz2.compress(payload, compresslevel=9))
    assert rates.lzma == 80_000 / len(lzma.compress(payload, preset=9))


def test_the_published_rate_of_random_signs_is_not_eight():
    rates = published_rates(raw_bytes(signs(gaussian(200_000))))
    assert rates.gzip == pytest.approx(8 / 1.2, rel=0.03)
    assert rates.bz2 == pytest.approx(8 / 1.24, rel=0.03)
    assert rates.lzma == pytest.approx(8 / 1.09, rel=0.03)


def test_of_nothing_there_is_no_rate():
    with pytest.raises(ValueError, match="weight_bytes must hold at least one byte"):
        published_rates(b"")


# What is installed


def test_all_are_available_here():
    assert available() == (*NAMES, "pcodec")


def test_without_the_extra_those_of_python_remain(without_packages):
    assert available() == ("gzip", "bz2", "lzma")
    for name in available():
        assert compressed_bits(b"momos", name) > 0


@pytest.mark.parametrize("name", ["zstd", "brotli"])
def test_a_missing_package_is_an_error_that_names_the_extra(without_packages, name):
    with pytest.raises(ImportError, match=r"mosaic-of-motifs\[measures\]"):
        compressed_bits(b"momos", name)


def test_missing_pcodec_is_an_error_that_names_the_extra(without_packages):
    with pytest.raises(ImportError, match=r"pcodec .*mosaic-of-motifs\[measures\]"):
        pcodec_bits(torch.ones(3))


def test_importing_the_measures_loads_no_optional_package():
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEAN],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(momos.__file__).parents[1])},
    )
    assert process.returncode == 0, process.stderr
    assert "momos.complexity.compressors" in process.stdout.split()
    roots = {name.partition(".")[0] for name in process.stdout.split()}
    assert not roots & {"brotli", "pcodec", "zstandard", "pybdm", "scipy"}
