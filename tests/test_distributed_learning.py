"""Learned motifs on many processes: one mosaic whatever the number of ranks, and however spread.

Gradients are whole numbers times powers of two here, so that sums over ranks are exact and a run
on four ranks sees the weights of a run on one.
"""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import momos
import pytest
import torch
import torch.distributed as dist
from momos.learning.parametrize import bank_of
from processes import Failed, run
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

STEPS = 6
SAMPLES = 24  # of a global batch: a number that 1, 2, 3 and 4 ranks share


class Net(nn.Module):
    """Three layers side by side, whose gradients do not depend on weights; shards are uneven."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(5, 7)
        self.second = nn.Conv1d(5, 3, 3, padding=1)
        self.third = nn.Linear(5, 2, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.first(inputs), self.second(inputs[:, :, None]), self.third(inputs)
        return torch.cat([each.flatten(1) for each in outputs], 1)


@dataclass(frozen=True)
class Case:
    """How motifs are learned."""

    settings: dict[str, Any]
    learn: Any = "weights"
    schedule: dict[str, Any] | None = None
    importance: dict[str, Any] | None = None

    @property
    def config(self) -> momos.MosaicConfig:
        return momos.MosaicConfig.learned(**self.settings)


EACH = {
    "first.weight": torch.linspace(0.5, 2, 35).view(7, 5),
    "second.weight": 1.0,
    "third.weight": 0.25,
}
CASES = {
    "rated": Case({"num_motifs": 8, "rate_weight": 0.3}),
    "blocks of three, scales of channels": Case(
        {"num_motifs": 6, "block_size": 3, "scales": "channel"}, schedule={"every": 2}
    ),
    "no scales, revived": Case(
        {"num_motifs": 9, "scales": "none", "rate_weight": 0.0, "bits": 16}
    ),
    "dense at first": Case({"num_motifs": 8}, schedule={"dense": 0.4}),
    "groups, by importance": Case(
        {"num_motifs": 5, "groups": (("first.*",),), "scales": "none"},
        importance={"first.weight": 4.0, "second.weight": 1.0, "third.weight": 0.5},
    ),
    "importance of each weight": Case({"num_motifs": 8}, importance=EACH),
}
REPLICATED = {
    "motifs": Case({"num_motifs": 8}, learn="motifs"),
    "whole": Case({"selection": "whole", "rate_weight": 1e-3}),
    "whole, dense at first": Case({"selection": "whole"}, schedule={"dense": 0.4}),
}


def batches(rank: int, ranks: int) -> list[tuple[Tensor, Tensor]]:
    """This rank's part of each batch, inputs and slopes, whose mean is that of one process."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randint(-2, 3, (STEPS, SAMPLES, 5), generator=generator).float()
    slopes = torch.randint(-1, 2, (STEPS, SAMPLES, 12), generator=generator).float() * ranks
    pairs = zip(inputs, slopes, strict=True)
    return [(x[rank::ranks], y[rank::ranks]) for x, y in pairs]


def learn(
    model: nn.Module, case: Case, rank: int, ranks: int, *, schedule: Any = None
) -> list[momos.Reassignment | None]:
    """Trains `model`, already parametrized and wrapped."""
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-8)
    if schedule is None and case.learn == "weights":
        schedule = momos.Reassign(model, total_steps=STEPS, **(case.schedule or {}))
    done = []
    for inputs, slopes in batches(rank, ranks):
        loss = (model(inputs) * slopes).sum()
        if schedule is not None:
            loss = loss + schedule.penalty()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        done.append(None if schedule is None else schedule.step())
    return done


def parametrized(case: Case, seed: int = 0) -> Net:
    model = Net(seed)
    momos.parametrize_(model, case.config, learn=case.learn, importance=case.importance)
    return model


def replicated(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def sharded(model: Any) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    fully_shard(model.first)
    return fully_shard(model)


def whole(mosaic: momos.Mosaic) -> tuple[Tensor, Tensor]:
    """Motifs, and the indices of all blocks."""
    indices = torch.zeros(mosaic.layout.num_blocks, dtype=torch.int64)
    layout: Any = mosaic.layout
    if not layout.ranks.groups:
        return mosaic.motifs, mosaic.indices.long()
    starts, lengths = layout.runs()
    rows = layout.counted(mosaic.indices).long()
    numbers = [torch.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)]
    indices[torch.cat(numbers)] = rows
    return mosaic.motifs, layout.ranks.sum(indices)


