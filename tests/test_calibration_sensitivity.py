"""Sensitivities are mean squared gradients, and measuring them leaves no trace."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from momos import sensitivities
from networks import bits

Batch = tuple[Tensor, Tensor]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)
    )


def batches(count: int = 3) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(4, 5, generator=generator),
            torch.randint(3, (4,), generator=generator),
        )
        for _ in range(count)
    ]


def loss_of(model: nn.Module) -> Callable[[Batch], Tensor]:
    return lambda batch: cross_entropy(model(batch[0]), batch[1])


def test_they_are_the_mean_squares_of_gradients() -> None:
    model = network()
    found = sensitivities(model, batches(), loss_of(model))
    model.eval()
    wanted = dict.fromkeys(found, 0.0)
    for batch in batches():
        model.zero_grad()
        loss_of(model)(batch).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            wanted[name] += float(parameter.grad.double().square().mean()) / 3
    assert found == pytest.approx(wanted, rel=1e-6)
    assert list(found) == [name for name, _ in model.named_parameters()]


def test_of_a_linear_loss_they_are_known() -> None:
    model = nn.Linear(2, 1, bias=False)
    inputs = [torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])]
    found = sensitivities(model, inputs, lambda batch: model(batch).sum())
    assert found == {"weight": pytest.approx((25 / 2 + 1 / 2) / 2)}


def test_the_model_is_left_as_it_was() -> None:
    model = network()
    loss_of(model)(batches()[0]).backward()
    model.train()
    model[3].eval()

    def state() -> tuple:
        held = {name: bits(tensor) for name, tensor in model.state_dict().items()}
        gradients = [bits(p.grad) for p in model.parameters() if p.grad is not None]
        modes = [module.training for module in model.modules()]
        return held, gradients, modes, bits(torch.get_rng_state())

    def loss(batch: Batch) -> Tensor:
        assert not any(module.training for module in model.modules())
        assert torch.is_grad_enabled()
        torch.rand(3)
        model[1].running_mean.add_(1)
        return loss_of(model)(batch)

    before = state()
    sensitivities(model, batches(), loss)
    assert state() == before
    with torch.no_grad():
        sensitivities(model, batches(), loss)
    assert state() == before


def test_an_error_leaves_the_model_as_it_was() -> None:
    model = network()
    modes = [module.training for module in model.modules()]

    def fails(batch: Batch) -> Tensor:
        raise KeyError("no")

    with pytest.raises(KeyError):
        sensitivities(model, batches(), fails)
    assert [module.training for module in model.modules()] == modes


def test_frozen_and_unused_parameters() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    model.add_module("unused", nn.Linear(2, 2))
    found = sensitivities(model, batches(), lambda batch: model[:4](batch[0]).sum())
    assert "0.weight" not in found
    assert found["unused.weight"] == found["unused.bias"] == 0
    assert found["3.weight"] > 0


def test_tied_weights_are_one() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    found = sensitivities(model, [torch.ones(1, 3)], lambda batch: model(batch).sum())
    assert list(found) == ["0.weight", "0.bias", "1.bias"]


def test_batches_may_be_made_as_they_are_needed() -> None:
    model = network()
    made = sensitivities(model, iter(batches()), loss_of(model))
    assert made == sensitivities(model, batches(), loss_of(model))


def test_no_batches_are_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="there must be at least one batch, got none"):
        sensitivities(model, [], loss_of(model))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(value) -> None:
    model = network()
    with pytest.raises(ValueError, match=f"the loss must be finite, got {value}"):
        sensitivities(model, batches(), lambda batch: loss_of(model)(batch) * value)


def test_weights_without_values_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="'weight' must hold values to be run, got a meta"):
        sensitivities(model, [torch.ones(1, 2)], lambda batch: model(batch).sum())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0, "got 1.0"),
        (torch.tensor(1.0), r"got a tensor of shape \(\) without a gradient"),
        (torch.ones(3, requires_grad=True), r"of shape \(3,\) with a gradient"),
    ],
)
def test_what_is_no_loss_is_refused(value, shown) -> None:
    with pytest.raises(ValueError, match="loss must return one number that .*" + shown):
        sensitivities(network(), batches(), lambda batch: value)
