"""Loading a file compact gives what loading it and then compacting gives, without dense weights."""

import pytest
import torch
from torch import nn

import momos
from momos import LatticeConfig, MosaicConfig


class Net(nn.Module):
    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 24)
        self.conv = nn.Conv1d(24, 24, 3, padding=1)
        self.norm = nn.BatchNorm1d(24)
        self.head = nn.Linear(24, 40)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(self.embed(ids).transpose(1, 2)))
        return self.head(x.transpose(1, 2))


IDS = torch.arange(40).view(4, 10)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.momos"


def saved(path, **options):
    torch.manual_seed(0)
    model = Net().eval()
    options = {"block_size": 4, "num_motifs": 16} | options
    momos.project_(model, MosaicConfig(**options))
    momos.save(model, path)
    return model


def test_a_model_on_the_meta_device_gets_everything(path):
    dense = saved(path)
    with torch.device("meta"):
        model = Net().eval()
    report = momos.load_(model, path, compact=True)
    model.momos.exact = True
    assert report.weights == ("embed.weight", "conv.weight")
    assert set(report.dense) == {"conv.bias", "norm.weight", "norm.bias", "head.bias"}
    assert torch.equal(model(IDS), dense(IDS))
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert isinstance(model.norm.weight, nn.Parameter)
    momos.expand_(model)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in dense.state_dict().items())
    momos.Mosaic.of(model)


def test_a_model_with_values_gets_those_of_the_file(path):
    dense = saved(path)
    model = Net().eval()
    momos.load_(model, path, compact=True)
    model.momos.exact = True
    assert torch.equal(model(IDS), dense(IDS))


def test_ties_of_the_file_are_kept_where_the_model_has_none(path):
    dense = saved(path)
    with torch.device("meta"):
        model = Net(tied=False).eval()
    momos.load_(model, path, compact=True)
    model.momos.exact = True
    assert model.head.weight_mosaic is model.embed.weight_mosaic
    assert torch.equal(model(IDS), dense(IDS))


@pytest.mark.parametrize("states", [1, 8])
def test_a_compressed_file_runs_from_whole_numbers(path, states):
    torch.manual_seed(0)
    source = Net().eval()
    momos.compress(source, path, LatticeConfig(states=states))
    dense = Net().eval()
    momos.load_(dense, path)
    with torch.device("meta"):
        model = Net().eval()
    report = momos.load_(model, path, compact=True)
    assert report.bits <= 12
    assert report.packed_bytes < report.dense_bytes / 2
    wanted = dense(IDS)
    assert torch.allclose(model(IDS), wanted, atol=1e-5)
    model.momos.exact = True
    assert torch.equal(model(IDS), wanted)


def test_output_channels_along_another_dimension(path):
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 24))
    momos.compress(source, path, LatticeConfig(channel_axis="last", unit="channel"))
    dense, model = (nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 24)) for _ in range(2))
    momos.load_(dense, path)
    momos.load_(model, path, compact=True)
    inputs = torch.randn(2, 24)
    assert torch.allclose(model(inputs), dense(inputs), atol=1e-5)
    model.momos.exact = True
    assert torch.equal(model(inputs), dense(inputs))


def test_a_compact_network_is_saved_as_the_dense_one(path, tmp_path):
    dense = saved(path)
    model = Net().eval()
    momos.load_(model, path, compact=True)
    again = tmp_path / "again.momos"
    momos.save(model, again)
    momos.save(dense, path)
    assert again.read_bytes() == path.read_bytes()


def test_what_does_not_fit_is_named_and_nothing_changed(path):
    saved(path)
    model = nn.Linear(3, 3)
    before = model.weight.clone()
    with pytest.raises(ValueError, match="only the model has: weight, bias"):
        momos.load_(model, path, compact=True)
    assert torch.equal(model.weight, before)
    with torch.device("meta"):
        other = Net()
        other.register_buffer("table", torch.ones(3), persistent=False)
    words = r"on the meta device, and not in the file \(make them on the CPU\): table"
    with pytest.raises(ValueError, match=words):
        momos.load_(other, path, compact=True)
    momos.compress(model, path, lossless=True)
    with pytest.raises(ValueError, match="no tensor in it is blocks"):
        momos.load_(model, path, compact=True)


@pytest.mark.parametrize("compact", [False, True])
def test_a_temporary_buffer_that_cannot_take_its_values_stays_as_it_is(path, compact):
    dense = saved(path)
    for name, buffer in (
        ("place", torch.ones(4)),
        ("mask", torch.ones(2, dtype=torch.int64)),
    ):
        dense.register_buffer(name, buffer, persistent=False)
    momos.save(dense, path)
    model = Net().eval()
    model.register_buffer("place", torch.zeros(1).expand(4), persistent=False)
    model.register_buffer("mask", torch.zeros(2), persistent=False)
    momos.load_(model, path, compact=compact)
    assert not model.place.any()
    assert not model.mask.any()


def test_a_damaged_file_leaves_the_model_as_it_was(path):
    saved(path)
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    model = Net()
    with pytest.raises(momos.FormatError):
        momos.load_(model, path, compact=True)
    assert isinstance(model.embed.weight, nn.Parameter)
    assert not hasattr(model, "momos")
