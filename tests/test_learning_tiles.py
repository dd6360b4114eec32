"""The weight as one step of the graph has the gradients of the steps that it stands for."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

import momos
from momos.learning import tiles


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scales": "channel"},
        {"scales": "none", "bits": 32, "zero_motif": False},
        {"bits": 16},
        {"block_size": 3, "groups": (("0.*",),)},
    ],
)
def test_gradients_are_those_of_the_graph_bit_for_bit(
    options: dict[str, Any], dtype
) -> None:
    found = []
    for simple in (False, True):
        torch.manual_seed(0)
        layers = [nn.Linear(19, 33), nn.ReLU(), nn.Linear(33, 7)]
        model = nn.Sequential(*layers).to(dtype)
        config = momos.MosaicConfig.learned(num_motifs=9, **options)
        momos.parametrize_(model, config, learn="motifs")
        with patch.object(tiles, "simple", lambda simple=simple: simple):
            loss = model(torch.randn(5, 19, dtype=dtype)).square().sum()
            loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_gradients_of_gradients_go_through_the_weight() -> None:
    model = nn.Linear(6, 4).double()
    momos.parametrize_(
        model, momos.MosaicConfig(block_size=2, num_motifs=5), learn="motifs"
    )
    motifs = dict(model.named_parameters())["momos.motifs"]
    inputs = torch.randn(3, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(model(inputs).pow(3).sum(), motifs, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), motifs)
    assert bool(second.any())
    step, way = 1e-6, torch.randn_like(motifs)
    with torch.no_grad():
        motifs.add_(step * way)
    (moved,) = torch.autograd.grad(model(inputs).pow(3).sum(), motifs)
    change = (moved.square().sum() - gradient.square().sum()) / step
    assert float(change.detach()) == pytest.approx(float((second * way).sum()), rel=1e-3)
