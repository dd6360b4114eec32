"""Learning goes on from the mosaic that a network is already."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import momos
from momos import Mosaic, MosaicConfig, Reassign, freeze_, parametrize_
from networks import bits

CONFIGS = {
    "learned": MosaicConfig.learned(num_motifs=12),
    "channels": MosaicConfig.learned(num_motifs=9, scales="channel", bits=4),
    "unscaled": MosaicConfig.learned(num_motifs=9, scales="none", bits=6),
    "half motifs": MosaicConfig.learned(num_motifs=9, bits=16),
    "plain": MosaicConfig(block_size=3, num_motifs=10),
    "no zero motif": MosaicConfig.learned(num_motifs=9, zero_motif=False),
    "groups": MosaicConfig.learned(num_motifs=6, groups=(("2.*",), ("0.*",))),
}
EVERY = pytest.mark.parametrize("name", CONFIGS)
BOTH = pytest.mark.parametrize("learn", ["motifs", "weights"])


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 6))


def learned(config: MosaicConfig, learn: str) -> tuple[nn.Sequential, Mosaic]:
    model = network()
    parametrize_(model, config, learn=learn)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        if learn == "motifs":
            model.momos.motifs.mul_(1.05)
        else:
            schedule = Reassign(model, total_steps=6)
            for _ in range(6):
                for tile in schedule.bank.tiles:
                    tile.latent.add_(torch.randn_like(tile.latent) / 50)
                schedule.step()
    return model, freeze_(model)


def parts(mosaic: Mosaic) -> list[bytes]:
    return [bits(t) for t in (mosaic.motifs, mosaic.indices, *(mosaic.scales or ()))]


@EVERY
@BOTH
def test_a_loaded_network_that_is_frozen_at_once_is_the_same_mosaic(
    name, learn, path: Path
) -> None:
    model, mosaic = learned(CONFIGS[name], learn)
    momos.save(model, path)
    loaded = network(1)
    momos.load_(loaded, path)
    bank = parametrize_(loaded, CONFIGS[name], learn="weights")
    assert bits(loaded[0].weight) == bits(model[0].weight)
    if bank.config.scales == "tensor":  # so the rate weight means what it did
        squares = [
            float((tile.latent.detach() / scale).square().mean())
            for tile, scale in zip(bank.tiles, bank.plain_scales() or (), strict=True)
        ]
        assert all(0.5 < square < 2 for square in squares)
    assert parts(freeze_(loaded)) == parts(mosaic)
    momos.save(loaded, path.with_name("again"))
    assert path.with_name("again").read_bytes() == path.read_bytes()


@EVERY
def test_it_then_learns_on(name) -> None:
    model, mosaic = learned(CONFIGS[name], "weights")
    bank = parametrize_(model, CONFIGS[name], learn="weights")
    done = Reassign(model, total_steps=1).step()
    assert done is not None
    with torch.no_grad():
        for tile in bank.tiles:
            tile.latent.add_(torch.randn_like(tile.latent) / 10)
    Reassign(model, total_steps=1).step()
    assert parts(freeze_(model)) != parts(mosaic)


def test_with_another_config_it_starts_anew() -> None:
    config = CONFIGS["learned"]
    for other in (replace(config, seed=1), replace(config, num_motifs=64)):
        model, _ = learned(config, "weights")
        anew = network()
        anew.load_state_dict(model.state_dict())
        one, two = (parametrize_(m, other, learn="weights") for m in (model, anew))
        assert bits(one.motifs) == bits(two.motifs)
        assert torch.equal(one.indices, two.indices)


def test_changed_since_it_starts_anew() -> None:
    model, mosaic = learned(CONFIGS["learned"], "weights")
    with torch.no_grad():
        model[0].weight[0, 0] += 1
    parametrize_(model, CONFIGS["learned"], learn="weights")
    assert parts(freeze_(model)) != parts(mosaic)
