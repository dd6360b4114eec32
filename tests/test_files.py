"""A network is loaded as it was saved, bit for bit."""

import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import momos
from momos import Mosaic, MosaicFile
from momos.files.manifest import DTYPES
from networks import (
    FLOATS,
    NETWORKS,
    Buffers,
    assert_equal,
    assert_returns,
    bits,
    mixed,
    named,
    network,
    projected,
    values,
)


@pytest.mark.parametrize(("build", "options"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_is_loaded_as_it_was_saved(build, options, path):
    assert_returns(projected(build, **options), build, path)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("block_size", [1, 4])
def test_blocks_of_every_dtype_are_loaded_as_they_were_saved(dtype, block_size, path):
    def build() -> nn.Module:
        return network().to(dtype)

    assert_returns(projected(build, block_size=block_size), build, path)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_dense_tensors_of_every_dtype_are_loaded_as_they_were_saved(dtype, kind, path):
    def build() -> nn.Module:
        model = network()
        for i, shape in enumerate([(3, 5, 7), (), (0, 2), (1,)]):
            size = dtype.itemsize * torch.Size(shape).numel()
            raw = torch.randint(256, (size,), dtype=torch.uint8)
            tensor = (raw & 1 if dtype == torch.bool else raw).view(dtype).view(shape)
            if kind == "buffer":
                model.register_buffer(f"x{i}", tensor)
            else:
                model.register_parameter(f"x{i}", nn.Parameter(tensor, requires_grad=False))
        return model

    assert_returns(projected(build, exclude=("x*",)), build, path)


@pytest.mark.parametrize("k", [256, 257, 32_768, 32_769, 65_536, 65_537])
def test_any_number_of_motifs_is_loaded_as_it_was_saved(k, path):
    def build() -> nn.Module:
        return nn.ParameterDict({"a": torch.randn(30_000), "b": torch.randn(40_000)})

    model = projected(build, block_size=1, num_motifs=k, selection="distinct")
    checkpoint = assert_returns(model, build, path)
    assert checkpoint.mosaic.num_motifs == k


def test_tensors_of_several_packs_and_streams_are_loaded_as_they_were_saved(path):
    def build() -> nn.Module:
        parts = {"a": torch.randn(1_100_000), "b": torch.randn(1_200_000)}
        return nn.ParameterDict(parts | {"c": torch.randn(5)})

    model = projected(
        build, block_size=1, num_motifs=9, selection="sample", exclude=("b", "c")
    )
    assert_returns(model, build, path)


@pytest.mark.parametrize(
    "build",
    [
        nn.Identity,
        lambda: nn.BatchNorm1d(4, affine=False),
        lambda: network().requires_grad_(False),
        lambda: nn.ParameterDict({"a": nn.Parameter(torch.rand(0, 3))}).requires_grad_(
            False
        ),
    ],
    ids=["nothing", "buffers", "frozen", "empty"],
)
def test_a_model_with_nothing_to_train_is_saved_dense(build, path):
    model = build()
    checkpoint = assert_returns(model, build, path)
    assert checkpoint.mosaic is None


@given(
    shapes=st.lists(st.lists(st.integers(0, 6), max_size=3), min_size=1, max_size=5),
    dtypes=st.lists(st.sampled_from(FLOATS), min_size=5, max_size=5),
    left_out=st.sets(st.integers(0, 4)),
    tied=st.sets(st.integers(0, 4)),
    block_size=st.integers(1, 9),
    num_motifs=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_networks_of_any_shapes_are_loaded_as_they_were_saved(
    tmp_path_factory, shapes, dtypes, left_out, tied, block_size, num_motifs, seed
):
    def build() -> nn.Module:
        model = nn.Module()
        model.register_parameter("base", nn.Parameter(torch.randn(3)))
        for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False)):
            parameter = nn.Parameter(torch.randn(shape).to(dtype))
            model.register_parameter(f"p{i}", parameter)
            if i in tied:
                model.register_parameter(f"t{i}", parameter)
        return model

    options = {"block_size": block_size, "num_motifs": num_motifs, "selection": "sample"}
    model = projected(build, seed, exclude=tuple(f"?{i}" for i in left_out), **options)
    assert_returns(model, build, tmp_path_factory.mktemp("any") / "a.momos")


def test_values_that_are_not_numbers_are_saved_where_they_are_left_out(path):
    def build() -> nn.Module:
        model = network()
        with torch.no_grad():
            pattern = torch.arange(0x7F800000, 0x7F800000 + 63, dtype=torch.int32)
            model[0].weight.copy_(pattern.view(torch.float32).view(9, 7))
            model[0].bias.fill_(-0.0)
        return model

    assert_returns(projected(build, exclude=("0.*",)), network, path)


def test_a_zero_whose_sign_changed_is_not_saved_with_another(path):
    model = projected()
    with torch.no_grad():
        model[0].weight[model[0].weight == 0] = -0.0
    wanted = values(named(model))
    try:
        momos.save(model, path)
    except ValueError:
        return
    assert values(momos.load(path).tensors()) == wanted


def test_a_mosaic_that_is_frozen_stays_one(path):
    model = projected().requires_grad_(False)
    checkpoint = assert_returns(model, network, path)
    assert checkpoint.mosaic is not None


def test_a_conjugate_is_not_the_same_as_what_it_is_the_conjugate_of(path):
    def build() -> nn.Module:
        model = network()
        model.register_buffer("a", torch.randn(5, dtype=torch.complex64))
        model.register_buffer("b", model.a.conj())
        model.register_buffer("c", model.a.imag)
        model.register_buffer("d", model.b.imag)
        return model

    momos.save(projected(build), path)
    torch.manual_seed(0)
    assert_equal(momos.load(path).tensors(), named(projected(build)))


def test_a_mosaic_alone_is_saved(path):
    mosaic = Mosaic.of(projected())
    momos.save(mosaic, path)
    checkpoint = momos.load(path)
    assert checkpoint.dense == {}
    assert_equal(checkpoint.tensors(), mosaic.dense())
    assert checkpoint.mosaic.layout == mosaic.layout
    assert checkpoint.mosaic.config == mosaic.config


@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_a_mosaic_with_scales_is_loaded_as_it_was_saved(wide, path):
    own = Mosaic.of(projected(mixed))
    scales = tuple(torch.tensor([scale]) for scale in (0.3, 1.0, 7e-3, 2.5))
    mosaic = Mosaic(own.motifs.to(wide), own.indices, own.layout, scales)
    momos.save(mosaic, path)
    loaded = momos.load(path)
    assert_equal(loaded.tensors(), mosaic.dense())
    for found, scale in zip(loaded.mosaic.scales, scales, strict=True):
        assert torch.equal(found, scale)
    fresh = mixed()
    momos.load_(fresh, path)
    assert_equal(named(fresh), mosaic.dense())
    with MosaicFile(path) as file:
        assert_equal({name: file.tensor(name) for name in file.names}, mosaic.dense())


def test_a_file_is_the_same_in_another_process_and_whenever_it_is_written(path):
    model = projected(Buffers)
    momos.save(model, path)
    first = path.read_bytes()
    momos.save(model, path)
    assert path.read_bytes() == first
    momos.save(projected(Buffers), path)
    assert path.read_bytes() == first
    script = (
        "import hashlib, sys, momos\n"
        "for name, tensor in momos.load(sys.argv[1]).tensors().items():\n"
        "    data = tensor.contiguous().numpy().tobytes()\n"
        "    print(name, hashlib.sha256(data).hexdigest())"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    wanted = (f"{n} {hashlib.sha256(bits(t)).hexdigest()}" for n, t in named(model).items())
    assert found.stdout.splitlines() == list(wanted)


def test_the_number_of_threads_does_not_change_a_file(path):
    model = projected(lambda: nn.Sequential(*[nn.Linear(20, 20) for _ in range(9)]))
    momos.save(model, path)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        momos.save(model, path.with_name("other"))
        assert_equal(momos.load(path).tensors(), named(model))
    finally:
        torch.set_num_threads(threads)
    assert path.with_name("other").read_bytes() == path.read_bytes()
