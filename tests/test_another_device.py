"""A model on another device gives what it gives on the CPU: no number is left behind there.

The device is a pretended one (`elsewhere`), whose tensors mix with the CPU's as CUDA's do.
"""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import momos
from elsewhere import pretended
from momos import MosaicConfig
from momos.calibration.sensitivity import weight_sensitivities
from momos.vq import nearest as engines

PROJECTED = [
    MosaicConfig(num_motifs=9),
    MosaicConfig(block_size=3, capacity=0.3, selection="distinct"),
    MosaicConfig(block_size=8, num_motifs=9, selection="kmeans", zero_motif=False),
]
pytestmark = pytest.mark.filterwarnings("ignore:momos has no engine for:UserWarning")
Where = torch.device | str


def network(device: Where) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3)).to(device)


def batch(device: Where) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(8, 1, 6, 6, generator=g), torch.arange(8) % 3
    return inputs.to(device), targets.to(device)


def state(model: nn.Module) -> dict[str, list]:
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


def same(work: Callable[[Where], Any], name: str = "xpu:0") -> bool:
    """Whether `work` gives the same with its model on another device."""
    expected = work("cpu")
    with pretended(name) as where:
        return work(where.device) == expected


def importance(model: nn.Module, device: Where, kind: str) -> Any:
    def loss(pair: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model(pair[0]), pair[1])

    if kind == "tensor":
        return momos.sensitivities(model, [batch(device)], loss)
    if kind == "weight":
        return weight_sensitivities(model, [batch(device)], loss)
    return {
        n: 1 + torch.arange(p.numel()).view(p.shape) / 9
        for n, p in model.named_parameters()
    }


def learned(device: Where, learn: Any, kind: str, path: Path, **options: Any) -> list:
    """Learning from beginning to end, and what comes of it."""
    model, (inputs, targets) = network(device), batch(device)
    config = MosaicConfig.learned(**({"block_size": 3, "num_motifs": 7} | options))
    given = importance(model, device, kind) if kind else None
    momos.parametrize_(model, config, learn=learn, importance=given)
    schedule = None
    if learn == "weights":
        schedule = momos.Reassign(model, total_steps=4, dense=0.2)
    optimizer, found = torch.optim.SGD(model.parameters(), 0.1), []
    for _ in range(4):
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        if schedule is not None:
            schedule.pull_()
        optimizer.step()
        found.append(schedule and schedule.step())
    model.load_state_dict(model.state_dict())
    found.append(copy.deepcopy(model)(inputs).tolist())
    length = momos.description_length(momos.freeze_(model))
    momos.parametrize_(model, config, learn=learn)  # continues
    momos.freeze_(model)
    momos.save(model, path)
    again = network(device)
    momos.load_(again, path)
    return [*found, length, path.read_bytes(), state(model), state(again)]


@pytest.mark.parametrize(
    ("learn", "kind", "scales", "bits", "rate_weight"),
    [
        ("motifs", "", "none", 32, 0.0),
        ("motifs", "tensor", "tensor", 8, 0.0),
        ("motifs", "weight", "channel", 8, 0.0),
        ("weights", "", "channel", 8, 0.3),
        ("weights", "tensor", "tensor", 8, 0.3),
        ("weights", "weight", "none", 32, 0.0),
        ("weights", "given on the CPU", "tensor", 32, 0.3),
        ("weights", "", "whole", 8, 1e-4),
    ],
)
def test_a_mosaic_is_learned_saved_and_loaded(
    path, learn, kind, scales, bits, rate_weight
) -> None:
    options = {"scales": scales, "bits": bits, "rate_weight": rate_weight}
    if scales == "whole":
        options |= {"selection": "whole", "scales": "tensor", "block_size": 1}
    assert same(lambda device: learned(device, learn, kind, path, **options))


def test_groups_are_learned(path) -> None:
    assert same(
        lambda device: learned(device, "weights", "tensor", path, groups=(("0.*",),))
    )