def mosaics(rank: int, ranks: int, wrap: Any, cases: dict[str, Case]) -> dict[str, Any]:
    """What each case ends with on this rank."""
    found = {}
    for name, case in cases.items():
        model = parametrized(case, seed=rank if wrap is replicated else 0)
        wrapped = wrap(model)
        done = learn(wrapped, case, rank, ranks)
        mosaic = momos.freeze_(wrapped)
        bias = model.first.bias
        bias = bias if wrap is replicated else bias.full_tensor()
        found[name] = (*whole(mosaic), bias.detach(), done)
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    found = {}
    for name, case in (CASES | REPLICATED).items():
        model = parametrized(case)
        done = learn(model, case, 0, 1)
        mosaic = momos.freeze_(model)
        found[name] = (*whole(mosaic), model.first.bias.detach(), done)
    return found


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("wrap", [replicated, sharded])
def test_the_mosaic_is_that_of_one_process(wrap, ranks, alone):
    cases = CASES | (REPLICATED if wrap is replicated else {})
    for found in run(mosaics, ranks, ranks, wrap, cases):
        for name in cases:
            motifs, indices, bias, done = found[name]
            assert torch.equal(motifs, alone[name][0]), name
            assert torch.equal(indices, alone[name][1]), name
            assert torch.equal(bias, alone[name][2]), name
            assert done == alone[name][3], name


# Sharded models


def sharded_along(rank: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

    case = CASES["rated"]
    inputs, slopes = batches(0, 1)[0]
    plain = parametrized(case)
    seen = plain(inputs)
    (seen * slopes).sum().backward()
    kept = bank_of(plain)
    for settings in (
        {"offload_policy": CPUOffloadPolicy(pin_memory=False)},
        {"mesh": init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards"))},
        {"reshard_after_forward": False},
    ):
        model = parametrized(case)
        for part in (model.first, model.second, model):
            fully_shard(part, **settings)
        assert torch.equal(model(inputs), seen)
        (model(inputs) * slopes).sum().backward()
        for own, one in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(own.grad.full_tensor(), one.grad)
        bank = bank_of(model)
        assert torch.equal(bank.usage(), kept.usage())
        value = model.first.weight  # outside of a forward pass: the mosaic, as it is sharded
        assert torch.equal(value.full_tensor(), plain.first.weight)
    model = fully_shard(parametrized(case), mp_policy=MixedPrecisionPolicy(torch.bfloat16))
    half = parametrized(case).bfloat16()
    assert torch.equal(model(inputs), half(inputs.bfloat16()))


def test_a_sharded_forward_pass_is_the_whole_ones():
    run(sharded_along, 4)


def memory(rank: int, ranks: int) -> None:
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(*(nn.Linear(128, 128, bias=False) for _ in range(4)))
    momos.parametrize_(
        model, momos.MosaicConfig.learned(num_motifs=8), learn="weights"
    )
    for part in (*model, model):
        fully_shard(part)
    model(torch.ones(1, 128)).sum().backward()
    momos.Reassign(model, total_steps=2).step()
    bank = bank_of(model)
    tensors = [t.to_local() if hasattr(t, "to_local") else t for t in model.parameters()]
    held = sum(t.nbytes for t in (*tensors, *model.buffers()))
    latents, indices = 4 * 128 * 128 * 4, 4 * 128 * 64 * 4
    small = sum(t.nbytes for n, t in bank.named_buffers() if n != "indices")
    assert held <= 1.1 * ((latents + indices) / ranks + small)
    sent = [tile.sent(t, (128, 128), model[0].weight.device_mesh, None)
            for tile, t in zip(bank.tiles, tensors, strict=True)]
    assert {t.nbytes for t in sent} == {128 * 64 // ranks}  # a byte for each block


def test_a_rank_holds_its_share():
    run(memory, 4, 4)


# Checkpoints


def checkpointed(rank: int, ranks: int, folder: str, steps: tuple[int, int]) -> Any:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    case, (start, stop) = CASES["blocks of three, scales of channels"], steps
    model = sharded(parametrized(case))
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-8, momentum=0.5)
    schedule = momos.Reassign(model, total_steps=STEPS)

    def state() -> dict[str, Any]:
        weights, moments = get_state_dict(model, optimizer)
        return {"model": weights, "optimizer": moments, "schedule": schedule.state_dict()}

    if start:
        saved = state()
        dcp.load(saved, checkpoint_id=folder)
        set_state_dict(
            model,
            optimizer,
            model_state_dict=saved["model"],
            optim_state_dict=saved["optimizer"],
        )
        schedule.load_state_dict(saved["schedule"])
        assert schedule.steps == start
    for inputs, slopes in batches(rank, ranks)[start:stop]:
        (model(inputs) * slopes).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    if stop < STEPS:
        dcp.save(state(), checkpoint_id=folder)
        return None
    return whole(momos.freeze_(model))


def test_a_checkpoint_of_four_ranks_continues_on_any_number(tmp_path: Path):
    found = run(checkpointed, 4, 4, str(tmp_path / "whole"), (0, STEPS))[0]
    run(checkpointed, 4, 4, str(tmp_path / "half"), (0, 3))
    for ranks in (1, 2, 3):
        for motifs, indices in run(
            checkpointed, ranks, ranks, str(tmp_path / "half"), (3, STEPS)
        ):
            assert torch.equal(motifs, found[0])
            assert torch.equal(indices, found[1])
