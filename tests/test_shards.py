"""What a rank holds of a tensor, and what ranks tell each other."""

import pytest
import torch
import torch.distributed as dist
from processes import Failed, run
from test_distributed import (
    fsdp,
    hybrid,
    network,
    offloaded,
    tensor_parallel,
    two_dimensional,
    wide,
)
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Partial, distribute_tensor

import momos
from momos.shards import ALONE, Part, Ranks, local


def uneven() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 15), nn.ReLU(), nn.Linear(15, 6))


def parts(rank: int) -> None:
    spreads = [(network, fsdp), (network, offloaded)]
    spreads += [(wide, hybrid), (uneven, two_dimensional)]
    spreads += [(uneven, tensor_parallel)]
    for make, spread in spreads:
        plain, model = make(), spread(make())
        ranks = Ranks.of(model)
        assert ranks.size == 4
        assert ranks.number == rank
        pairs = zip(model.named_parameters(), plain.parameters(), strict=True)
        for (name, parameter), weight in pairs:
            part = Part.of(name, parameter, ranks)
            own, flat = local(parameter), weight.detach().reshape(-1)
            assert torch.equal(weight[part.box], own), name
            runs = part.starts[:, None] + torch.arange(part.length)
            assert torch.equal(flat[runs.reshape(-1)], own.reshape(-1)), name
            held, at = part.find(torch.arange(len(flat)))
            assert torch.equal(own.reshape(-1)[at[held]], flat[held]), name
            assert int(held.sum()) == part.num_held == own.numel()
            counted = ranks.sum((held & part.counts).long())
            assert counted.tolist() == [1] * len(flat), (spread.__name__, name)


def fail(rank: int, last: Exception | None, middle: Exception) -> None:
    """Raises `middle` on rank 1, and `last` on rank 2."""
    error = [None, middle, last][rank]
    if error is not None:
        raise error


def unpicklable() -> type[ValueError]:
    class Unusual(ValueError):
        """Cannot be pickled, since no module has it."""

    return Unusual


Unusual = unpicklable()


def talk(rank: int) -> None:
    ranks = Ranks.of(tensor_parallel(wide()))
    size = dist.get_world_size()
    assert [own.tolist() for own in ranks.gather(torch.arange(rank))] == [
        list(range(n)) for n in range(size)
    ]
    assert [int(one.sum()) for (one,) in ranks.each(torch.full((rank,), 2))] == [
        2 * n for n in range(size)
    ]
    assert ranks.message({"rank": rank}) == {"rank": 0}
    bits = torch.tensor([-0.0, torch.nan]) if rank == 1 else torch.zeros(2)
    found = ranks.union(bits)
    assert bool(found[0].signbit())
    assert bool(found[1].isnan())
    with pytest.raises(KeyError, match="one"), ranks.together():
        fail(rank, KeyError("another"), KeyError("one"))
    with pytest.raises(RuntimeError, match="Unusual: words"), ranks.together():
        fail(rank, None, Unusual("words"))
    draw = torch.Generator().manual_seed(rank)
    ranks.share_(draw)
    assert draw.get_state().equal(torch.Generator().manual_seed(0).get_state())


def refused(rank: int) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("a", "b"))
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    for layer, axis in zip(model, ("a", "b"), strict=True):
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh[axis]))
    with pytest.raises(
        ValueError,
        match=r"must be on meshes of the same processes, or on parts of one mesh",
    ):
        momos.project_(model, momos.MosaicConfig(num_motifs=3))
    partial = torch.distributed.tensor.DTensor.from_local(
        torch.ones(4), mesh["a"], [Partial()]
    )
    with pytest.raises(
        ValueError, match=r"tensor 'x' must hold weights, but it is a DTensor"
    ):
        Part.of("x", partial)


def test_every_weight_counts_on_one_rank():
    run(parts, 4)


def test_ranks_tell_each_other():
    run(talk, 3)


def test_parameters_on_unrelated_meshes_are_refused():
    run(refused, 4)


def test_one_process_is_told_what_it_says():
    assert ALONE.sum(torch.ones(3)).tolist() == [1, 1, 1]
    assert ALONE.message("x") == "x"
    assert (ALONE.size, ALONE.number) == (1, 0)
    with pytest.raises(KeyError), ALONE.together():
        raise KeyError
    part = Part.of("weight", torch.zeros(3, 4))
    assert (part.num_held, part.counts, part.box) == (12, True, (slice(0, 3), slice(0, 4)))


def raising(rank: int) -> None:
    if rank == 1:
        raise ZeroDivisionError("on purpose")


def test_an_error_of_a_rank_fails_the_test_with_its_traceback():
    with pytest.raises(Failed, match=r"rank 1 of 2 ended with 1:(.|\n)*on purpose"):
        run(raising, 2)


def hanging(rank: int) -> None:
    import time

    time.sleep(60 if rank == 1 else 0)


def test_a_rank_that_hangs_is_killed_and_named():
    with pytest.raises(Failed, match=r"rank 1 of 2 hung:(.|\n)*in hanging") as failure:
        run(hanging, 2, seconds=4)
    assert "rank 0" not in str(failure.value)
