"""One mosaic whatever the number of processes: projection of replicas and of sharded models."""

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from processes import run
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import momos

Model = nn.Module
Spread = Callable[[nn.Sequential], nn.Module]


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Weights whose shards are uneven, empty on some ranks, and end within blocks."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(7, 13), nn.ReLU(), nn.Linear(13, 5), nn.LayerNorm(5), nn.Linear(5, 1)
    )
    with torch.no_grad():
        model[0].weight[3:5] = 0.25  # blocks that are equal, and as far as each other
        model[3].weight[0] = -0.0
    return model.to(dtype)


def wide(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Weights whose columns can be sharded too."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 8), nn.LayerNorm(8)).to(
        dtype
    )


def fsdp(model: nn.Sequential, **options) -> nn.Module:
    return fully_shard(model, **options)


def nested(model: nn.Sequential) -> nn.Module:
    fully_shard(model[0], reshard_after_forward=False)
    return fully_shard(model)


def used(model: nn.Sequential) -> nn.Module:
    """Sharded, and left with whole weights by a forward pass."""
    fully_shard(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    with torch.no_grad():
        model(torch.ones(2, model[0].in_features))
    return model


def offloaded(model: nn.Sequential) -> nn.Module:
    return fully_shard(model, offload_policy=CPUOffloadPolicy(pin_memory=False))


def tensor_parallel(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def hybrid(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    return fully_shard(model, mesh=mesh)


def two_dimensional(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, mesh["tp"], plan)
    return fully_shard(model, mesh=mesh["dp"])


def whole(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: p.full_tensor() if hasattr(p, "full_tensor") else p
        for name, p in model.named_parameters()
    }


def all_indices(mosaic: momos.Mosaic) -> Tensor:
    """The indices of all blocks, from every rank."""
    layout = mosaic.layout
    found = torch.zeros(layout.num_blocks, dtype=torch.int64)
    starts, lengths = layout.runs()
    places = [torch.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)]
    found[torch.cat([starts[:0], *places])] = layout.counted(mosaic.indices).long()
    return layout.ranks.sum(found)


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(
        one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)
    )


def same_projection(
    make: Callable[[], nn.Sequential], spread: Spread, config: momos.MosaicConfig, **options
) -> None:
    """Compares the projection of a sharded model with that of the whole one."""
    plain, sharded = make(), spread(make())
    expected = momos.project_(plain, config, **options)
    found = momos.project_(sharded, config, **options)
    what = f"{spread.__name__} {config}"
    assert same_bits(found.mosaic.motifs, expected.mosaic.motifs), what
    assert torch.equal(all_indices(found.mosaic), expected.mosaic.indices.long()), what
    assert found.moved == expected.moved, what
    assert found.distortion == pytest.approx(expected.distortion, rel=1e-12), what
    assert momos.description_length(found.mosaic) == momos.description_length(
        expected.mosaic
    )
    weights = dict(plain.named_parameters())
    for name, tensor in whole(sharded).items():
        assert same_bits(tensor.detach(), weights[name].detach()), (what, name)
    assert momos.Mosaic.of(sharded) is found.mosaic
    again = momos.project_(sharded, config, motifs=found.mosaic.motifs)
    assert again.moved == 0, what


SETTINGS = [
    {"block_size": 3, "num_motifs": 9},
    {"block_size": 4, "num_motifs": 12, "selection": "distinct", "zero_motif": False},
    {"block_size": 2, "num_motifs": 64, "selection": "distinct"},  # of all blocks
    {"block_size": 2, "capacity": 0.1, "selection": "kmeans"},
    {"block_size": 3, "num_motifs": 12, "selection": "kmeans", "zero_motif": False},
    {"block_size": 40, "num_motifs": 4, "min_ndim": 2},  # longer than a shard
]


def projections(rank: int) -> None:
    size = dist.get_world_size()
    for settings in SETTINGS:
        same_projection(network, fsdp, momos.MosaicConfig(**settings))
    config = momos.MosaicConfig(block_size=2, num_motifs=10, selection="kmeans")
    given = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    for spread in (nested, used, offloaded):
        same_projection(network, spread, config)
    same_projection(lambda: network(torch.bfloat16), fsdp, config)
    same_projection(lambda: network(torch.float64), fsdp, config)
    same_projection(network, fsdp, config, motifs=given)
    found = momos.project_(
        fsdp(network()), config, motifs=given + rank
    )  # those of rank 0 count
    assert torch.equal(found.mosaic.motifs, given)
    if size < 4:
        same_projection(wide, tensor_parallel, config)
    else:
        for spread in (hybrid, two_dimensional):
            same_projection(wide, spread, config)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_sharded_model_has_the_mosaic_of_the_whole_one(size):
    run(projections, size)
