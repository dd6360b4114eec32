"""A run that is killed goes on with the same mosaic on another number of ranks."""

import pytest
import torch
import torch.distributed.checkpoint as dcp
from processes import run
from test_distributed import all_indices, fsdp, network, same_bits
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    set_model_state_dict,
)

import momos

CONFIG = momos.MosaicConfig(block_size=2, num_motifs=12)


def step(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.1)


def saved(rank: int, folder: str) -> None:
    model = fsdp(network())
    projector = momos.Projector(model, CONFIG)
    projector.step()
    step(model)
    projector.step()
    state = {"model": get_model_state_dict(model), "projector": projector}
    dcp.save(state, checkpoint_id=folder)


def resumed(rank: int, folder: str, expected: dict) -> None:
    with torch.no_grad():
        model = fsdp(network())
        for parameter in model.parameters():
            parameter.mul_(0)
    projector = momos.Projector(model, CONFIG)
    state = get_model_state_dict(model)
    dcp.load({"model": state, "projector": projector}, checkpoint_id=folder)
    set_model_state_dict(model, state)
    assert projector.steps == 2
    found = momos.Mosaic.of(model, CONFIG)
    assert same_bits(found.motifs, expected["found"].motifs)
    assert torch.equal(all_indices(found), expected["found"].indices.long())
    step(model)
    mosaic = projector.step().mosaic
    assert same_bits(mosaic.motifs, expected["third"].motifs)
    assert torch.equal(all_indices(mosaic), expected["third"].indices.long())


def test_a_run_goes_on_with_the_same_mosaic_on_another_number_of_ranks(tmp_path):
    model = network()
    projector = momos.Projector(model, CONFIG)
    projector.step()
    step(model)
    projector.step()
    other = network()
    other.load_state_dict(model.state_dict())
    expected = {"found": momos.Mosaic.of(other, CONFIG)}
    step(model)
    expected["third"] = projector.step().mosaic
    run(saved, 4, str(tmp_path))
    for size in (1, 2, 3):
        run(resumed, size, str(tmp_path), expected)


def found(rank: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for settings in ({"block_size": 3}, {"block_size": 2, "zero_motif": False}):
            config = momos.MosaicConfig(num_motifs=8, selection="kmeans", **settings)
            plain = network(dtype)
            plain[2].bfloat16()
            momos.project_(plain, config)
            other = nn.Sequential(*(layer for layer in network(dtype)))
            other[2].bfloat16()
            other.load_state_dict(plain.state_dict())
            expected = momos.Mosaic.of(other, config)
            model = nn.Sequential(*(layer for layer in network(dtype)))
            model[2].bfloat16()
            model.load_state_dict(plain.state_dict())
            for layer in model:
                fsdp(layer)
            mosaic = momos.Mosaic.of(model, config)
            assert same_bits(mosaic.motifs, expected.motifs)
            assert torch.equal(all_indices(mosaic), expected.indices.long())
            with pytest.raises(ValueError, match="at most 2 distinct blocks, got more"):
                momos.Mosaic.of(model, momos.MosaicConfig(num_motifs=2, block_size=3))
            with torch.no_grad():
                local = model[0].weight.to_local()
                local[-1:] = torch.nan
            with pytest.raises(ValueError, match="weights must be finite, got"):
                momos.Mosaic.of(model, config)


@pytest.mark.parametrize("size", [2, 3])
def test_weights_that_are_a_mosaic_are_found_in_a_sharded_model(size):
    run(found, size)
