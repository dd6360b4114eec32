"""Whoever uses a tensor that a trace watches is seen, and nothing is folded then."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from momos import fold_scales_
from momos.calibration.tracing import Trace, undisturbed
from networks import bits, named


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.second = nn.BatchNorm1d(6)
        self.kept = None


def traced(net: Net) -> Trace:
    layers = {"a": net.a, "b": net.b}
    trace = Trace(layers, {"norm": net.norm, "second": net.second})
    with torch.no_grad():
        trace.run(net.eval(), torch.randn(8, 6))
    return trace


FORWARDS = {
    "residual": lambda net, y: net.norm(y) + y,
    "residual before": lambda net, y: (y * 2, net.norm(y))[1],
    "a view of it": lambda net, y: (y[0], net.norm(y))[1],
    "its memory": lambda net, y: (y.data_ptr(), net.norm(y))[1],
    "its numbers": lambda net, y: (y.tolist(), net.norm(y))[1],
    "its data": lambda net, y: (y.data, net.norm(y))[1],
    "as numpy": lambda net, y: (y.numpy(), net.norm(y))[1],
    "returned": lambda net, y: (net.norm(y), {"features": [y]})[0:2],
    "kept": lambda net, y: (setattr(net, "kept", y), net.norm(y))[1],
    "two norms": lambda net, y: net.norm(y) + net.second(y),
    "relu in place": lambda net, y: net.norm(y.relu_()),
    "one norm twice": lambda net, y: net.norm(y) + net.norm(net.b(y)),
    "after relu": lambda net, y: net.norm(y.relu()),
    "after another view": lambda net, y: net.norm(y.view_as(y)),
    "by a copy": lambda net, y: net.norm(copy.deepcopy(y)),
    "weight used": lambda net, y: net.norm(y) + net.a.weight.sum(),
    "gain used": lambda net, y: net.norm(y) * net.norm.weight,
    "statistics used": lambda net, y: net.norm(y) + net.norm.running_mean,
    "functional": lambda net, y: net.norm(y) + linear(y.new_ones(6), net.a.weight),
    "forward alone": lambda net, y: net.norm.forward(y),
    "by name": lambda net, y: net.norm(input=y),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_an_output_or_tensor_that_anything_else_uses_is_not_folded(name):
    class Case(Net):
        def forward(self, x: Tensor):
            return FORWARDS[name](self, self.a(x))

    model = Case().eval()
    before = {name: bits(tensor) for name, tensor in named(model).items()}
    folding = fold_scales_(model, torch.randn(8, 6))
    assert folding.pairs == ()
    assert [skipped.name for skipped in folding.skipped] == ["a", "b", "norm", "second"]
    assert {name: bits(tensor) for name, tensor in named(model).items()} == before


def test_the_reasons_are_given():
    class Case(Net):
        def forward(self, x: Tensor):
            y = self.a(x)
            return self.norm(y) + y + self.second(self.b(y))

    folding = fold_scales_(Case(), torch.randn(8, 6))
    assert [(f.weight, f.normalization) for f in folding.pairs] == [("b.weight", "second")]
    assert {skipped.name: skipped.reason for skipped in folding.skipped} == {
        "a": "has an output that is used more than once",
        "norm": "follows a, which has an output that is used more than once",
    }


def test_what_reads_no_values_is_no_use():
    class Case(Net):
        def forward(self, x: Tensor):
            y = self.a(x)
            assert y.shape[0] == len(y) == y.size(0)
            assert y.dtype == torch.float32
            assert y.is_floating_point()
            return self.norm(y)

    trace = traced(Case())
    assert trace.sources == {"norm": "a"}
    assert trace.shapes == {"a": (8, 6)}
    assert trace.calls == {"a": 1, "norm": 1}
    assert not trace.leaking | trace.exposed


def test_it_is_said_what_was_used_and_how():
    class Case(Net):
        def forward(self, x: Tensor):
            y = self.a(x)
            return self.norm(y) + self.second(self.b(y)) * self.norm.weight

    trace = traced(Case())
    assert trace.sources == {"norm": "a", "second": "b"}
    assert trace.leaking == {"a"}
    assert trace.exposed == {"norm"}


def test_what_a_cycle_alone_holds_is_not_held():
    class Case(Net):
        def forward(self, x: Tensor):
            y = self.a(x)
            cycle = [y]
            cycle.append(cycle)
            return self.norm(y)

    assert not traced(Case()).leaking


def run(model: nn.Module, *inputs) -> None:
    with undisturbed(model):
        model(*inputs)


class Restless(nn.Module):
    """Changes all that a forward may change, and fails if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("cache", None)
        self.norm.eval()

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        self.count += 1
        self.cache = torch.rand(3)
        self.register_buffer("more", torch.rand(2))
        assert not self.training
        assert not torch.is_grad_enabled()
        if fail:
            raise ArithmeticError
        return self.norm(self.layer(x))


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_left_as_it_was(fail):
    model, state = Restless(), torch.get_rng_state()
    before = {name: bits(tensor) for name, tensor in named(model).items()}
    if fail:
        with pytest.raises(ArithmeticError):
            run(model, torch.ones(2, 4), True)
    else:
        run(model, torch.ones(2, 4), False)
    assert {name: bits(tensor) for name, tensor in named(model).items()} == before
    assert (model.training, model.layer.training, model.norm.training) == (
        True,
        True,
        False,
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert model.cache is None
    assert not hasattr(model, "more")


def test_a_model_without_values_is_refused():
    with pytest.raises(
        ValueError, match=r"^'weight' must hold values to be run, got an uninit"
    ):
        run(nn.LazyLinear(3), torch.ones(2, 2))
    with pytest.raises(
        ValueError, match=r"^'weight' must hold values to be run, got a meta"
    ):
        run(nn.Linear(2, 3, device="meta"), torch.ones(2, 2))
