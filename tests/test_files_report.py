"""A file is as small as promised, and its report adds up."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import reader
import torch
from mutants import deflate
from torch import nn

import momos
from momos import Mosaic, description_length
from momos.files.manifest import write_manifest
from momos.files.parsing import read_manifest
from networks import Buffers, Odd, Tied, named, projected


def made(widths: list[int], **options) -> nn.Module:
    def build() -> nn.Module:
        layers = [nn.Linear(*pair) for pair in pairwise(widths)]
        return nn.Sequential(*layers, nn.BatchNorm1d(widths[-1]))

    return projected(build, exclude=("*.bias",), **options)


SIZES = [
    {"block_size": s, "num_motifs": k, "selection": selection}
    for s, k, selection in [
        (1, 1, "sample"),
        (1, 2, "kmeans"),
        (1, 32, "kmeans"),
        (2, 256, "kmeans"),
        (4, 16, "kmeans"),
        (4, 3000, "sample"),
        (8, 100, "sample"),
        (4, 10**6, "distinct"),  # all blocks differ
        (1000, 40, "sample"),
    ]
]


def assert_promised(model: nn.Module, path: Path) -> None:
    report, mosaic = momos.save(model, path), Mosaic.of(model)
    lengths = description_length(mosaic)
    blocks = {placement.name for placement in mosaic.layout.placements}
    left = sum(t.nbytes for name, t in named(model).items() if name not in blocks)
    assert report.num_bytes <= 1.01 * lengths.entropy / 8 + 4096 + left
    assert report.num_bytes <= lengths.bound / 8 + 4096 + left


@pytest.mark.parametrize("options", SIZES, ids=str)
def test_a_file_is_as_small_as_promised(options, path):
    assert_promised(made([200, 300, 200], **options), path)


def test_a_file_of_many_small_tensors_is_as_small_as_promised(path):
    assert_promised(made([32] * 60), path)


@pytest.mark.parametrize(("k", "times"), [(2, 20_000), (256, 64), (5000, 4), (20_000, 1)])
def test_a_file_of_motifs_used_alike_is_as_small_as_promised(k, times, path):
    def build() -> nn.Module:
        return nn.ParameterDict({"a": torch.zeros(k * times)})

    model, generator = build(), torch.Generator().manual_seed(0)
    layout = momos.Layout.of(model, block_size=1)
    order = torch.randperm(k * times, generator=generator)
    motifs = torch.randn(k, 1, generator=generator)
    Mosaic(motifs, order % k, layout).write_(model)
    assert_promised(model, path)


def test_a_report_adds_up_to_the_file(path):
    model = projected(Buffers, include=("layer.weight",))
    report = momos.save(model, path)
    assert report.path == path
    assert list(report.sections) == [
        "header",
        "motifs",
        "usage",
        "mosaic",
        "dense",
        "manifest",
    ]
    assert sum(report.sections.values()) == report.num_bytes == path.stat().st_size
    assert [tensor.name for tensor in report.tensors] == list(named(model))
    assert report.dense_bytes == sum(tensor.nbytes for tensor in named(model).values())
    assert report.factor == report.dense_bytes / report.num_bytes
    for section, stored in (("mosaic", "blocks"), ("dense", "dense")):
        length = sum(tensor.length for tensor in report.tensors if tensor.stored == stored)
        assert length == pytest.approx(8 * report.sections[section])
    for tensor, own in zip(report.tensors, named(model).values(), strict=True):
        assert tensor.shape == tuple(own.shape)
        assert f"torch.{tensor.dtype}" == str(own.dtype)
        assert tensor.num_weights == own.numel()
        assert tensor.bits_per_weight * own.numel() == pytest.approx(tensor.length)
    weight = report.tensors[-2] if report.tensors[-1].name == "layer.bias" else None
    assert (weight.stored, weight.num_blocks, weight.why) == ("blocks", 4, "")
    assert weight.num_motifs == len(Mosaic.of(model).indices.unique())
    assert report.config["include"] == ["layer.weight"]


def test_a_report_says_why_a_tensor_is_not_blocks(path):
    model = projected(Odd, exclude=("one",), min_ndim=0)
    model.register_buffer("lasting", torch.ones(1))
    model.register_buffer("passing", torch.ones(2), persistent=False)
    model.register_parameter("alias", model.scalar)
    model.register_parameter("fixed", nn.Parameter(torch.ones(3), requires_grad=False))
    why = {tensor.name: tensor.why for tensor in momos.save(model, path).tensors}
    assert why["scalar"] == why["conv.bias"] == ""
    assert why["empty"] == "empty"
    assert why["one"] == "not chosen"
    assert why["lasting"] == "buffer"
    assert why["passing"] == "buffer that state_dict leaves out"
    assert why["alias"] == "same as scalar"
    assert why["fixed"] == "frozen"


@pytest.mark.parametrize("build", [Tied, Odd, Buffers])
def test_a_report_can_be_written_as_json(build, path):
    report = momos.save(projected(build), path)
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again["num_bytes"] == path.stat().st_size
    assert again["path"] == str(path)
    assert again["lengths"]["file"] == 8 * path.stat().st_size
    assert again["lengths"]["entropy"] == report.lengths.entropy
    assert [tensor["name"] for tensor in again["tensors"]] == [
        t.name for t in report.tensors
    ]


def test_a_report_of_a_file_without_a_mosaic_can_be_written_as_json(path):
    report = momos.save(nn.BatchNorm1d(3, affine=False), path)
    assert report.lengths is None
    assert json.loads(json.dumps(report.to_dict()))["lengths"] is None
    empty = momos.save(nn.Identity(), path)
    assert empty.factor == 0
    assert empty.tensors == ()


@pytest.mark.parametrize("value", ["text", True, None, -1.0, [2]])
def test_what_is_no_energy_is_ignored(value, tmp_path):
    """The key was unknown once, and unknown keys may hold anything."""
    torch.save({"w": torch.randn(8, 8)}, tmp_path / "x.pt")
    config = momos.MosaicConfig(block_size=2, num_motifs=4)
    report = momos.compress(tmp_path / "x.pt", tmp_path / "x.momos", config)
    with momos.MosaicFile(tmp_path / "x.momos") as file:
        manifest = reader.manifest_of(write_manifest(file.manifest), 2)
    (record,) = manifest["tensors"]
    assert record["energy"] == report.tensors[0].energy
    found = read_manifest(deflate(json.dumps(manifest).encode(), 2), 2)
    assert found.records[0].energy == record["energy"]
    record["energy"] = value
    found = read_manifest(deflate(json.dumps(manifest).encode(), 2), 2)
    assert found.records[0].energy is None


def test_a_relative_error_without_weights_is_none(path):
    report = momos.save(made([20, 30]), path)
    assert report.relative_error is report.tensors[0].relative_error is None
    assert report.to_dict()["relative_error"] is None
