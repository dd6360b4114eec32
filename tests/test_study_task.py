"""Samples that are held out are never trained on, and the same whatever else differs."""

import pytest
import torch
from torch import nn

from momos.study.cell import Cell
from momos.study.tasks.archives import Images
from momos.study.tasks.task import (
    CONTEXT,
    Optimization,
    Task,
    image_task,
    pair_task,
    parted,
    text_task,
)
from momos.study.training.preparation import prepared

QUICK = Optimization(learning_rate=1e-2, batch_size=4, epochs=1)
SAMPLES = Images(torch.arange(40.0)[:, None], torch.arange(40))
TEXT = "".join(chr(200 + place % 97) for place in range(40 * CONTEXT))


def numbers() -> Task:
    return image_task(
        *("numbers", SAMPLES, SAMPLES, lambda seed: Lists(), QUICK),
        prepared=lambda pixels: pixels,
    )


def pairs() -> Task:
    return pair_task("pairs", SAMPLES, SAMPLES, lambda seed: Lists(), QUICK, modulus=40)


class Lists(nn.Module):
    """Remembers what it has been shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shown.append(x.flatten())
        return torch.zeros(len(x), 40)


def held(task: Task) -> set[int]:
    network = Lists()
    assert task.validate is not None
    task.validate(network)
    return set(torch.cat(network.shown).int().tolist())


def trained(task: Task, seed: int) -> list[int]:
    batches = list(task.batches(torch.Generator().manual_seed(seed)))
    assert len(batches) == task.steps_per_epoch
    return torch.cat([inputs.flatten() for inputs, _ in batches]).int().tolist()


@pytest.mark.parametrize("make", [numbers, pairs])
def test_samples_held_out_are_in_no_batch(make) -> None:
    task = make().held_out(0.3)
    assert len(held(task)) == 12
    for seed in range(3):
        seen = trained(task, seed)
        assert len(seen) == 28
        assert set(seen) == set(range(40)) - held(task)
    assert held(make().held_out(0.3)) == held(task)
    assert task.outputs == make().outputs


def test_fewer_steps_are_an_epoch_where_samples_are_held_out() -> None:
    assert numbers().steps_per_epoch == 10
    assert numbers().held_out(0.3).steps_per_epoch == 7


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    assert held(numbers().held_out(0.1)) < held(numbers().held_out(0.5))


def test_nothing_is_held_out_by_default() -> None:
    task = numbers()
    assert task.held_out(0) is task
    assert task.validate is None
    assert sorted(trained(task, 0)) == list(range(40))


def test_of_a_text_the_end_before_the_test_is_held_out() -> None:
    whole = text_task("text", TEXT, lambda seed: nn.Identity(), QUICK)
    task = whole.held_out(0.25)
    assert whole.steps_per_epoch == 36 // 4
    assert task.steps_per_epoch == 27 // 4
    assert task.outputs == whole.outputs == 97

    class Starts(Lists):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.shown.append(x[:, 0])
            return torch.zeros(*x.shape, 97)

    network = Starts()
    assert task.validate is not None
    task.validate(network)
    shown = torch.cat(network.shown)
    assert shown.tolist() == [(27 + i) * CONTEXT % 97 for i in range(8)]


def test_characters_held_out_are_in_no_batch() -> None:
    text = "a" * 600 + "b" * 600 + "c" * 200  # of the first 1260, 630 are kept
    task = text_task("text", text, lambda seed: nn.Identity(), QUICK).held_out(0.5)
    inputs, targets = next(task.batches(torch.Generator().manual_seed(0)))
    assert int((inputs == 1).sum()) <= 4 * 30
    assert int(targets.max()) <= 1


def test_classes_that_are_held_out_are_classes_still() -> None:
    labels = torch.tensor([0, 0, 0, 3])
    _, held_out = parted("few", Images(torch.zeros(4, 1), labels), 0.25)
    few = Images(torch.zeros(4, 1), labels.roll(int(held_out.labels[0] == 0)))
    task = image_task(
        *("few", few, few, lambda seed: Lists(), QUICK), prepared=lambda pixels: pixels
    )
    assert task.held_out(0.25).outputs == 4


@pytest.mark.parametrize(
    ("make", "share", "message"),
    [
        (numbers, 0.01, "must leave 'numbers' samples .* held out, got 0.01 of 40"),
        (numbers, 0.99, "must leave 'numbers' samples to train on .*, got 0.99 of 40"),
        (lambda: numbers().held_out(0.5), 0.5, "must be 0 for the task 'numbers'"),
        (
            lambda: text_task("text", TEXT, lambda seed: nn.Identity(), QUICK),
            0.01,
            "must leave 'text' more than 128 characters held out",
        ),
        (
            lambda: text_task("text", TEXT, lambda seed: nn.Identity(), QUICK),
            0.9,
            "and a batch to train on, got 0.9 of 4608",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(make, share: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"validation {message}|{message}"):
        make().held_out(share)


def test_treatments_calibrate_on_what_is_trained_on() -> None:
    whole = prepared(Cell(task="digits")).task
    cell = Cell(task="digits", treatment="learned", validation=0.2)
    plan = prepared(cell)
    task, treatment = plan.task, plan.treatment
    assert treatment.task is task  # type: ignore[attr-defined]
    assert task.steps_per_epoch == -(-(1437 - 287) // 32) < whole.steps_per_epoch
