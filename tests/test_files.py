"""A network is loaded as it was saved, bit for bit, and a file is as small as promised."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import momos
from momos import Mosaic, MosaicConfig, MosaicFile, description_length, project_
from momos.files.manifest import DTYPES

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
OTHERS = [dtype for dtype in DTYPES.values() if dtype not in FLOATS]
Build = Callable[[], nn.Module]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "network.momos"


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.Linear(9, 3))


def projected(build: Build = network, seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    model = build()
    defaults = {"block_size": 4, "num_motifs": 16, "selection": "kmeans"}
    project_(model, MosaicConfig(**(defaults | options)))
    return model


def named(model: nn.Module) -> dict[str, Tensor]:
    """Every name of every parameter and buffer, in the order in which files hold them."""
    return {
        f"{prefix}.{name}".lstrip("."): tensor
        for prefix, module in model.named_modules(remove_duplicate=False)
        for held in (module._parameters, module._buffers)
        for name, tensor in held.items()
        if tensor is not None
    }


def bits(tensor: Tensor) -> bytes:
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return (
        torch.empty(plain.numel(), dtype=plain.dtype)
        .copy_(plain.reshape(-1))
        .view(torch.uint8)
        .numpy()
        .tobytes()
    )


def values(tensors: dict[str, Tensor]) -> dict[str, tuple]:
    return {n: (t.dtype, tuple(t.shape), bits(t)) for n, t in tensors.items()}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    found, wanted = values(found), values(wanted)
    assert list(found) == list(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def assert_returns(model: nn.Module, build: Build, path: Path) -> momos.Checkpoint:
    """That `model`, saved, is what its file holds, and what a new model becomes by it."""
    report, before = momos.save(model, path), values(named(model))
    assert values(named(model)) == before
    assert report.num_bytes == path.stat().st_size
    checkpoint = momos.load(path)
    assert_equal(checkpoint.tensors(), named(model))
    assert list(checkpoint.state_dict()) == list(model.state_dict())
    assert_equal(checkpoint.state_dict(), model.state_dict())
    with MosaicFile(path) as file:
        assert_equal({name: file.tensor(name) for name in file.names}, named(model))
        file.verify()
    torch.manual_seed(99)
    fresh = build()
    momos.load_(fresh, path)
    assert_equal(named(fresh), named(model))
    if checkpoint.mosaic is not None:
        mosaic = Mosaic.of(fresh)
        assert torch.equal(mosaic.indices, Mosaic.of(model).indices)
        assert mosaic.layout == Mosaic.of(model).layout
        assert mosaic.config == Mosaic.of(model).config
        momos.save(fresh, path.with_name("again"))
        assert path.with_name("again").read_bytes() == path.read_bytes()
    momos.save(checkpoint, path.with_name("third"))
    assert_equal(momos.load(path.with_name("third")).tensors(), named(model))
    return checkpoint


# What a network may be


class Tied(nn.Module):
    """`b` is tied to `a`, or the other way round, as `names` says which comes first."""

    def __init__(self, names: str = "ab") -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(6, 6))
        self.b.weight = self.a.weight


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
        self.second = nn.ModuleList([self.first, self.first[0]])


class Aliased(nn.Module):
    """A buffer that is a parameter of a child, and others that are parts of one."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(6, 6)
        self.register_buffer("alias", self.child.weight.detach())
        self.register_buffer("transposed", self.child.weight.detach().T)
        self.register_buffer("part", self.child.weight.detach()[2:4])
        self.register_buffer("bits", self.child.weight.detach().view(torch.int32))


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("lasting", torch.rand(5))
        self.register_buffer("passing", torch.rand(6), persistent=False)
        self.register_buffer("none", None)
        self.register_buffer("strided", torch.rand(6, 4)[::2, 1::2])
        self.register_buffer("nothing", torch.rand(6)[:0])
        self.register_buffer("mask", torch.ones(9, 9, dtype=torch.bool).tril())
        self.register_buffer("position", torch.arange(20).expand((1, -1)))


