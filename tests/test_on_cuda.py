"""What a GPU must do besides the kernels: training in its ways, files, measures, callbacks."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import momos

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
LEARN = ["motifs", "weights"]


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10)]
    return nn.Sequential(*layers).to("cuda", dtype)


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    inputs = torch.randn(32, 64, generator=g).to("cuda", dtype)
    return inputs, (torch.arange(32) % 10).cuda()


def trained(
    learn: Any, *, dtype: torch.dtype = torch.float32, scaled: bool = False, steps: int = 12
) -> nn.Module:
    """A network that has learned its motifs, with sensitivities and a fused optimizer."""
    model, (inputs, targets) = network(dtype), batch(dtype)

    def loss() -> Tensor:
        with torch.autocast("cuda", torch.float16, enabled=scaled):
            return cross_entropy(model(inputs).float(), targets)

    importance = momos.sensitivities(model, [0], lambda _: loss())
    config = momos.MosaicConfig.learned(num_motifs=16, rate_weight=0.3)
    momos.parametrize_(model, config, learn=learn, importance=importance)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    scaler = torch.amp.GradScaler("cuda", enabled=scaled)
    schedule = momos.Reassign(model, total_steps=steps) if learn == "weights" else None
    for _ in range(steps):
        optimizer.zero_grad()
        scaler.scale(loss()).backward()
        scaler.step(optimizer)
        scaler.update()
        if schedule is not None:
            schedule.step()
    return model


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_networks_of_any_dtype_learn_and_are_saved(learn, dtype, path: Path) -> None:
    model = trained(learn, dtype=dtype)
    momos.freeze_(model)
    momos.save(model, path)
    again = network(dtype)
    momos.load_(again, path)
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("learn", LEARN)
def test_gradients_may_be_scaled(learn) -> None:
    model = trained(learn, scaled=True)
    assert momos.freeze_(model).num_motifs <= 16


@pytest.mark.parametrize("learn", LEARN)
def test_a_training_repeats(learn) -> None:
    one, other = trained(learn), trained(learn)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_step_does_not_wait() -> None:
    model = trained("weights", steps=3)
    schedule = momos.Reassign(model, total_steps=1000, ramp=0.0)
    schedule.step()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        schedule.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_scales_are_folded_and_weights_measured() -> None:
    model = network()
    assert momos.fold_scales_(model, batch()[0]).pairs
    rows = momos.measure(model, init=network(), controls=2).rows
    here = momos.measure(model.cpu(), init=network().cpu(), controls=2).rows
    assert [(row.name, row.value) for row in rows] == [
        (row.name, row.value) for row in here
    ]


def test_a_projection_is_the_cpu_s(path: Path) -> None:
    for config in (
        momos.MosaicConfig(block_size=2, capacity=0.05),
        momos.MosaicConfig(block_size=3, num_motifs=40, selection="distinct"),
    ):
        there, here = network(), network().cpu()
        found, expected = momos.project_(there, config), momos.project_(here, config)
        assert found.moved == expected.moved
        assert torch.equal(found.mosaic.indices.cpu(), expected.mosaic.indices)


@pytest.mark.skipif(
    importlib.util.find_spec("lightning") is None, reason="lightning is not installed"
)
def test_a_cell_of_the_study_runs_and_repeats(tmp_path: Path) -> None:
    cell_module = pytest.importorskip("momos.study.cell")
    running = pytest.importorskip("momos.study.training.run")
    options = {"device": "cuda", "precision": "bfloat16", "channels_last": True}
    cell = cell_module.Cell(
        task="digits", treatment="learned", epochs=1, controls=0, **options
    )
    runs = [running.run(cell, tmp_path / name) for name in ("one", "two")]
    assert runs[0].network.read_bytes() == runs[1].network.read_bytes()
