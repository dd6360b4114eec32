"""Networks of every kind, and what it means that two are equal."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import momos
from momos import Mosaic, MosaicConfig, MosaicFile, project_
from momos.files.manifest import DTYPES

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
OTHERS = [dtype for dtype in DTYPES.values() if dtype not in FLOATS]
Build = Callable[[], nn.Module]


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
    "parametrized": (weight_norm, {"exclude": ("*.parametrizations.*",)}),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16), {}),
}