@pytest.mark.parametrize("config", PROJECTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_model_is_projected_and_found(config, dtype, path) -> None:
    def work(device: Where) -> list:
        model = network(device).to(dtype)
        done = momos.project_(model, config)
        momos.save(model, path)
        found = [done.distortion, done.moved, done.mosaic.usage().tolist(), state(model)]
        del model.__dict__["_momos_mosaic"]
        projector = momos.Projector(model, config)
        found += [momos.Mosaic.of(model, config).indices.tolist(), path.read_bytes()]
        projector.step()
        projector.load_state_dict(projector.state_dict())
        given = torch.randn(
            5, config.block_size, generator=torch.Generator().manual_seed(0)
        )
        found.append(momos.project_(model, config, motifs=given).moved)  # from the CPU
        return [*found, state(model)]

    assert same(work)


@pytest.mark.parametrize("config", PROJECTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_device_without_float64_projects(config, dtype) -> None:
    """What needs it is computed on the CPU."""

    def work(device: Where) -> list:
        model = network(device).to(dtype)
        done = momos.Projector(model, config).step()
        assert done is not None
        moved = [done.distortion, done.moved, done.mosaic.indices.tolist()]
        return [*moved, state(model)]

    assert same(work, "mps:0")
    with pretended("mps:0") as where, pytest.raises(TypeError, match="float64"):
        torch.ones(2).to(where.device).double()


def test_scales_are_folded_and_weights_measured() -> None:
    def work(device: Where) -> list:
        model, init = network(device), network(device)
        folding = momos.fold_scales_(model, batch(device)[0])
        rows = momos.measure(model, init=init, controls=2).rows
        values = [(row.name, row.value, row.control) for row in rows]
        return [folding, state(model), values]

    assert same(work)


def test_averages_are_a_mosaic() -> None:
    def work(device: Where) -> list:
        model, (inputs, targets) = network(device), batch(device)
        momos.parametrize_(model, MosaicConfig.learned(num_motifs=7), learn="weights")
        average = torch.optim.swa_utils.AveragedModel(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        schedule = momos.Reassign(model, total_steps=3)
        for _ in range(3):
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
        found = average(inputs).tolist()
        momos.freeze_(average.module)
        return [found, state(average.module)]

    assert same(work)


def test_arrays_find_their_motifs_and_are_measured() -> None:
    g = torch.Generator().manual_seed(3)
    blocks, motifs = torch.randn(499, 4, generator=g), torch.randn(50, 4, generator=g)

    def work(device: Where) -> list:
        some, others = blocks.to(device), motifs.to(device)
        found = [momos.nearest(some, others), momos.nearest_reference(some, others)]
        for choose in (momos.sample_motifs, momos.distinct_motifs, momos.kmeans_motifs):
            generator = torch.Generator().manual_seed(0)
            found.append(choose(some, 9, generator=generator))
        signs = (some > 0).int()
        values = [momos.bdm(signs), momos.qubd(some, bits=4)]
        return [values, [each.tolist() for each in found]]

    assert same(work)


def test_a_device_without_an_engine_is_warned_of_once() -> None:
    engines.warn_of_host.cache_clear()
    with pretended() as where:
        blocks, motifs = torch.rand(9, 2), torch.rand(3, 2)
        blocks, motifs = blocks.to(where.device), motifs.to(where.device)
        message = (
            "^momos has no engine for xpu: blocks are copied to the CPU and searched there, "
            "which is slow$"
        )
        with pytest.warns(UserWarning, match=message):
            momos.nearest(blocks, motifs)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            momos.nearest(blocks, motifs)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: there + here,
        lambda here, there: torch.cat([there, here[:0]]),
        lambda here, there: torch.stack([there.sum(), here.sum()]),
        lambda here, there: here[there.long()],
    ],
)
def test_the_pretended_device_refuses_what_a_real_one_does(mixed) -> None:
    with pretended() as where, pytest.raises(RuntimeError, match="on the same device"):
        mixed(torch.ones(3), torch.ones(3).to(where.device))


def test_the_pretended_device_counts_what_it_is_asked() -> None:
    with pretended() as where:
        values = torch.ones(3).to(where.device)
        assert float(values.mul(2).sum()) == 6
        assert (values + torch.tensor(1.0)).cpu().tolist() == [2.0] * 3
    assert where.uploads == 1
    assert sum(where.waits.values()) == 2
    assert sum(where.launches.values()) == 4  # the two sums, a product, the number's copy
