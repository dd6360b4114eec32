from pathlib import Path

import pytest
import torch
from torch import nn

from momos.study.archives import Images
from momos.study.baselines import (
    Dense,
    Prune,
    QuantizeAware,
    Sampled,
    Treatment,
    weights_of,
)
from momos.study.optimization import Optimization
from momos.study.sizes import read
from momos.study.tasks import Task, image_task, seeded
from momos.study.training import loss_of, train


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    )


@pytest.fixture(scope="module")
def task() -> Task:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (60,), generator=generator)
    pixels = torch.randn(60, 1, 6, 6, generator=generator) + labels[:, None, None, None]
    data = Images(pixels, labels)
    optimization = Optimization(learning_rate=1e-2, batch_size=10, epochs=2)
    return image_task(
        "points", data, data, seeded(small), optimization, prepared=lambda pixels: pixels
    )


TREATMENTS = [
    Dense(),
    Dense("bfloat16"),
    *(QuantizeAware(bits) for bits in (2, 3, 4, 8)),
    QuantizeAware(2, "learned"),
    QuantizeAware(3, "learned", per="tensor"),
    QuantizeAware(8, "max", "tensor"),
    Prune(0.5),
    Prune(0.98),
    Prune(0.9, "float32"),
    Prune(0.9, schedule="one-shot"),
]


@pytest.mark.parametrize("treatment", TREATMENTS, ids=str)
def test_the_file_decodes_to_the_networks_weights(
    treatment: Treatment, task: Task, tmp_path: Path
) -> None:
    outcome = train(task, treatment, 0, epochs=2, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == outcome.file_bytes
    state, found = outcome.network.state_dict(), read(path)
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype
    again = small()
    again.load_state_dict(found)
    assert task.evaluate(again) == outcome.metric


@pytest.mark.parametrize("treatment", [*TREATMENTS, Sampled(num_motifs=9)], ids=str)
def test_what_is_left_is_rounded_to_bfloat16(treatment: Treatment, task: Task) -> None:
    network = train(task, treatment, 0, epochs=1).network
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1:
            assert torch.equal(tensor.bfloat16().float(), tensor), name


@pytest.mark.parametrize("scale", ["max", "learned"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_quantized_channel_has_few_values(bits: int, scale, task: Task) -> None:
    network = train(task, QuantizeAware(bits, scale), 0, epochs=2).network
    for module, name in weights_of(network).values():
        for row in getattr(module, name).flatten(1):
            assert len(row.unique()) <= 2**bits - 1


@pytest.mark.parametrize("bits", [2, 4])
def test_a_quantized_tensor_with_one_scale_has_few_values(bits: int, task: Task) -> None:
    network = train(task, QuantizeAware(bits, per="tensor"), 0, epochs=1).network
    for module, name in weights_of(network).values():
        assert len(getattr(module, name).unique()) <= 2**bits - 1


def test_learned_scales_are_learned(task: Task) -> None:
    learned, fixed = QuantizeAware(2, "learned"), QuantizeAware(2, "learned")
    train(task, learned, 0, epochs=1)
    fixed.start(task.network(0), 1, epochs=1, seed=0)
    fixed.finish()
    name = "4.weight"
    assert not torch.equal(learned.levels[name].scales, fixed.levels[name].scales)


@pytest.mark.parametrize("sparsity", [0.5, 0.6, 0.95, 0.98])
def test_pruning_is_exact(sparsity: float, task: Task) -> None:
    network = train(task, Prune(sparsity), 0, epochs=2).network
    weights = [getattr(*weight) for weight in weights_of(network).values()]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == round(sparsity * sum(weight.numel() for weight in weights))


def test_pruning_grows_and_stops() -> None:
    network, seen = small(), []
    treatment = Prune(0.9, begin=0.1, end=0.7)
    treatment.start(network, 200, epochs=1, seed=0)
    for _ in range(200):
        treatment.after_step()
        seen.append(int((network[4].weight_mask == 0).sum()))
    assert seen == sorted(seen)
    assert seen[19] == 0 < seen[25]
    assert seen[139] == seen[-1]


@pytest.mark.parametrize(("begin", "kept"), [(0.0, 0), (0.25, 50), (1.0, 200)])
def test_one_shot_prunes_all_at_once(begin: float, kept: int) -> None:
    network = small()
    treatment = Prune(0.9, begin=begin, schedule="one-shot")
    treatment.start(network, 200, epochs=1, seed=0)
    seen = [int((network[4].weight_mask == 0).sum())]
    for _ in range(200):
        treatment.after_step()
        seen.append(int((network[4].weight_mask == 0).sum()))
    assert seen == [0] * kept + [seen[-1]] * (201 - kept)
    assert seen[-1] > 0


def test_what_is_pruned_in_one_shot_stays_zero_and_the_rest_is_trained(task: Task) -> None:
    network = small()
    treatment = Prune(0.5, "float32", begin=0.0, schedule="one-shot")
    treatment.start(network, 12, epochs=2, seed=0)
    mask, before = network[4].weight_mask.clone(), network[4].weight.detach().clone()
    optimizer = task.optimization.optimizer_of(network)
    for inputs, targets in task.batches(torch.Generator().manual_seed(0)):
        optimizer.zero_grad()
        loss_of(network, inputs, targets).backward()
        optimizer.step()
        treatment.after_step()
    treatment.finish()
    assert torch.equal(network[4].weight != 0, mask == 1)
    moved = (network[4].weight != before) & (mask == 1)
    assert int(moved.sum()) == int(mask.sum())


def test_a_sampled_network_has_few_motifs(task: Task) -> None:
    network = train(task, Sampled(block_size=1, num_motifs=7), 0, epochs=2).network
    weights = torch.cat([weight.flatten() for weight in network.parameters()])
    assert len(weights.unique()) <= 7


def test_treatments_share_start_and_batch_order(task: Task) -> None:
    """Before anything is pruned, a pruned run is the dense one; so with motifs for all."""

    class LatePrune(Prune):
        def finish(self) -> None:
            self.sparsity = 0.0
            super().finish()

    dense = train(task, Dense("bfloat16"), 5, epochs=2)
    late = train(task, LatePrune(0.5, begin=1.0, end=1.0), 5, epochs=2)
    for name, tensor in dense.network.state_dict().items():
        assert torch.equal(late.network.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuantizeAware(1), "bits must be 2 to 8, got 1"),
        (lambda: Prune(1.0), "sparsity must be above 0 and below 1, got 1.0"),
        (lambda: Prune(begin=0.8), "begin and end must be from 0 to 1 .*, got 0.8 and 0.7"),
        (
            lambda: Prune(begin=1.1, schedule="one-shot"),
            "begin and end must be from 0 to 1 in this order, got 1.1",
        ),
        (
            lambda: Prune(schedule="late"),
            "schedule must be gradual or one-shot, got 'late'",
        ),
    ],
)
def test_settings_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
