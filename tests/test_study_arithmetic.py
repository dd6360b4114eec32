import pytest
import torch

from momos.study.tasks import TASKS
from momos.study.tasks.architectures import PairNetwork
from momos.study.tasks.archives import additions
from momos.study.tasks.task import Steady
from momos.study.training.learner import loss_of


def test_every_pair_is_in_one_half_with_its_sum() -> None:
    train, test = additions()
    assert (len(train), len(test)) == (4704, 4705)
    pairs = torch.cat([train.pixels, test.pixels])
    assert len(pairs.unique(dim=0)) == 97**2
    assert int(pairs.min()) == 0
    assert int(pairs.max()) == 96
    labels = torch.cat([train.labels, test.labels])
    assert torch.equal(labels, (pairs[:, 0] + pairs[:, 1]) % 97)


def test_the_split_is_fixed() -> None:
    before = torch.get_rng_state()
    (one, _), (two, _) = additions(), additions()
    assert torch.equal(one.pixels, two.pixels)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_of_the_pairs_are_trained_on() -> None:
    train, test = additions(5)
    assert (len(train), len(test)) == (12, 13)


def test_the_rate_stays() -> None:
    plan = Steady(learning_rate=1.0, batch_size=1, epochs=1)
    assert {plan.rate_at(step, 100) for step in range(100)} == {1.0}
    warm = Steady(learning_rate=1.0, batch_size=1, epochs=1, warmup=0.04)
    assert [warm.rate_at(step, 100) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize(("width", "weights"), [(128, 57_825), (256, 181_089)])
def test_the_weights_of_the_network(width: int, weights: int) -> None:
    """The 58 and 181 thousand of what was measured before there was this module."""
    network = PairNetwork(width)
    assert sum(weight.numel() for weight in network.parameters()) == weights
    assert network(torch.tensor([[3, 96], [0, 0]])).shape == (2, 97)


def test_the_places_of_a_pair_differ() -> None:
    torch.manual_seed(0)
    network = PairNetwork(8, modulus=5)
    assert not torch.allclose(
        network(torch.tensor([[1, 2]])), network(torch.tensor([[2, 1]]))
    )


def test_a_width_is_at_least_1() -> None:
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        PairNetwork(0)


def test_an_epoch_is_one_step_on_all_of_the_first_half() -> None:
    task = TASKS["mod97"]()
    assert task.steps_per_epoch == 1
    ((pairs, sums),) = task.batches(torch.Generator().manual_seed(0))
    assert torch.equal(pairs, additions()[0].pixels)
    assert torch.equal(sums, additions()[0].labels)
    plan = task.optimization
    assert (plan.optimizer, plan.learning_rate, plan.weight_decay) == ("adamw", 1e-3, 1.0)
    assert plan.batch_size == len(pairs)
    assert loss_of(task.network(0), pairs, sums).item() == pytest.approx(4.6, abs=0.1)


def test_success_is_on_the_other_half() -> None:
    class Sums(torch.nn.Module):
        def __init__(self, known: torch.Tensor) -> None:
            super().__init__()
            self.known = {tuple(pair) for pair in known.tolist()}

        def forward(self, pairs: torch.Tensor) -> torch.Tensor:
            right = torch.tensor([tuple(pair) in self.known for pair in pairs.tolist()])
            answer = (pairs.sum(1) + ~right) % 97
            return torch.nn.functional.one_hot(answer, 97).float()

    task = TASKS["mod97"]()
    train, test = additions()
    assert task.evaluate(Sums(train.pixels)) == 0
    assert task.evaluate(Sums(test.pixels)) == 1
