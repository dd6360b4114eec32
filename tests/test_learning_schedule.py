"""When motifs and indices follow the weights, and that a resumed run is the same run."""

import copy
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import momos
from momos import MosaicConfig, Reassign, freeze_, parametrize_
from networks import bits

CONFIG = MosaicConfig.learned(num_motifs=12, rate_weight=0.2)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def moved(model: nn.Module, schedule: Reassign, steps: int) -> list:
    """What every step re-assigned, the weights drifting in between."""
    generator = torch.Generator().manual_seed(schedule.steps)
    found = []
    for _ in range(steps):
        with torch.no_grad():
            for tile in schedule.bank.tiles:
                tile.latent.add_(torch.randn(tile.latent.shape, generator=generator) / 20)
        found.append(schedule.step())
    return found


def test_the_parts_of_a_run_come_in_order() -> None:
    model = network()
    bank = parametrize_(model, CONFIG, learn="weights")
    schedule = Reassign(model, total_steps=20, every=2, dense=0.2, ramp=0.5, fixed=0.25)
    latent = bank.tiles[0].latent
    assert bits(model[0].weight) == bits(latent)  # dense at first
    assert moved(model, schedule, 3) == [None] * 3
    assert bits(model[0].weight) == bits(latent)
    (start,) = moved(model, schedule, 1)
    assert (start.changed, start.rate_weight) == (len(bank.indices), 0.0)
    assert bits(model[0].weight) != bits(latent)
    found = moved(model, schedule, 16)
    assert [f is not None for f in found] == [False, True] * 8
    rates = [f.rate_weight for f in found if f]
    assert rates == pytest.approx([0.2 * r for r in (1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1)])
    changed = [f.changed for f in found if f]
    assert all(changed[:5])
    assert changed[-2:] == [0, 0]  # indices stay in the last quarter


def test_motifs_still_follow_when_indices_are_fixed() -> None:
    model = network()
    bank = parametrize_(model, CONFIG, learn="weights")
    schedule = Reassign(model, total_steps=4, every=1, fixed=1.0, ramp=0.0)
    indices, motifs = bank.indices.clone(), bank.motifs.clone()
    moved(model, schedule, 4)
    assert torch.equal(bank.indices, indices)
    assert not torch.equal(bank.motifs, motifs)


def test_motifs_end_at_the_mean_of_their_blocks() -> None:
    model = network()
    bank = parametrize_(model, MosaicConfig(block_size=2, num_motifs=6), learn="weights")
    moved(model, Reassign(model, total_steps=7, every=3), 7)
    blocks = torch.cat([tile.latent.detach().view(-1, 2) for tile in bank.tiles])
    for number in range(1, 6):
        own = blocks[bank.indices == number]
        if len(own):
            torch.testing.assert_close(bank.motifs[number], own.double().mean(0).float())


def test_a_rate_makes_the_mosaic_shorter() -> None:
    lengths = []
    for rate_weight in (0.0, 0.3, 1.0):
        model = network()
        config = MosaicConfig.learned(num_motifs=16, rate_weight=rate_weight)
        parametrize_(model, config, learn="weights")
        moved(model, Reassign(model, total_steps=30, every=1), 30)
        lengths.append(momos.description_length(freeze_(model)).mosaic_entropy)
    assert lengths[0] > 1.02 * lengths[1] > 1.1 * lengths[2]


def test_unused_motifs_are_revived_only_without_a_rate() -> None:
    for rate_weight, revived in ((0.0, True), (0.3, False)):
        model = network()
        config = MosaicConfig.learned(num_motifs=8, rate_weight=rate_weight)
        bank = parametrize_(model, config, learn="weights")
        with torch.no_grad():
            bank.motifs[5] = 1e3  # far from every block
            bank.indices[bank.indices == 5] = 0
        moved(model, Reassign(model, total_steps=2, every=1, ramp=0.0, fixed=0.0), 2)
        assert bool((bank.indices == 5).any()) == revived


def test_without_a_schedule_the_mosaic_stays() -> None:
    model = network()
    bank = parametrize_(model, CONFIG, learn="weights")
    before = bits(model[0].weight)
    with torch.no_grad():
        bank.tiles[0].latent.add_(1)
    assert bits(model[0].weight) == before


