"""Training towards the size of a file: it is met, resumed, and refused where there is none."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import momos
from momos import MosaicConfig, Shrink, freeze_, parametrize_, shrinking
from momos.shrinking import file_bytes
from networks import bits

WHOLE = MosaicConfig.learned(selection="whole", rate_weight=1e-5)
STEPS = 40


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(30, 60), nn.BatchNorm1d(60), nn.ReLU(), nn.Linear(60, 6)
    )
    parametrize_(model, WHOLE, learn="weights")
    return model


def train(model: nn.Module, schedule: Shrink, steps: int) -> None:
    inputs = torch.randn(128, 30, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        left = 1 - schedule.steps / schedule.total_steps
        model.zero_grad()
        loss = (model(inputs) - inputs[:, :6]).square().mean()
        (loss + schedule.penalty()).backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.02 * left * weight.grad.sign()
        schedule.step()


@pytest.mark.parametrize("target", [900, 1300])
def test_the_file_is_as_large_as_was_asked_for(target: int, tmp_path: Path) -> None:
    model = network()
    schedule = Shrink(model, total_steps=STEPS, target_bytes=target, looks=8)
    train(model, schedule, STEPS)
    seen = bits(model[0].weight)
    freeze_(model)
    assert bits(model[0].weight) == seen
    size = momos.save(model, tmp_path / "net.momos").num_bytes
    assert size == schedule.num_bytes
    assert 0.9 * target <= size <= target


def test_the_rate_weight_grows_while_the_file_is_too_large_and_falls_when_too_small() -> (
    None
):
    tight, generous = network(), network()
    schedules = [
        Shrink(model, total_steps=STEPS, target_bytes=target, ramp=0, looks=8)
        for model, target in ((tight, 530), (generous, 50_000))
    ]
    for model, schedule in zip((tight, generous), schedules, strict=True):
        train(model, schedule, STEPS // 2)
        assert schedule.rate_weight == pytest.approx(1e-5 * schedule.factor)
    assert schedules[0].factor > 1 > schedules[1].factor


def test_a_resumed_run_ends_with_the_same_file() -> None:
    model = network()
    schedule = Shrink(model, total_steps=STEPS, target_bytes=1100, looks=8)
    train(model, schedule, 27)
    saved = copy.deepcopy((model.state_dict(), schedule.state_dict()))
    train(model, schedule, STEPS - 27)
    other = network()
    again = Shrink(other, total_steps=STEPS, target_bytes=1100, looks=8)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    train(other, again, STEPS - 27)
    assert again.num_bytes == schedule.num_bytes
    for name, value in model.state_dict().items():
        assert bits(other.state_dict()[name]) == bits(value), name


def test_measuring_leaves_the_network_as_it_is(tmp_path: Path) -> None:
    model = network()
    before = {name: bits(value) for name, value in model.state_dict().items()}
    found = file_bytes(model)
    least = file_bytes(model, zero=True)
    assert {name: bits(value) for name, value in model.state_dict().items()} == before
    assert least < found
    freeze_(model)
    assert momos.save(model, tmp_path / "net.momos").num_bytes == found


def test_a_target_below_the_least_size_is_refused_with_it() -> None:
    model = network()
    least = file_bytes(model, zero=True)
    Shrink(model, total_steps=STEPS, target_bytes=least)
    message = (
        f"target_bytes must be at least {least}, the size of the file with all blocks zero, "
        f"got {least - 1}"
    )
    with pytest.raises(ValueError, match=message):
        Shrink(model, total_steps=STEPS, target_bytes=least - 1)


def test_dense_tensors_that_outgrew_the_target_are_refused_and_nothing_is_cut() -> None:
    """Biases that began as zero take no bytes; trained, they may take more than the target."""
    model = nn.Linear(6, 300)
    nn.init.zeros_(model.bias)
    bank = parametrize_(model, WHOLE, learn="weights")
    target = file_bytes(model, zero=True) + 100
    schedule = Shrink(model, total_steps=2, target_bytes=target)
    with torch.no_grad():
        model.bias.copy_(torch.arange(300).sin())
    schedule.step()
    before = {name: bits(value) for name, value in model.state_dict().items()}
    least = file_bytes(model, zero=True)
    message = f"target_bytes must be at least {least}, .* all blocks zero, got {target}"
    with pytest.raises(ValueError, match=message):
        schedule.step()
    after = {name: bits(value) for name, value in model.state_dict().items()}
    assert {name for name in after if after[name] != before[name]} == {"momos.rate_weight"}
    assert bank.threshold == 0.5
    freeze_(model)


def test_a_rate_weight_of_zero_that_could_not_grow_is_refused() -> None:
    model = nn.Linear(8, 8)
    config = MosaicConfig.learned(selection="whole", rate_weight=0.0)
    parametrize_(model, config, learn="weights")
    message = "^rate_weight must be above 0 for a target in bytes, got 0$"
    with pytest.raises(ValueError, match=message):
        Shrink(model, total_steps=STEPS, target_bytes=1000)


def test_the_file_is_measured_as_often_when_blocks_follow_every_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    monkeypatch.setattr(shrinking, "file_bytes", lambda model, **about: seen.append(1) or 9)
    for every in (1, 7):
        model = network()
        options = {"total_steps": 400, "target_bytes": 900, "every": every, "looks": 10}
        schedule = Shrink(model, ramp=0, **options)
        seen.clear()
        for _ in range(400):
            schedule.step()
        assert len(seen) == 10, every  # the last is at the end


def test_steps_after_the_last_keep_the_target() -> None:
    model = network()
    schedule = Shrink(model, total_steps=1, target_bytes=900)
    schedule.step()
    with torch.no_grad():
        for tile in schedule.bank.tiles:
            tile.latent.mul_(2)
    schedule.step()
    assert file_bytes(model) == schedule.num_bytes <= 900


def test_weights_that_are_not_finite_are_refused_and_the_step_not_counted() -> None:
    model = network()
    schedule = Shrink(model, total_steps=2, target_bytes=900)
    schedule.step()
    before = schedule.state_dict()
    with torch.no_grad():
        schedule.bank.tiles[0].latent[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match=r"weights must be finite, got 1 of 1800 .*'0\.weight'"
    ):
        schedule.step()
    after = schedule.state_dict()
    assert [after[name] for name in ("steps", "factor", "num_bytes")] == [
        before[name] for name in ("steps", "factor", "num_bytes")
    ]


def test_motifs_that_are_not_whole_have_no_target() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    parametrize_(model, MosaicConfig.learned(num_motifs=4), learn="weights")
    message = "selection must be 'whole' for a target in bytes, got 'kmeans'"
    with pytest.raises(ValueError, match=message):
        Shrink(model, total_steps=STEPS, target_bytes=1000)
