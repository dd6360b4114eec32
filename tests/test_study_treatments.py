import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from packed import read
from treated import points, small, stepped, treated

from momos.study.tasks.task import Task
from momos.study.treatments import TREATMENTS as REGISTRY
from momos.study.treatments.learned_motifs import Learned
from momos.study.treatments.prune import Prune
from momos.study.treatments.quantize import QuantizeAware
from momos.study.treatments.sampled_motifs import Sampled
from momos.study.treatments.treatment import Dense, Treatment, weights_of


@pytest.fixture(scope="module")
def task() -> Task:
    return points()


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
    network = treated(task, treatment)
    num_bytes = treatment.file_bytes(network, tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == num_bytes
    state, found = network.state_dict(), read(path)
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype
    again = small()
    again.load_state_dict(found)
    assert task.evaluate(again) == task.evaluate(network)


@pytest.mark.parametrize("treatment", [*TREATMENTS, Sampled(num_motifs=9)], ids=str)
def test_what_is_left_is_rounded_to_bfloat16(treatment: Treatment, task: Task) -> None:
    network = treated(task, treatment)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1:
            assert torch.equal(tensor.bfloat16().float(), tensor), name


@pytest.mark.parametrize("scale", ["max", "learned"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_quantized_channel_has_few_values(bits: int, scale, task: Task) -> None:
    network = treated(task, QuantizeAware(bits, scale))
    for module, name in weights_of(network).values():
        for row in getattr(module, name).flatten(1):
            assert len(row.unique()) <= 2**bits - 1


@pytest.mark.parametrize("bits", [2, 4])
def test_a_quantized_tensor_with_one_scale_has_few_values(bits: int, task: Task) -> None:
    network = treated(task, QuantizeAware(bits, per="tensor"))
    for module, name in weights_of(network).values():
        assert len(getattr(module, name).unique()) <= 2**bits - 1


def test_learned_scales_are_learned(task: Task) -> None:
    learned, fixed = QuantizeAware(2, "learned"), QuantizeAware(2, "learned")
    treated(task, learned)
    fixed.start(task.network(0), 1, epochs=1, seed=0)
    fixed.finish()
    name = "4.weight"
    assert not torch.equal(learned.levels[name].scales, fixed.levels[name].scales)


@pytest.mark.parametrize("sparsity", [0.5, 0.6, 0.95, 0.98])
def test_pruning_is_exact(sparsity: float, task: Task) -> None:
    network = treated(task, Prune(sparsity))
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
    stepped(task, treatment, network, 6)
    treatment.finish()
    assert torch.equal(network[4].weight != 0, mask == 1)
    moved = (network[4].weight != before) & (mask == 1)
    assert int(moved.sum()) == int(mask.sum())


def test_a_sampled_network_has_few_motifs(task: Task) -> None:
    network = treated(task, Sampled(block_size=1, num_motifs=7))
    weights = torch.cat([weight.flatten() for weight in network.parameters()])
    assert len(weights.unique()) <= 7


def test_before_anything_is_pruned_a_pruned_run_is_the_dense_one(task: Task) -> None:

    class LatePrune(Prune):
        def finish(self) -> None:
            self.sparsity = 0.0
            super().finish()

    dense = treated(task, Dense("bfloat16"), seed=5).state_dict()
    late = treated(task, LatePrune(0.5, begin=1.0, end=1.0), seed=5).state_dict()
    for name, tensor in dense.items():
        assert torch.equal(late[name], tensor), name


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
            "schedule must be one of gradual, one-shot, got 'late'",
        ),
    ],
)
def test_settings_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


CHOICES = [
    (known.kind, name, get_args(hint))
    for known in REGISTRY.values()
    for name, hint in get_type_hints(known.kind).items()
    if get_origin(hint) is Literal
]


@pytest.mark.parametrize(("kind", "name", "choices"), CHOICES)
def test_a_setting_of_a_few_values_takes_no_other(
    kind: type[Treatment], name: str, choices: tuple[Any, ...]
) -> None:
    for choice in choices:
        assert getattr(kind(**{name: choice}), name) == choice
    listed = ", ".join(map(str, choices))
    for other in ("Max", 7, None):
        message = f"{name} must be one of {listed}, got {other!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            kind(**{name: other})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Learned(fold="no"), "fold must be true or false, got 'no'"),
        (lambda: Learned(whole=1), "whole must be true or false, got 1"),
        (lambda: Learned(rate_weight="1"), "rate_weight must be a number, got '1'"),
        (lambda: QuantizeAware("4"), "bits must be a whole number, got '4'"),
        (lambda: Prune(True), "sparsity must be a number, got True"),
        (lambda: Sampled(every=1.5), "every must be a whole number or none, got 1.5"),
    ],
)
def test_a_setting_of_another_kind_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_every_treatment_with_such_a_setting_is_among_them() -> None:
    assert {(kind.__name__, name) for kind, name, _ in CHOICES} >= {
        ("Dense", "dtype"),
        ("Learned", "learn"),
        ("Prune", "schedule"),
        ("QuantizeAware", "scale"),
        ("Sampled", "bits"),
    }


def test_whole_motifs_end_with_the_file_that_was_asked_for(
    task: Task, tmp_path: Path
) -> None:
    treatment = Learned(whole=True, target_bytes=600, rate_weight=1e-4, ramp=0.2)
    network = treated(task, treatment, epochs=4)
    assert treatment.settled == 1
    assert treatment.file_bytes(network, tmp_path) <= 600


def test_the_rate_of_whole_motifs_is_in_the_loss(task: Task) -> None:
    zeros = []
    for rate_weight in (0.0, 1e-2):
        treatment = Learned(whole=True, rate_weight=rate_weight, ramp=0.0)
        network = treated(task, treatment, epochs=4)
        zeros.append(sum(int((w == 0).sum()) for w in network.parameters()))
    assert zeros[0] < zeros[1]
