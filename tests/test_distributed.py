"""One mosaic whatever the number of processes: projection of replicas and of sharded models."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from processes import Failed, run
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import momos
from momos.shards import local

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
    {"block_size": 2, "capacity": 0.05, "selection": "kmeans"},
    {"block_size": 3, "num_motifs": 7, "selection": "kmeans", "zero_motif": False},
    {"block_size": 40, "num_motifs": 4, "min_ndim": 2},  # longer than a shard
]


def projections(rank: int) -> None:
    size = dist.get_world_size()
    for settings in SETTINGS if size in (2, 3) else SETTINGS[:4:3]:
        same_projection(network, fsdp, momos.MosaicConfig(**settings))
    config = momos.MosaicConfig(block_size=2, num_motifs=10, selection="kmeans")
    given = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    if size == 2:
        for spread in (nested, used, offloaded):
            same_projection(network, spread, config)
        for dtype in (torch.bfloat16, torch.float64):
            same_projection(lambda dtype=dtype: network(dtype), fsdp, config)
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


# Errors


def not_finite(rank: int) -> None:
    config = momos.MosaicConfig(block_size=2, num_motifs=6)
    for settings in SETTINGS[:2]:
        for spread, name in (
            (fsdp, "2.weight"),
            (DistributedDataParallel, "module.2.weight"),
        ):
            model = spread(network())
            own = local(dict(model.named_parameters())[name])
            if rank == 1:
                own.view(-1)[-2:] = torch.tensor([torch.nan, torch.inf])
            before = [own.clone() for own in locals_of(model)]
            with pytest.raises(ValueError, match=bad_weights(name)):
                momos.project_(model, momos.MosaicConfig(**settings))
            for tensor, kept in zip(locals_of(model), before, strict=True):
                assert same_bits(tensor, kept)
    model = fsdp(network(torch.float16))
    with pytest.raises(
        ValueError, match=r"motifs must fit the float16 of parameter '0.weight'"
    ):
        momos.project_(model, config, motifs=torch.tensor([[1e6, 1e6]]))


def bad_weights(name: str) -> str:
    return rf"weights must be finite, got 2 of 65 NaN or infinite in parameter '{name}'"


def locals_of(model: nn.Module) -> list[Tensor]:
    return [local(parameter) for parameter in model.parameters()]


def refusals(rank: int) -> None:
    model = tensor_parallel(wide())
    config = momos.MosaicConfig(block_size=8, num_motifs=6)
    before = [tensor.clone() for tensor in locals_of(model)]
    with pytest.raises(
        ValueError,
        match=r"blocks must not cross the columns of a shard, but this one of parameter "
        r"'2\.weight' holds 8 of 8, 12 of 24 and block_size is 8 \(choose a block_size that",
    ):
        momos.project_(model, config)
    for tensor, kept in zip(locals_of(model), before, strict=True):
        assert torch.equal(tensor, kept)
    momos.project_(model, replace(config, exclude=("2.weight",)))
    mosaic = momos.project_(fsdp(network()), momos.MosaicConfig(num_motifs=6)).mosaic
    with pytest.raises(ValueError, match="sharded as when it was projected"):
        mosaic.write_(tensor_parallel(network()))


def test_a_weight_that_is_not_finite_on_one_rank_is_an_error_on_all():
    run(not_finite, 2)


def test_blocks_across_the_columns_of_a_shard_are_refused():
    run(refusals, 2)


# What travels


def big() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Linear(130, 201), nn.ReLU(), nn.Linear(201, 130), nn.LayerNorm(130)
    )


def traffic(rank: int) -> None:
    k, s = 64, 4
    sent: list[int] = []
    reduce = dist.all_reduce

    def counted(tensor: Tensor, *arguments, **options):
        sent.append(tensor.nbytes)
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = counted
    allowed, draw = 2 * (k * s * 8 + k * 8), k * s * 4
    size = sum(p.nbytes for p in big().parameters())
    model = fsdp(big())
    projector = momos.Projector(model, momos.MosaicConfig(block_size=s, num_motifs=k))
    for selection, most in (("sample", draw), ("distinct", 2 * draw)):
        projector.config = momos.MosaicConfig(
            block_size=s, num_motifs=k, selection=selection
        )
        for _ in range(2):
            sent.clear()
            projector.step()
            assert sum(sent) <= allowed + most, (selection, sum(sent))
    sent.clear()
    momos.project_(model, projector.config, motifs=torch.randn(k, s))
    assert sum(sent) <= allowed, sum(sent)
    # fewer distinct blocks than motifs: not all blocks are drawn to find that out
    sent.clear()
    more = momos.MosaicConfig(block_size=s, num_motifs=2 * k, selection="distinct")
    found = momos.project_(model, more)
    assert found.moved == 0
    assert max(sent) <= 4 * 2 * draw < size / 20
    sent.clear()
    momos.project_(
        fsdp(big()), momos.MosaicConfig(block_size=s, num_motifs=k, selection="kmeans")
    )
    assert max(sent) <= max(allowed, 8 * k * (s * 4 + 16)) < size / 5


def test_projecting_sends_motifs_and_counts_and_no_shards():
    run(traffic, 2)


# Time-outs


def abandoned(rank: int, dies: bool) -> float:
    model = fsdp(network())
    config = momos.MosaicConfig(num_motifs=6)
    momos.project_(model, config)
    begun = time.monotonic()
    if rank == 1:
        if dies:
            os._exit(7)
        time.sleep(6)
        return 0.0
    with pytest.raises(RuntimeError):
        momos.project_(model, config)
    return time.monotonic() - begun


def test_a_rank_that_dies_ends_the_others_with_an_error():
    with pytest.raises(Failed) as failure:
        run(abandoned, 2, True, group_seconds=20)
    assert "rank 1 of 2 ended with 7" in str(failure.value)
    assert "rank 0" not in str(failure.value)


def test_a_rank_that_never_calls_ends_the_others_after_the_time_out():
    assert 1 < run(abandoned, 2, False, group_seconds=2)[0] < 5.5


# Replicas, measures, checkpoints


def measured(rank: int) -> None:
    config = momos.MosaicConfig(block_size=2, num_motifs=10)
    plain, model = network(), fsdp(network())
    momos.project_(plain, config)
    momos.project_(model, config)
    options = {
        "measures": ("signs, order 4", "4-bit codes"),
        "controls": 2,
        "per_tensor": True,
    }
    assert momos.measure(model, **options) == momos.measure(plain, **options)
    with pytest.raises(ValueError, match="is measured by its model"):
        momos.measure(momos.Mosaic.of(model))


def sensitive(rank: int) -> None:
    torch.manual_seed(3)
    batches = torch.randn(5, 4, 7)
    model = network()
    expected = momos.sensitivities(
        model, batches, lambda batch: model(batch).square().mean()
    )
    replica = DistributedDataParallel(network())
    own = batches[rank::2]
    found = momos.sensitivities(replica, own, lambda batch: replica(batch).square().mean())
    assert found == pytest.approx(expected, rel=1e-5)
    assert list(found) == list(expected)
    with pytest.raises(ValueError, match="the loss must be finite"):
        momos.sensitivities(
            replica, own, lambda batch: replica(batch).sum() * (torch.nan if rank else 1)
        )
    with pytest.raises(ValueError, match="must be whole, but fully_shard has sharded it"):
        momos.sensitivities(fsdp(network()), own, lambda batch: batch.sum())


def test_a_sharded_model_is_measured_like_the_whole_one():
    run(measured, 2)


def test_sensitivities_of_replicas_are_means_over_the_batches_of_all():
    run(sensitive, 2)
