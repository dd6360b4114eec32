"""A compact network computes what the dense mosaic computes, and holds only packed indices."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import momos
from momos import MosaicConfig
from momos.compact.compacting import bank_of, is_compact, packed_weights

CONFIGS = {
    "4 bits": {"block_size": 4, "num_motifs": 16, "selection": "kmeans"},
    "8 bits": {"block_size": 3, "num_motifs": 200, "selection": "distinct"},
    "12 bits": {"block_size": 2, "num_motifs": 400, "selection": "distinct"},
    "with scales": {"block_size": 4, "num_motifs": 16, "bits": 8, "scales": "channel"},
}


class Everything(nn.Module):
    """Every kind of layer: tied, recurrent, attention, convolutions, a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.lstm = nn.LSTM(16, 16, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(32, 16, batch_first=True)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.conv = nn.Conv1d(16, 12, 3, padding=1)
        self.up = nn.ConvTranspose1d(12, 16, 3, padding=1)
        self.norm = nn.LayerNorm(16)
        self.linear = nn.Linear(16, 16)
        self.mix = nn.Parameter(torch.randn(16, 16) / 4)
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x, _ = self.gru(self.lstm(self.embed(ids))[0])
        x = x + self.attend(x, x, x, need_weights=False)[0]
        x = self.up(self.conv(x.transpose(1, 2)).relu()).transpose(1, 2)
        return self.head(self.linear(self.norm(x)).relu() @ self.mix)


class Plain(nn.Module):
    """What torch.compile and torch.export take without a graph break."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.linear = nn.Linear(16, 24)
        self.out = nn.Linear(24, 16, bias=False)
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.embed(ids).transpose(1, 2)).transpose(1, 2)
        return self.head(self.out(self.linear(x).relu()))


IDS = torch.arange(20).view(4, 5)


def mosaic(build=Everything, name="4 bits", dtype=torch.float32):
    torch.manual_seed(0)
    model = build().to(dtype).eval()
    options = CONFIGS[name]
    if "scales" in options:
        config = MosaicConfig.learned(**options)
        momos.parametrize_(model, config)
        momos.freeze_(model)
    else:
        momos.project_(model, MosaicConfig(**options))
    return model


def compact(build=Everything, name="4 bits", *, exact=True):
    model = mosaic(build, name)
    momos.compact_(model, exact=exact)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_those_of_the_dense_mosaic_bit_for_bit(name):
    model = mosaic(name=name)
    wanted = model(IDS)
    report = momos.compact_(model, exact=True)
    assert torch.equal(model(IDS), wanted)
    assert {"embed.weight", "lstm.weight_hh_l0", "attend.in_proj_weight", "mix"} <= set(
        report.weights
    )
    assert not any(p.ndim > 1 for p in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_products_by_table_agree_within_rounding(name):
    model = mosaic(name=name)
    wanted = model(IDS)
    momos.compact_(model)
    assert not torch.equal(model(IDS), wanted) or name != "4 bits"
    assert torch.allclose(model(IDS), wanted, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_expanding_restores_everything(name):
    model = mosaic(name=name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    known = momos.Mosaic.of(model)
    momos.compact_(model)
    momos.expand_(model)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)
    assert [type(module) for module in model.modules()] == kinds
    assert model.head.weight is model.embed.weight
    found = momos.Mosaic.of(model)
    assert torch.equal(found.indices, known.indices)
    assert found.config == known.config
    assert all(p.requires_grad for p in model.parameters())


def test_tied_weights_and_the_bank_are_held_once():
    model = compact()
    names = list(model.state_dict())
    assert "embed.weight_mosaic.indices" in names
    assert not any(name.startswith("head.") for name in names)
    assert [name for name in names if "motifs" in name] == ["momos.motifs"]
    assert model.head.weight_mosaic is model.embed.weight_mosaic


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_shares_its_own_bank(way):
    model = compact()
    wanted = model(IDS)
    if way == "deepcopy":
        other = copy.deepcopy(model)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        torch.save(model, file := io.BytesIO())
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert torch.equal(other(IDS), wanted)
    bank = bank_of(other)
    assert bank is not bank_of(model)
    assert all(packed.bank is bank for _, packed in packed_weights(other))
    momos.expand_(other)
    assert is_compact(model)
    assert torch.equal(other(IDS), wanted)


def test_state_dicts_are_loaded():
    one, other = compact(), compact()
    with torch.no_grad():
        bank_of(other).motifs.add_(1)
    assert not torch.equal(other(IDS), one(IDS))
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(IDS), one(IDS))


def test_another_dtype_is_that_of_the_dense_network():
    dense = mosaic()
    model = compact()
    for dtype in (torch.bfloat16, torch.float64, torch.float32):
        other = copy.deepcopy(model).to(dtype)
        assert other.linear.weight.dtype == dtype
        assert torch.equal(other(IDS), copy.deepcopy(dense).to(dtype)(IDS))
    back = model.to(torch.float16).to(torch.float32)
    assert torch.equal(back.linear.weight, dense.linear.weight)  # nothing was rounded


def test_gradients_flow_to_inputs_and_biases():
    dense, model = mosaic(Plain), compact(Plain)
    inputs = torch.randn(6, 16)
    gradients = []
    for network in (dense, model):
        own = inputs.clone().requires_grad_()
        network.zero_grad()
        network.linear(own).square().sum().backward()
        gradients.append((own.grad, network.linear.bias.grad))
    assert torch.allclose(gradients[0][0], gradients[1][0], atol=1e-5)
    assert torch.allclose(gradients[0][1], gradients[1][1], atol=1e-5)


def test_what_a_product_keeps_for_its_gradient_is_not_the_dense_weight():
    model, kept = compact(Plain), []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.linear(torch.randn(6, 16, requires_grad=True))
    assert all(tensor.shape != (24, 16) for tensor in kept)


def test_autocast_computes_in_its_dtype():
    dense, model = mosaic(Plain), compact(Plain)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        wanted, found = dense(IDS), model(IDS)
    assert found.dtype == wanted.dtype == torch.bfloat16
    assert torch.equal(found, wanted)


def test_compiling_needs_no_graph_break():
    model = compact(Plain, exact=False)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(IDS), model(IDS))


def test_an_exported_program_takes_any_batch():
    model = compact(Plain, exact=False)
    batch = {"ids": {0: torch.export.Dim("batch", min=1, max=200)}}
    with torch.no_grad():
        program = torch.export.export(model, (IDS,), dynamic_shapes=batch)
        for ids in (IDS[:1], IDS.repeat(20, 1)):
            assert torch.allclose(program.module()(ids), model(ids), atol=1e-6)
    assert "momos.motifs" in program.state_dict
    dense = sum(t.numel() for n, t in program.state_dict.items() if "bias" not in n)
    assert dense < 1500  # bytes of indices, and motifs; the weights are 2160 values


def test_what_must_stay_dense_is_named_with_its_reason():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ParameterList([torch.randn(8, 8)])
            self.renorm = nn.Embedding(8, 8, max_norm=1.0)
            self.linear = nn.Linear(8, 8)

    model = Odd()
    momos.project_(model, MosaicConfig(block_size=4, num_motifs=8))
    report = momos.compact_(model)
    assert report.weights == ("linear.weight",)
    assert report.dense == {
        "parts.0": "in a ParameterList, which reads its own parameters",
        "renorm.weight": "of an embedding whose max_norm changes it",
        "linear.bias": "fewer than 2 dimensions",
    }
    assert "renorm.weight: of an embedding" in str(report)


def test_indices_that_save_nothing_leave_a_weight_dense():
    model = nn.Linear(64, 64, dtype=torch.float16)
    momos.project_(model, MosaicConfig(block_size=1, num_motifs=4096, selection="distinct"))
    report = momos.compact_(model)
    assert report.weights == ("weight",)  # 12 bits are fewer than 16
    model = nn.Linear(80, 80, dtype=torch.float16)
    momos.project_(model, MosaicConfig(block_size=1, num_motifs=5000))
    assert "16 bits for each of its blocks" in momos.compact_(model).dense["weight"]


def test_sizes_are_those_of_what_is_held():
    torch.manual_seed(0)
    model = nn.Linear(256, 512)
    momos.project_(model, MosaicConfig(block_size=4, num_motifs=256))
    report = momos.compact_(model)
    assert report.bits == 8
    assert report.packed_bytes == 256 * 512 // 4 + 256 * 4 * 4
    assert report.dense_bytes == 256 * 512 * 4
    assert not hasattr(model, "_momos_mosaic")  # it would hold every index once more


def test_faults_are_named():
    with pytest.raises(ValueError, match="Linear was never projected"):
        momos.compact_(nn.Linear(4, 4))
    with pytest.raises(
        ValueError, match="model must be a compact network, but Linear is not"
    ):
        momos.expand_(nn.Linear(4, 4))
    model = compact(Plain)
    with pytest.raises(ValueError, match="CompactLinear is a part of one: pass the whole"):
        momos.expand_(model.linear)
    with pytest.raises(ValueError, match="must have dense weights, but Plain is compact"):
        momos.compact_(model)
    with pytest.raises(ValueError, match="must have dense weights, but Plain is compact"):
        momos.Mosaic.of(model)
    with pytest.raises(ValueError, match="inputs must have 16 features, got shape"):
        model.linear(torch.zeros(2, 15))
    with pytest.raises(IndexError):
        model.embed(torch.tensor([30]))
    taken = nn.Sequential()
    taken.add_module("momos", nn.Linear(4, 4))
    momos.project_(taken, MosaicConfig(block_size=4, num_motifs=4))
    with pytest.raises(ValueError, match="no attribute 'momos' of its own"):
        momos.compact_(taken)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: momos.project_(model, MosaicConfig(block_size=4, num_motifs=4)),
        lambda model: momos.parametrize_(model, MosaicConfig.learned()),
        lambda model: momos.compress(model, "unwritten.momos"),
        momos.measure,
        lambda model: momos.compact_(model[0]),
    ],
    ids=["project_", "parametrize_", "compress", "measure", "compact_"],
)
def test_what_needs_dense_weights_refuses_a_compact_network(use):
    """Of which it would see the biases and packed indices alone."""
    model = nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 8))
    momos.project_(model, MosaicConfig(block_size=4, num_motifs=8, min_ndim=2))
    momos.compact_(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"model must have dense weights, but .* is compact"
    ):
        use(model)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_several_compact_networks_in_one_are_expanded_apart():
    parts = [nn.Linear(16, 16) for _ in range(2)]
    for part in parts:
        momos.project_(part, MosaicConfig(block_size=4, num_motifs=8, min_ndim=2))
        momos.compact_(part)
    model = nn.Sequential(*parts)
    words = r"one bank of motifs, but Sequential has 2: '0\.momos', '1\.momos'"
    with pytest.raises(ValueError, match=words):
        momos.expand_(model)
    for part in parts:
        momos.expand_(part)
    assert not is_compact(model)


def test_an_input_without_a_batch_gives_gradients():
    dense, model = mosaic(Plain), compact(Plain)
    inputs = torch.randn(16)
    gradients = []
    for network in (dense, model):
        own = inputs.clone().requires_grad_()
        network.linear(own).square().sum().backward()
        gradients.append((own.grad, network.linear.bias.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_an_empty_batch_gives_an_empty_output():
    model = compact(Plain, exact=False)
    assert model.linear(torch.ones(2, 0, 16)).shape == (2, 0, 24)
    assert model.embed(torch.zeros(0, dtype=torch.int64)).shape == (0, 16)
    inputs = torch.ones(0, 16, requires_grad=True)
    model.linear(inputs).sum().backward()
    assert torch.equal(model.linear.bias.grad, torch.zeros(24))


def test_one_motif_is_enough():
    model = nn.Linear(16, 24)
    momos.project_(model, MosaicConfig(block_size=4, num_motifs=1, min_ndim=2))
    weight = model.weight.detach().clone()
    assert momos.compact_(model).bits == 4
    assert torch.allclose(model(torch.ones(16)), model.bias + weight.sum(1), atol=1e-6)
    momos.expand_(model)
    assert torch.equal(model.weight, weight)


def test_ids_of_another_dtype_are_refused():
    model = compact(Plain)
    ids = torch.tensor([3, 4])
    assert torch.equal(model.embed(ids.int()), model.embed(ids))
    for dtype in (torch.float32, torch.uint8):
        with pytest.raises(TypeError, match=f"ids must be int32 or int64, got {dtype}"):
            model.embed(ids.to(dtype))


def test_damaged_indices_are_refused_by_every_product():
    model = compact(Plain, "8 bits", exact=False)
    uses = {
        "rows": lambda: model.embed(torch.tensor([29])),
        "dense": lambda: model.embed.weight,
        "linear": lambda: model.head(torch.ones(1, 16)),
    }
    packed = model.embed.weight_mosaic
    whole = packed.indices
    packed.indices = whole[:-1]
    for use in uses.values():
        with pytest.raises(
            ValueError, match=r"shape \(30, 16\) must have 160 bytes, got 159"
        ):
            use()
    packed.indices = torch.full_like(whole, 255)
    for use in uses.values():
        with pytest.raises(ValueError, match="packed indices must be below 200"):
            use()


def test_motifs_that_are_not_finite_show_and_are_not_expanded():
    model = compact(Plain)
    with torch.no_grad():
        bank_of(model).motifs[1:] = float("nan")
    found = []
    for exact in (True, False):
        bank_of(model).exact = exact
        found.append(model.linear(torch.ones(16)).isnan())
    assert bool(found[0].any())
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="motifs must be finite"):
        momos.expand_(model)
    assert is_compact(model)


def test_motifs_of_another_model_are_refused():
    model = compact(Plain, "8 bits")
    other = compact(Plain)
    with pytest.raises(RuntimeError, match=r"size mismatch for momos\.motifs"):
        other.load_state_dict(model.state_dict())
    packed = other.linear.weight_mosaic
    packed.indices.fill_(255)
    bank_of(other).motifs = bank_of(other).motifs[:9]
    with pytest.raises(ValueError, match="packed indices must be below 9"):
        other.linear.weight  # noqa: B018


def test_another_default_device_changes_nothing():
    model = mosaic()
    wanted = model(IDS)
    with torch.device("meta"):
        momos.compact_(model, exact=True)
    assert torch.equal(model(IDS), wanted)
    with torch.device("meta"):
        momos.expand_(model)
    assert torch.equal(model(IDS), wanted)