class Strides(nn.Module):
    """Contiguous by what torch says, though their strides are not 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 3)[:1, ::3])
        self.register_buffer("one", torch.rand(6)[::6])
        self.register_buffer("none", torch.rand(6)[::6][:0])


class Odd(nn.Module):
    """Parameters of every shape, in order and not."""

    def __init__(self) -> None:
        super().__init__()
        self.scalar = nn.Parameter(torch.rand(()))
        self.empty = nn.Parameter(torch.rand(3, 0))
        self.one = nn.Parameter(torch.rand(1, 1, 1))
        self.transposed = nn.Parameter(torch.rand(5, 7).T)
        self.strided = nn.Parameter(torch.rand(6, 8)[::2, 1::3])
        self.conv = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)


def frozen() -> nn.Module:
    model = network()
    model[2].requires_grad_(False)
    return model


def trained() -> nn.Module:
    model = network()
    for _ in range(3):
        model(torch.randn(8, 7) * 3 + 1)
    return model


def mixed() -> nn.Module:
    parts = {str(i): torch.randn(30 + i).to(dtype) for i, dtype in enumerate(FLOATS)}
    return nn.ParameterDict(parts)


def weight_norm() -> nn.Module:
    return nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5)),
        nn.utils.parametrizations.orthogonal(nn.Linear(5, 5)),
    )


def signed_zeros() -> nn.Module:
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.rand_like(parameter) > 0.5)
    return model


NETWORKS = {
    "plain": (network, {}),
    "batch norm": (trained, {"exclude": ("1.*",)}),
    "frozen": (frozen, {}),
    "mixed dtypes": (mixed, {}),
    "tied": (Tied, {}),
    "tied, first name left out": (Tied, {"exclude": ("a.weight",)}),
    "tied, second name left out": (Tied, {"exclude": ("b.weight",)}),
    "tied backwards": (lambda: Tied("ba"), {}),
    "shared": (Shared, {}),
    "aliased": (Aliased, {}),
    "aliased, left out": (Aliased, {"exclude": ("*.weight",)}),
    "buffers": (Buffers, {}),
    "strides": (Strides, {}),
    "odd": (Odd, {}),
    "odd, left out": (Odd, {"include": ("conv.bias",)}),
    "one motif": (network, {"num_motifs": 1}),
    "one motif that is not zero": (network, {"num_motifs": 1, "zero_motif": False}),
    "more motifs than blocks": (network, {"num_motifs": 10_000}),
    "long blocks": (network, {"block_size": 1000}),
    "zeros of both signs": (signed_zeros, {"zero_motif": False}),
    "lstm": (lambda: nn.LSTM(3, 5, num_layers=2, bidirectional=True), {}),
    "attention": (lambda: nn.MultiheadAttention(8, 2), {}),
    "embedding": (lambda: nn.Embedding(30, 6, padding_idx=3), {}),
    "parametrized": (weight_norm, {}),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16), {}),
}


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
    scales = torch.tensor([0.3, 1.0, 7e-3, 2.5])
    mosaic = Mosaic(own.motifs.to(wide), own.indices, own.layout, scales)
    momos.save(mosaic, path)
    loaded = momos.load(path)
    assert_equal(loaded.tensors(), mosaic.dense())
    assert torch.equal(loaded.mosaic.scales, scales)
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


# What cannot be saved


def refused(model: object, path: Path, error: type[Exception], message: str) -> None:
    """That an old file stays whole, and no other is left behind."""
    path.write_bytes(b"the old file")
    with pytest.raises(error, match=message):
        momos.save(model, path)
    assert path.read_bytes() == b"the old file"
    assert os.listdir(path.parent) == [path.name]


def test_a_model_that_was_never_projected_is_refused(path):
    refused(network(), path, ValueError, "Sequential was never projected")


def test_a_model_that_changed_since_it_was_projected_is_refused(path):
    model = projected()
    with torch.no_grad():
        model[2].bias[1] += 1e-3
    refused(model, path, ValueError, r"'2\.bias' differs from its motifs in 1 weights")


@pytest.mark.parametrize("other", [{}, None, "a.momos", torch.zeros(2), [], nn.Linear])
def test_what_is_no_network_is_refused(other, path):
    refused(
        other, path, TypeError,
        f"a Module, a Mosaic or a Checkpoint can be saved, got {type(other).__name__}",
    )  # fmt: skip


def quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.qint8)


UNORDINARY = {
    "meta": (lambda: torch.zeros(3, device="meta"), "must hold values"),
    "lazy": (nn.UninitializedBuffer, "must hold values"),
    "sparse": (lambda: torch.eye(3).to_sparse(), r"must be strided, got torch\.sparse_coo"),
    "rows": (
        lambda: torch.eye(3).to_sparse_csr(),
        r"must be strided, got torch\.sparse_csr",
    ),
    "quantized": (quantized, r"must .* got torch\.qint8"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "must"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize(("make", "message"), UNORDINARY.values(), ids=UNORDINARY)
def test_a_tensor_that_is_not_ordinary_is_refused_by_its_name(make, message, path):
    model = projected()
    model[1].register_buffer("odd", make())
    refused(model, path, ValueError, rf"'1\.odd' {message}")


def test_a_parameter_on_meta_is_refused_by_its_name(path):
    refused(projected().to("meta"), path, ValueError, r"'0\.weight' must hold values")


def test_a_module_with_extra_state_is_refused(path):
    class Extra(nn.Linear):
        def get_extra_state(self) -> int:
            return 1

    model = projected(lambda: nn.Sequential(Extra(3, 3)))
    refused(model, path, ValueError, "0._extra_state")


def test_a_module_whose_state_is_more_than_its_tensors_is_refused(path):
    class More(nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "more"] = torch.ones(2)

    model = projected(lambda: nn.Sequential(More(3, 3)))
    assert "0.more" in model.state_dict()
    refused(model, path, ValueError, r"0\.more")


@pytest.mark.parametrize("name", ["\udc80", "no\ud800"])
def test_a_name_that_no_file_can_hold_is_refused(name, path):
    model = projected()
    model.register_buffer(name, torch.ones(2))
    refused(model, path, ValueError, "UTF-8")


def test_a_shape_that_no_file_can_hold_is_refused(path):
    model = projected()
    model.register_buffer("deep", torch.ones([1] * 65))
    refused(model, path, ValueError, "'deep'")


@pytest.mark.parametrize(
    "name", ["ä", "重み", "a b", "quote\"'\\", "\x00\n", "😀", "__metadata__"]
)
def test_any_other_name_is_kept(name, path):
    def build() -> nn.Module:
        model = network()
        model.register_buffer(name, torch.rand(2))
        return model

    assert_returns(projected(build), build, path)


@pytest.mark.parametrize("capacity", [np.float32(0.5), np.float64(0.5), 0.5, 1])
def test_the_config_may_hold_any_number(capacity, path):
    model = projected(num_motifs=None, capacity=capacity)
    momos.save(model, path)
    assert momos.load(path).mosaic.config == Mosaic.of(model).config


# Loading into a model


def untouched(model: nn.Module, path: Path, message: str, error=ValueError) -> str:
    before = values({n: t for n, t in named(model).items() if not nn.parameter.is_lazy(t)})
    with pytest.raises(error, match=message) as raised:
        momos.load_(model, path)
    after = values({n: t for n, t in named(model).items() if not nn.parameter.is_lazy(t)})
    assert after == before
    return str(raised.value)


def test_a_wrong_model_is_told_all_that_is_wrong_and_stays_as_it_is(path):
    momos.save(projected(), path)
    other = nn.Sequential(
        nn.Linear(7, 8), nn.BatchNorm1d(9).double(), nn.Linear(9, 3, bias=False)
    )
    other.register_buffer("more", torch.zeros(2))
    other.add_module("3", nn.Linear(2, 2))
    message = untouched(other, path, "the model must have the tensors of ")
    assert "only the model has: more, 3.weight, 3.bias" in message
    assert "only the file has: 2.bias" in message
    assert "0.weight (file: torch.float32 (9, 7), model: torch.float32 (8, 7))" in message
    assert "0.bias (file: torch.float32 (9,), model: torch.float32 (8,))" in message
    assert "1.running_mean (file: torch.float32 (9,), model: torch.float64 (9,))" in message
    assert "2.weight" not in message
    assert "num_batches_tracked" not in message


def test_a_model_that_ties_what_the_file_does_not_is_refused(path):
    def untied() -> nn.Module:
        return nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)})

    momos.save(projected(untied), path)
    untouched(
        Tied(), path, r"b\.weight \(the model ties it to a\.weight, the file does not\)"
    )


def test_a_model_that_does_not_tie_what_the_file_does_takes_its_values(path):
    model = projected(Tied)
    momos.save(model, path)
    untied = nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)})
    momos.load_(untied, path)
    assert_equal(named(untied), named(model))


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_model_that_has_its_names_in_another_order_is_a_mosaic(names, path):
    model = projected(Tied)
    momos.save(model, path)
    other = Tied(names)
    momos.load_(other, path)
    assert_equal(dict(sorted(named(other).items())), dict(sorted(named(model).items())))
    assert torch.equal(Mosaic.of(other).indices, Mosaic.of(model).indices)


def test_a_lazy_model_is_refused(path):
    momos.save(projected(), path)
    lazy = nn.Sequential(nn.LazyLinear(9), nn.BatchNorm1d(9), nn.Linear(9, 3))
    untouched(lazy, path, r"0\.weight")


def test_a_model_without_memory_is_refused(path):
    momos.save(projected(), path)
    with pytest.raises(ValueError, match=r"0\.weight"):
        momos.load_(network().to("meta"), path)


def expanded() -> nn.Module:
    model = network()
    model.register_buffer("odd", torch.rand(1).expand(4))
    return model


def inference() -> nn.Module:
    with torch.inference_mode():
        return network()


@pytest.mark.parametrize(("saved", "build"), [(expanded, expanded), (network, inference)])
def test_a_model_that_cannot_be_written_to_is_loaded_or_stays_as_it_is(saved, build, path):
    model = projected(saved)
    momos.save(model, path)
    other = build()
    try:
        momos.load_(other, path)
    except ValueError:
        untouched(other, path, "the model must have the tensors of")
    else:
        assert_equal(named(other), named(model))


def test_a_damaged_file_leaves_the_model_as_it_is(path):
    momos.save(projected(), path)
    data = bytearray(path.read_bytes())
    for at in range(700, len(data), 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        untouched(network(), path, "network.momos: ", momos.FormatError)


def test_loading_leaves_all_but_values_as_it_was(path):
    momos.save(projected(), path)
    model = network().eval()
    model[1].train()
    model[0].bias.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    model(torch.randn(4, 7)).sum().backward()
    optimizer.step()
    state, grads = deepcopy(optimizer.state_dict()), [p.grad for p in model.parameters()]
    identity = {name: (id(t), t.data_ptr(), t.stride()) for name, t in named(model).items()}
    momos.load_(model, path)
    assert {
        n: (id(t), t.data_ptr(), t.stride()) for n, t in named(model).items()
    } == identity
    assert [p.requires_grad for p in model.parameters()] == [True, False] + [True] * 4
    assert [module.training for module in model] == [False, True, False]
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    assert str(optimizer.state_dict()) == str(state)
    optimizer.step()


def test_passing_buffers_are_set_where_the_model_has_them(path):
    momos.save(projected(Buffers), path)
    wanted = momos.load(path).tensors()
    other = Buffers()
    other.register_buffer("passing", torch.zeros(2), persistent=False)  # of another shape
    other.register_buffer("own", torch.zeros(2), persistent=False)
    momos.load_(other, path)
    assert torch.equal(other.layer.weight, wanted["layer.weight"])
    assert other.passing.tolist() == other.own.tolist() == [0, 0]
    less = Buffers()
    del less.passing
    momos.load_(less, path)
    assert torch.equal(less.lasting, wanted["lasting"])


def test_loading_forgets_which_mosaic_the_model_was(path):
    momos.save(projected(seed=1), path)
    model = projected(seed=2)
    momos.load_(model, path)
    assert torch.equal(Mosaic.of(model).motifs, momos.load(path).mosaic.motifs)


def test_a_checkpoint_shares_no_memory_with_another(path):
    momos.save(projected(Buffers), path)
    one, two = momos.load(path), momos.load(path)
    for tensor in one.dense.values():
        tensor.zero_()
    assert not any(
        t.is_floating_point() and t.numel() and not t.any() for t in two.dense.values()
    )


# What it takes


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
    model = projected(Odd, exclude=("one",))
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
