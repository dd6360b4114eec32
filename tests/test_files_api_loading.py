"""A model takes all values of a file, or stays as it is."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

import momos
from momos import Mosaic
from networks import Buffers, Tied, assert_equal, named, network, projected, values


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


@pytest.mark.parametrize("kept", ["a.weight", "b.weight"])
def test_a_name_that_the_model_ties_to_one_in_the_file_is_there(kept, path, tmp_path):
    state = {kept: torch.randn(6, 6), "a.bias": torch.randn(6), "b.bias": torch.randn(6)}
    torch.save(state, tmp_path / "x.pt")
    momos.compress(tmp_path / "x.pt", path, momos.MosaicConfig(num_motifs=4))
    model = Tied()
    momos.load_(model, path)
    assert torch.equal(model.get_parameter("a.weight"), momos.load(path).state_dict()[kept])
    assert model.get_parameter("a.weight") is model.get_parameter("b.weight")
    assert Mosaic.of(model).num_motifs == 4


def test_a_name_that_nothing_ties_is_missed(path, tmp_path):
    state = {"a.weight": torch.randn(6, 6), "a.bias": torch.randn(6)}
    torch.save(state, tmp_path / "x.pt")
    momos.compress(tmp_path / "x.pt", path, momos.MosaicConfig(num_motifs=4))
    assert untouched(Tied(), path, "only the model has").endswith("has: b.bias")


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
