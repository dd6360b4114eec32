import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from momos.study.tasks import TASKS
from momos.study.tasks.architectures import CharacterTransformer
from momos.study.tasks.archives import Images, published_resnet
from momos.study.tasks.task import (
    CONTEXT,
    Optimization,
    bits_per_character,
    crop_and_flip,
    encoded,
    image_task,
    seeded,
    standardised,
    text_task,
)

QUICK = Optimization(learning_rate=1e-2, batch_size=4, epochs=1)


def numbered(total: int) -> Images:
    pixels = torch.arange(total, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    return Images(pixels, torch.arange(total))


def test_an_epoch_holds_every_image_once_in_the_generators_order() -> None:
    task = image_task(
        "numbers",
        numbered(10),
        numbered(3),
        seeded(nn.Flatten),
        QUICK,
        prepared=torch.clone,
    )

    def order() -> list[list[int]]:
        generator = torch.Generator().manual_seed(3)
        batches = [list(task.batches(generator)) for _ in range(2)]
        assert {len(epoch) for epoch in batches} == {task.steps_per_epoch} == {3}
        for pixels, labels in batches[0]:
            assert torch.equal(pixels[:, 0, 0, 0], labels)
        return [torch.cat([labels for _, labels in epoch]).tolist() for epoch in batches]

    first, second = order()
    assert first != second
    assert sorted(first) == sorted(second) == list(range(10))
    assert order() == [first, second]


def test_accuracy_is_the_share_that_is_right() -> None:
    class Last(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot((x.flatten(1)[:, 0] // 2).long(), 10).float()

    data = numbered(4)
    task = image_task("n", data, data, lambda seed: Last(), QUICK, prepared=torch.clone)
    network = task.network(0)
    assert task.evaluate(network) == 0.25  # only 0 // 2 is right
    assert network.training


def test_standardised_pixels_are_per_channel() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    out = standardised((0.5, 0.25), (0.5, 0.25))(pixels)
    assert out.flatten().tolist() == [-1, 3]


def test_seeds_give_networks_and_leave_torchs_generator() -> None:
    build = seeded(lambda: nn.Linear(3, 3))
    before = torch.get_rng_state()
    one, two, other = build(1), build(1), build(2)
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_crops_and_flips_are_moved_images() -> None:
    pixels = torch.randint(1, 256, (50, 3, 8, 8), dtype=torch.uint8)
    out = crop_and_flip(pixels, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(pixels, (4, 4, 4, 4))
    moves = set()
    for image, wide in zip(out, padded, strict=True):
        ways = [
            (down, right, flipped)
            for down in range(9)
            for right in range(9)
            for flipped in (False, True)
            if torch.equal(
                image.flip(2) if flipped else image,
                wide[:, down : down + 8, right : right + 8],
            )
        ]
        assert len(ways) == 1
        moves.add(ways[0])
    assert len(moves) > 30
    again = crop_and_flip(pixels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(out, again)


def test_text_targets_are_the_next_characters_of_the_first_nine_tenths() -> None:
    text = "".join(chr(200 + i % 97) for i in range(20 * CONTEXT))
    optimization = Optimization(learning_rate=1e-2, batch_size=3, epochs=1)
    task = text_task("text", text, lambda seed: nn.Identity(), optimization)
    assert (task.metric, task.higher_is_better) == ("bits per character", False)
    assert (task.kind, task.inputs, task.outputs) == ("text", (CONTEXT,), 97)
    batches = list(task.batches(torch.Generator().manual_seed(0)))
    assert len(batches) == task.steps_per_epoch == 18 // 3
    for inputs, targets in batches:
        assert inputs.shape == targets.shape == (3, CONTEXT)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert torch.equal((inputs + 1) % 97, targets)


def test_a_blind_network_needs_log2_of_the_alphabet() -> None:
    class Blind(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*x.shape, 8)

    characters = torch.randint(8, (5 * CONTEXT + 7,))
    assert bits_per_character(Blind(), characters) == pytest.approx(3)


def test_characters_are_numbered_by_the_alphabet() -> None:
    assert encoded("cabac").tolist() == [2, 0, 1, 0, 2]


def test_the_transformer_does_not_see_ahead() -> None:
    torch.manual_seed(0)
    network = CharacterTransformer(9, context=12, width=16, depth=2).eval()
    one = torch.randint(9, (2, 12))
    two = one.clone()
    two[:, 7:] = (two[:, 7:] + 1) % 9
    first, second = network(one), network(two)
    assert torch.allclose(first[:, :7], second[:, :7])
    assert not torch.allclose(first[:, 7:], second[:, 7:])
    assert network(one[:, :5]).shape == (2, 5, 9)


def test_the_transformer_has_about_a_million_weights_and_starts_blind() -> None:
    network = seeded(lambda: CharacterTransformer(65))(0)
    assert sum(weight.numel() for weight in network.parameters()) == 1_035_072
    bits = bits_per_character(network, torch.randint(65, (2 * CONTEXT + 1,)))
    assert bits == pytest.approx(math.log2(65), abs=0.2)


def test_the_digits_need_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOMOS_DATA", raising=False)
    task = TASKS["digits"]()
    assert task.evaluate(task.network(0)) < 0.4
    assert task.steps_per_epoch == 45


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10, MNIST and Fashion-MNIST of ten images each."""
    for name, shape in (("cifar10", (3, 32, 32)), ("mnist", (1, 28, 28))):
        pixels = torch.randint(0, 256, (10, *shape), dtype=torch.uint8)
        data = Images(pixels, torch.arange(10))
        monkeypatch.setattr(
            f"momos.study.tasks.archives.{name}", lambda data=data: (data, data)
        )
    monkeypatch.setattr("momos.study.tasks.archives.fashion_mnist", lambda: (data, data))


@pytest.mark.parametrize("name", ["mnist", "fashion", "cifar10-mlp", "resnet20-scratch"])
@pytest.mark.usefixtures("few")
def test_a_task_says_what_its_networks_take_and_give(name: str) -> None:
    task = TASKS[name]()
    network = task.network(0)
    (inputs, targets), *_ = task.batches(torch.Generator().manual_seed(0))
    assert (inputs.shape[1:], task.kind) == (task.inputs, "image")
    assert network(inputs).shape == (len(targets), task.outputs) == (10, 10)
    assert 0 <= task.evaluate(network) <= 1


@pytest.mark.usefixtures("few")
def test_the_papers_cifar_tasks_share_images_and_plan() -> None:
    pytest.importorskip("transformers")
    perceptron, transformer = TASKS["cifar10-mlp"](), TASKS["cifar10-vit"]()
    one, two = (
        next(task.batches(torch.Generator().manual_seed(3)))[0]
        for task in (perceptron, transformer)
    )
    assert torch.equal(one, two)
    assert perceptron.optimization == transformer.optimization
    assert perceptron.optimization.epochs == 200
    with torch.device("meta"):
        built = transformer.network(0)
    assert sum(weight.numel() for weight in built.parameters()) == 5_526_346


def test_loading_weights_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet20_cifar10.safetensors").touch()
    monkeypatch.setenv("MOMOS_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'pip install "mosaic-of-motifs\[study\]"'):
        published_resnet(20, nn.Identity())


def test_the_learning_rate_rises_and_falls() -> None:
    plan = Optimization(learning_rate=1.0, batch_size=1, epochs=1, warmup=0.1)
    rates = [plan.rate_at(step, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[9] == 1 == rates[10]
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_matrices_decay(optimizer) -> None:
    plan = Optimization(optimizer=optimizer, learning_rate=0.1, batch_size=1, epochs=1)
    groups = plan.optimizer_of(nn.Linear(2, 3)).param_groups
    assert [group["weight_decay"] for group in groups] == [1e-2, 0.0]
    assert [[w.ndim for w in group["params"]] for group in groups] == [[2], [1]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0 and finite, got 0\.0"),
        ({"warmup": 1.0}, r"warmup must be at least 0 and below 1, got 1\.0"),
    ],
)
def test_optimizations_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Optimization(**({"learning_rate": 1.0, "batch_size": 1, "epochs": 1} | settings))
