"""What networks are trained to lower, alone and with a teacher."""

import torch
from torch import nn

from momos.study.training.learner import TEMPERATURE, loss_of


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(7, 5, generator=generator), torch.randint(
        3, (7,), generator=generator
    )


def test_a_network_that_equals_its_teacher_learns_from_the_targets_alone() -> None:
    network, (inputs, targets) = nn.Linear(5, 3), batch()
    alone = loss_of(network, inputs, targets)
    assert torch.allclose(loss_of(network, inputs, targets, network), alone / 2, atol=1e-6)


def test_what_is_lost_against_the_teacher_is_at_its_temperature() -> None:
    network, teacher, (inputs, targets) = nn.Linear(5, 3), nn.Linear(5, 3), batch()
    own, wanted = ((f(inputs) / TEMPERATURE).softmax(1) for f in (network, teacher))
    lost = (wanted * (wanted.log() - own.log())).sum(1).mean()
    expected = (loss_of(network, inputs, targets) + TEMPERATURE**2 * lost) / 2
    assert torch.allclose(loss_of(network, inputs, targets, teacher), expected, atol=1e-6)


def test_a_teacher_may_be_another_network_and_learns_nothing() -> None:
    teacher = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    student, (inputs, targets) = nn.Linear(5, 3), batch()
    taught = loss_of(student, inputs, targets, teacher)
    assert not torch.equal(loss_of(student, inputs, targets), taught)
    taught.backward()
    assert student.weight.grad is not None
    assert all(weight.grad is None for weight in teacher.parameters())


def test_text_has_a_target_for_every_place() -> None:
    outputs = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    places = outputs.log_softmax(2).gather(2, targets[:, :, None])
    found = loss_of(nn.Identity(), outputs, targets)
    assert torch.allclose(found, -places.mean())
