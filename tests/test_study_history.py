"""The best line and the end follow from the lines; a finished copy leaves its original alone."""

from dataclasses import replace
from math import nan
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from treated import points

from momos.study.cell import Cell
from momos.study.training.history import Choice, finish_, finished_copy
from momos.study.training.learner import loss_of
from momos.study.training.preparation import Prepared
from momos.study.treatments import TREATMENTS
from momos.study.treatments.prune import Prune
from momos.study.treatments.treatment import Treatment

values = st.lists(st.integers(0, 3), min_size=1, max_size=12)


def lines(*validations: float) -> list[dict]:
    """Before training, and after each epoch."""
    return [
        {"epoch": epoch, "validation": value}
        for epoch, value in enumerate([9, *validations])
    ]


def choice(settled: int = 0, patience: int = 0, higher_is_better: bool = True) -> Choice:
    return Choice(settled, patience, higher_is_better)


def epoch_of(found: Choice, *validations: float) -> int | None:
    best = found.best(lines(*validations))
    return best and best["epoch"]


def test_the_first_of_the_best_is_the_best_and_none_before_training() -> None:
    assert epoch_of(choice(), 1, 3, 3, 2) == 2
    assert epoch_of(choice(higher_is_better=False), 2, 1, 3, 1) == 2
    assert epoch_of(choice(settled=3), 1, 3, 1, 2) == 4
    assert epoch_of(choice(settled=3), 1, 3) is None
    assert epoch_of(choice(), nan, 1, nan) == 2


@settings(max_examples=40)
@given(values, st.integers(0, 4), st.integers(1, 3))
def test_it_stops_when_patience_has_run_out_for_the_first_time(
    found: list[int], settled: int, patience: int
) -> None:
    chosen = choice(settled, patience)
    stop = next((n for n in range(len(found) + 1) if chosen.stops(lines(*found[:n]))), None)
    best, waited, expected = -1, 0, None
    for epoch, value in enumerate(found, start=1):
        if epoch >= settled:
            best, waited = max(best, value), 0 if value > best else waited + 1
        if waited == patience:
            expected = epoch
            break
    assert stop == expected


def test_without_patience_nothing_stops_it() -> None:
    assert not choice().stops(lines(3, 2, 1, 0, 0, 0))


def test_what_is_no_number_is_no_better() -> None:
    assert choice(patience=2).stops(lines(nan, nan, nan))
    assert not choice(patience=2).stops(lines(nan, nan, 1))


@pytest.mark.parametrize(
    ("share", "total", "first"),
    [(0.0, 60, 0), (0.7, 60, 5), (0.7, 100, 7), (1.0, 55, 6), (0.01, 60, 1)],
)
def test_lines_count_from_a_share_of_the_steps_on(
    share: float, total: int, first: int
) -> None:
    task = replace(points(), steps_per_epoch=10)
    treatment = Prune(begin=0.0, end=share)
    cell = Cell(task="points", epochs=total / 10)
    assert Prepared(cell, task, treatment).settled_epoch == first


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
