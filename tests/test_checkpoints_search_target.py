"""A target chooses the step: the file is below it, and near it where a step can be."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import momos
from momos.checkpoints import rounding, search, trellis
from momos.config import LatticeConfig


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    generator = torch.Generator().manual_seed(0)
    weights = {f"{n}.weight": torch.randn(60, 50, generator=generator) for n in range(3)}
    save_file(weights | {"bias": torch.randn(60, generator=generator)}, path)
    return path


@pytest.mark.parametrize("wanted", [3_000, 4_000, 7_000, 12_000])
def test_the_file_is_the_largest_within_the_target(source, tmp_path, wanted):
    report = momos.compress(source, tmp_path / "x.momos", target_bytes=wanted)
    assert 0.95 * wanted <= report.num_bytes <= wanted
    assert report.num_bytes == (tmp_path / "x.momos").stat().st_size
    momos.load(tmp_path / "x.momos")


def test_a_factor_is_of_the_bytes_of_the_tensors(source, tmp_path):
    report = momos.compress(source, tmp_path / "x.momos", target_factor=8)
    assert 8 <= report.factor <= 8.5


def test_a_target_that_no_step_reaches_is_refused_with_the_least_size(source, tmp_path):
    path = tmp_path / "x.momos"
    path.write_bytes(b"the old file")
    with pytest.raises(
        ValueError,
        match=r"must be at least [\d,]+ bytes \([\d.]+ times smaller\).*got 100$",
    ):
        momos.compress(source, path, target_bytes=100)
    assert path.read_bytes() == b"the old file"


def test_a_target_beyond_the_finest_step_takes_that(source, tmp_path):
    report = momos.compress(source, tmp_path / "x.momos", target_bytes=10**9)
    assert report.config is not None
    assert report.config["step"] == search.FINEST


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (None, {"target_bytes": 1, "target_factor": 1.0}, "got both: 1 and 1.0"),
        (None, {"target_bytes": 0}, "target_bytes must be at least 1, got 0"),
        (None, {"target_factor": float("nan")}, "must be above 0 and finite, got nan"),
        (
            momos.MosaicConfig(num_motifs=4),
            {"target_bytes": 9999},
            "must be given with a LatticeConfig, got a MosaicConfig",
        ),
    ],
)
def test_targets_without_sense_are_refused(source, tmp_path, config, options, message):
    with pytest.raises(ValueError, match=message):
        momos.compress(source, tmp_path / "x.momos", config, **options)
    assert not (tmp_path / "x.momos").exists()


@pytest.mark.parametrize("name", ["target_bytes", "target_factor"])
def test_targets_that_are_no_numbers_are_refused(source, tmp_path, name):
    with pytest.raises(TypeError, match=f"{name} must be .*, got 'x'"):
        momos.compress(source, tmp_path / "x.momos", **{name: "x"})


@pytest.mark.parametrize("wanted", [10, 100, 1000, 12_345])
def test_few_trials_find_a_step_near_the_target(wanted):
    tried = []

    def size(config: LatticeConfig) -> int:
        tried.append(config.step)
        return 5 + int(100_000 * (0.002 / (0.002 + config.step)) ** 1.5)

    found = search.reaching(LatticeConfig(), wanted, size, 10**6)
    assert size(found) <= wanted
    assert size(found) >= 0.9 * wanted
    assert len(tried) - 2 <= 12  # without the two of this test


def test_a_tiny_factor_takes_the_finest_step(source, tmp_path):
    report = momos.compress(source, tmp_path / "x.momos", target_factor=1e-310)
    assert report.config is not None
    assert report.config["step"] == search.FINEST


def test_nothing_is_rounded_twice_and_trials_leave_no_files(source, tmp_path, monkeypatch):
    tried = []
    real = trellis.quantized

    def counted(weights, config, *rest):
        tried.append(config.step)
        return real(weights, config, *rest)

    monkeypatch.setattr(rounding, "quantized", counted)
    report = momos.compress(source, tmp_path / "x.momos", target_factor=8)
    assert len(tried) == len(set(tried)) > 1
    assert report.config is not None
    assert report.config["step"] in tried
    assert sorted(path.name for path in tmp_path.iterdir() if path != source) == ["x.momos"]
