"""A model is run undisturbed: it is the same afterwards."""

import pytest
import torch
from torch import Tensor, nn

from momos.observation import undisturbed
from networks import bits, named


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
