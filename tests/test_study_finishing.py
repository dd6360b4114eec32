"""A finished copy is what finishing would leave, and its original does not notice."""

from typing import Any

import pytest
import torch
from torch import nn

from momos.study.training.history import finish_, finished_copy
from momos.study.training.learner import loss_of
from momos.study.treatments import TREATMENTS
from momos.study.treatments.treatment import Treatment

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("dense", {"dtype": "bfloat16"}),
    ("prune", {"sparsity": 0.8, "begin": 0.0, "end": 0.3}),
    ("quantize_aware", {"bits": 2, "scale": "learned"}),
    ("quantize_aware", {"bits": 3}),
    ("sampled", {"num_motifs": 9, "every": 3}),
    ("sampled", {"num_motifs": 9, "levels": 7}),
    ("learned", {"num_motifs": 8, "rate_weight": 0.3}),
    ("learned", {"num_motifs": 8, "learn": "motifs"}),
]
IDS = [f"{name}-{number}" for number, (name, _) in enumerate(SETTINGS)]
STEPS = 8


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    )


def states(network: nn.Module) -> dict[str, list]:
    return {name: value.tolist() for name, value in network.state_dict().items()}


def trained(
    treatment: Treatment, copy_at: int, channels_last: bool
) -> tuple[nn.Module, dict[str, list] | None]:
    """A finished network, and what a copy was after so many steps."""
    network = small()
    if channels_last:
        network.to(memory_format=torch.channels_last)
    treatment.start(network, STEPS, epochs=2, seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    copied = None
    for step in range(1, STEPS + 1):
        images = torch.randn(8, 2, 6, 6, generator=generator)
        labels = torch.randint(4, (8,), generator=generator)
        optimizer.zero_grad()
        loss_of(network, images, labels).backward()
        optimizer.step()
        treatment.after_step()
        if step == copy_at:
            copied = states(finished_copy(network, treatment))
    finish_(network, treatment)
    return network, copied


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=IDS)
def test_a_copy_is_finished_as_the_network_would_be_and_leaves_it_as_it_is(
    name: str, settings: dict[str, Any], channels_last: bool
) -> None:
    make = TREATMENTS[name].kind
    alone, none = trained(make(**settings), 0, channels_last)
    assert none is None
    for copy_at in (5, STEPS):
        network, copied = trained(make(**settings), copy_at, channels_last)
        assert states(network) == states(alone)
        assert (copied == states(network)) == (copy_at == STEPS)


@pytest.mark.parametrize(
    ("name", "settings", "share"),
    [
        ("dense", {}, 0.0),
        ("quantize_aware", {}, 0.0),
        ("sampled", {}, 0.0),
        ("prune", {"begin": 0.2, "end": 0.6}, 0.6),
        ("prune", {"begin": 0.2, "schedule": "one-shot"}, 0.2),
        ("learned", {"dense": 0.25, "ramp": 0.5}, 0.5),
        ("learned", {"dense": 0.25, "rate_weight": 0.0}, 0.25),
        ("learned", {"learn": "motifs"}, 0.0),
    ],
)
def test_treatments_say_from_when_on_a_network_is_all_they_ask_for(
    name: str, settings: dict[str, Any], share: float
) -> None:
    assert TREATMENTS[name].kind(**settings).settled == share