def test_a_resumed_schedule_is_the_same() -> None:
    def run(stop: int | None) -> tuple:
        model = network()
        parametrize_(model, CONFIG, learn="weights")
        options = {"total_steps": 24, "every": 2, "dense": 0.25}
        schedule = Reassign(model, **options)
        for step in range(24):
            if step == stop:
                states = copy.deepcopy((model.state_dict(), schedule.state_dict()))
                model = network(seed=9)
                parametrize_(model, CONFIG, learn="weights")
                schedule = Reassign(model, **options)
                model.load_state_dict(states[0])
                schedule.load_state_dict(states[1])
            moved(model, schedule, 1)
        return tuple(bits(t) for t in model.state_dict().values())

    whole = run(None)
    assert all(run(stop) == whole for stop in (3, 6, 7, 15, 22))


def test_freezing_in_the_dense_part_is_refused() -> None:
    model = network()
    parametrize_(model, CONFIG, learn="weights")
    Reassign(model, total_steps=10, dense=0.5)
    with pytest.raises(ValueError, match="still in its dense part"):
        freeze_(model)


def test_parts_must_be_in_order() -> None:
    model = network()
    parametrize_(model, CONFIG, learn="weights")
    for parts in ({"dense": 0.7}, {"ramp": 0.9}, {"dense": -0.1}, {"fixed": -0.1}):
        with pytest.raises(ValueError, match="must be parts of the whole in this order"):
            Reassign(model, total_steps=10, **parts)
    with pytest.raises(ValueError, match="total_steps must be at least 1, got 0"):
        Reassign(model, total_steps=0)
    with pytest.raises(TypeError, match=r"every must be an int, got 0\.5"):
        Reassign(model, total_steps=10, every=0.5)


def test_motifs_learned_by_gradient_have_no_weights_to_follow() -> None:
    model = network()
    parametrize_(model, CONFIG, learn="motifs")
    with pytest.raises(ValueError, match="weights must be learned for motifs to follow"):
        Reassign(model, total_steps=10)
    with pytest.raises(ValueError, match="those of Sequential are not"):
        Reassign(network(), total_steps=10)


# A process that is killed: its last checkpoint goes on to the very same end

SCRIPT = """
import os, sys, torch, momos
learn, folder, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(8, 32), torch.nn.BatchNorm1d(32), torch.nn.Dropout(0.2),
    torch.nn.ReLU(), torch.nn.Linear(32, 4))
config = momos.MosaicConfig.learned(num_motifs=16, rate_weight=0.1)
momos.parametrize_(model, config, learn=learn)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
schedule = None
if learn == "weights":
    schedule = momos.Reassign(model, total_steps=60, every=3, dense=0.2)
order, first = torch.Generator().manual_seed(1), 0
path = os.path.join(folder, "checkpoint.pt")
if os.path.exists(path):
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    if schedule:
        schedule.load_state_dict(saved["schedule"])
    order.set_state(saved["order"])
    torch.set_rng_state(saved["random"])
    first = saved["step"]
for step in range(first, 60):
    inputs = torch.randn(16, 8, generator=order)
    loss = torch.nn.functional.cross_entropy(model(inputs), inputs[:, :4].argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if schedule:
        schedule.step()
    saved = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict() if schedule else {}, "step": step + 1,
        "order": order.get_state(), "random": torch.get_rng_state()}
    torch.save(saved, path + ".new")
    os.replace(path + ".new", path)
    import time; time.sleep(pause)
momos.freeze_(model)
momos.save(model, os.path.join(folder, "net.momos"))
"""


@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_after_a_kill_training_ends_as_if_nothing_had_been(
    learn: str, tmp_path: Path
) -> None:
    (script := tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))

    def start(folder: Path, pause: float) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        arguments = [sys.executable, str(script), learn, str(folder), str(pause)]
        return subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"})

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert ended(start(whole, 0.0)) == 0
    process = start(broken, 0.05)
    deadline = time.monotonic() + 180
    while not (broken / "checkpoint.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.4)
    process.send_signal(signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    step = torch.load(broken / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < step < 60
    assert ended(start(broken, 0.0)) == 0
    one, two = (torch.load(f / "checkpoint.pt", weights_only=True) for f in (whole, broken))
    assert flat(one) == flat(two)
    assert (whole / "net.momos").read_bytes() == (broken / "net.momos").read_bytes()


def ended(process: subprocess.Popen) -> int:
    """What a process returned; it is killed if that takes more than three minutes."""
    try:
        return process.wait(timeout=180)
    finally:
        process.kill()


def flat(value: object) -> object:
    """A checkpoint with every tensor as its bits, to be compared."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, bits(value)) if value.ndim else (value.dtype, value.item())
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return [flat(item) for item in value] if isinstance(value, list | tuple) else value
