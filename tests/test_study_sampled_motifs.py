"""MoMos + QAT: weights that are whole numbers of steps, and in blocks that are motifs."""

from pathlib import Path

import pytest
import torch
from torch import nn
from treated import points, small, stepped, treated

import momos
from momos.study.tasks.task import Task, seeded
from momos.study.treatments.sampled_motifs import LEVELS, Grid, GridProjector, Sampled


@pytest.fixture(scope="module")
def task() -> Task:
    return points()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("epochs", [1, 1.5])
def test_motifs_are_on_the_grid_of_every_tensor(
    levels: int, epochs: float, task: Task
) -> None:
    treatment = Sampled(num_motifs=20, levels=levels)
    network = treated(task, treatment, epochs=epochs)
    mosaic = momos.Mosaic.of(network)
    assert mosaic.motifs.dtype == torch.int8
    assert mosaic.num_motifs == 20
    assert int(mosaic.motifs.abs().max()) <= levels // 2
    assert {place.name for place in mosaic.layout.placements} == {
        name for name, _ in network.named_parameters()
    }
    assert mosaic.scales is not None
    for place, step in zip(mosaic.layout.placements, mosaic.scales, strict=True):
        steps = network.get_parameter(place.name) / step
        assert torch.allclose(steps, steps.round(), atol=1e-4)
        assert float(steps.detach().abs().max()) < levels / 2


def test_the_file_holds_the_network_in_whole_numbers(task: Task, tmp_path: Path) -> None:
    treatment = Sampled(num_motifs=30, levels=15)
    network = treated(task, treatment)
    num_bytes = treatment.file_bytes(network, tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == num_bytes
    again = small()
    momos.load_(again, path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert task.evaluate(again) == task.evaluate(network)


def test_the_finished_network_is_an_ordinary_one(task: Task) -> None:
    network = treated(task, Sampled(num_motifs=9, levels=15))
    assert list(network.state_dict()) == list(small().state_dict())
    assert [type(module) for module in network.modules()] == [
        type(module) for module in small().modules()
    ]


def test_after_a_projection_the_network_computes_with_its_mosaic(task: Task) -> None:
    network = seeded(small)(0)
    treatment = Sampled(num_motifs=12, levels=31, every=3)
    treatment.start(network, 9, epochs=1, seed=0)
    stepped(task, treatment, network, 3)
    found = momos.Mosaic.of(network)  # of what the steps are applied to
    for name, dense in found.dense().items():
        module, last = name.replace(".original", "").rsplit(".parametrizations.")
        assert torch.equal(getattr(network.get_submodule(module), last), dense)
    stepped(task, treatment, network, 1)
    with pytest.raises(ValueError, match="has changed since it was projected"):
        momos.Mosaic.of(network)


def test_finishing_right_after_a_projection_changes_nothing(task: Task) -> None:
    network = seeded(small)(0)
    treatment = Sampled(num_motifs=12, levels=31, every=3)
    treatment.start(network, 6, epochs=1, seed=0)
    stepped(task, treatment, network, 6)
    before = {name: getattr(network[4], name).clone() for name in ("weight", "bias")}
    treatment.finish()
    for name, tensor in before.items():
        assert torch.equal(getattr(network[4], name), tensor)


def test_gradients_pass_straight_through() -> None:
    weight = torch.tensor([[0.9, -0.26, 0.1, 5.0]], requires_grad=True)
    grid = Grid(torch.tensor([[1.0]]), most=3)
    rounded = grid(weight)
    assert torch.allclose(rounded, torch.tensor([[3.0, -1, 0, 3]]) * grid.step, atol=1e-6)
    (rounded * torch.arange(4)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0, 1, 2, 3]]


def test_blocks_are_compared_in_steps() -> None:
    """Two tensors that differ only in scale are one to the motifs."""
    network = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(network[0].weight * 64)
    config = momos.MosaicConfig(block_size=2, num_motifs=7)
    projector = GridProjector(network, config, levels=15, every=1)
    mosaic = projector.project().mosaic
    assert torch.equal(mosaic.indices[:32], mosaic.indices[32:])
    assert torch.equal(network[1].weight, network[0].weight * 64)


@pytest.mark.parametrize("levels", [None, 15])
def test_a_resumed_run_draws_the_same_motifs(levels: int | None, task: Task) -> None:
    def begun() -> tuple[Sampled, nn.Module]:
        treatment, network = (
            Sampled(num_motifs=12, levels=levels, every=3),
            seeded(small)(0),
        )
        treatment.start(network, 9, epochs=1, seed=0)
        return treatment, network

    (whole, one), (resumed, two) = begun(), begun()
    stepped(task, whole, one, 6)
    two.load_state_dict(one.state_dict())
    resumed.load_state_dict(whole.state_dict())
    for treatment in (whole, resumed):
        treatment.finish()
    for name, tensor in one.state_dict().items():
        assert torch.equal(two.state_dict()[name], tensor), name
    assert torch.equal(momos.Mosaic.of(one).indices, momos.Mosaic.of(two).indices)


@pytest.mark.parametrize("levels", [None, 15])
def test_a_run_without_steps_is_projected(levels: int | None, task: Task) -> None:
    network = seeded(small)(0)
    treatment = Sampled(num_motifs=12, levels=levels)
    treatment.start(network, 1, epochs=1, seed=0)
    treatment.finish()
    assert momos.Mosaic.of(network).num_motifs == 12


@pytest.mark.parametrize("levels", [0, 2, 16, 511])
def test_levels_are_checked(levels: int) -> None:
    with pytest.raises(ValueError, match=f"levels must be one of 3, 7, .*, got {levels}"):
        Sampled(num_motifs=4, levels=levels)
