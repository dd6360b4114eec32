"""Learned motifs on many processes: one mosaic whatever the number of ranks, and however spread.

Gradients are whole numbers times powers of two here, so that sums over ranks are exact and a run
on four ranks sees the weights of a run on one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import momos
from momos.learning.parametrize import bank_of

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


def sharded(model: Any) -> Any:
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
        bias: Any = model.first.bias
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


FEW = ("blocks of three, scales of channels", "dense at first", "motifs")


@pytest.mark.parametrize(
    ("wrap", "ranks"), [(w, n) for w in (replicated, sharded) for n in (1, 2, 3, 4)]
)
def test_the_mosaic_is_that_of_one_process(wrap, ranks, alone):
    cases = CASES | (REPLICATED if wrap is replicated else {})
    if ranks != (2 if wrap is replicated else 3):
        cases = {name: case for name, case in cases.items() if name in FEW}
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
    ways: tuple[dict[str, Any], ...] = (
        {"offload_policy": CPUOffloadPolicy(pin_memory=False)},
        {"mesh": init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards"))},
        {"reshard_after_forward": False},
    )
    for settings in ways:
        model: Any = parametrized(case)
        for part in (model.first, model.second, model):
            fully_shard(part, **settings)
        assert torch.equal(model(inputs), seen)
        (model(inputs) * slopes).sum().backward()
        for own, one in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(own.grad.full_tensor(), one.grad)  # type: ignore[arg-type]
        bank = bank_of(model)
        assert torch.equal(bank.usage(), kept.usage())
        value = (
            model.first.weight
        )  # outside of a forward pass: the mosaic, as it is sharded
        assert torch.equal(value.full_tensor(), plain.first.weight)
    model = parametrized(case)
    fully_shard(model, mp_policy=MixedPrecisionPolicy(torch.bfloat16))
    half = parametrized(case).bfloat16()
    assert torch.equal(model(inputs), half(inputs.bfloat16()))


def tied(rank: int, ranks: int) -> None:
    from torch.distributed.fsdp import fully_shard

    def build() -> Any:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
        model[1].weight = model[0].weight
        momos.parametrize_(model, CASES["rated"].config, learn="weights")
        return model

    inputs = torch.arange(6)
    whole_model, model = build(), build()
    fully_shard(model)
    for each in (whole_model, model):
        optimizer = torch.optim.SGD(each.parameters(), lr=2**-4)
        schedule = momos.Reassign(each, total_steps=2)
        for _ in range(2):
            each(inputs).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    latent = bank_of(model).tiles[0].latent.full_tensor()
    torch.testing.assert_close(latent, bank_of(whole_model).tiles[0].latent.detach())
    mosaic = momos.freeze_(model)
    assert model[0].weight is model[1].weight
    assert torch.equal(whole(mosaic)[1], whole(momos.freeze_(whole_model))[1])
    torch.testing.assert_close(model(inputs), whole_model(inputs))


def test_tied_weights_are_one_sharded_weight():
    run(tied, 2, 2)


def test_a_sharded_forward_pass_is_the_whole_ones():
    run(sharded_along, 4)


def memory(rank: int, ranks: int) -> None:
    from torch.distributed.fsdp import fully_shard

    model: Any = nn.Sequential(*(nn.Linear(128, 128, bias=False) for _ in range(4)))
    momos.parametrize_(model, momos.MosaicConfig.learned(num_motifs=8), learn="weights")
    for part in (*model, model):
        fully_shard(part)
    model(torch.ones(1, 128)).sum().backward()
    momos.Reassign(model, total_steps=2).step()
    bank = bank_of(model)
    tensors = [t.to_local() for t in model.parameters()]
    held = sum(t.nbytes for t in (*tensors, *model.buffers()))
    latents, indices = 4 * 128 * 128 * 4, 4 * 128 * 64 * 4
    small = sum(t.nbytes for n, t in bank.named_buffers() if n != "indices")
    assert held <= 1.1 * ((latents + indices) / ranks + small)
    sent = [
        tile.sent(t, (128, 128), model[0].weight.device_mesh, None)
        for tile, t in zip(bank.tiles, tensors, strict=True)
    ]
    assert {t.nbytes for t in sent} == {128 * 64 // ranks}  # a byte for each block


def test_a_rank_holds_its_share():
    run(memory, 4, 4)


def frozen(rank: int, ranks: int, folder: str) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
    )

    case = CASES["blocks of three, scales of channels"]
    model = sharded(parametrized(case))
    learn(model, case, rank, ranks)
    options = StateDictOptions(full_state_dict=True)
    state = get_model_state_dict(model, options=options)
    inputs, slopes = batches(rank, ranks)[0]
    seen = model(inputs)
    momos.freeze_(model)
    assert type(model.first).__name__ == "FSDPLinear"
    assert sorted(dict(model.named_parameters())) == sorted(dict(Net().named_parameters()))
    momos.save(model, Path(folder) / "sharded.momos")
    torch.testing.assert_close(model(inputs), seen, rtol=0.01, atol=0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # it is an ordinary network
    before = model.first.weight.full_tensor().clone()
    (model(inputs) * slopes).sum().backward()
    optimizer.step()
    assert not torch.equal(model.first.weight.full_tensor(), before)
    assert not torch.equal(model(inputs), seen)
    model.load_state_dict(model.state_dict())
    return state


def test_a_frozen_sharded_model_saves_the_whole_ones_bytes(tmp_path: Path):
    case = CASES["blocks of three, scales of channels"]
    state = run(frozen, 3, 3, str(tmp_path))[0]
    other = parametrized(case, seed=1)
    other.load_state_dict(state)
    momos.freeze_(other)
    momos.save(other, tmp_path / "loaded.momos")
    model = parametrized(case)
    learn(model, case, 0, 1)
    momos.freeze_(model)
    momos.save(model, tmp_path / "whole.momos")
    expected = (tmp_path / "whole.momos").read_bytes()
    assert (tmp_path / "sharded.momos").read_bytes() == expected
    assert (tmp_path / "loaded.momos").read_bytes() == expected


# Checkpoints


def checkpointed(rank: int, ranks: int, folder: str, steps: tuple[int, int]) -> Any:
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save

    case, (start, stop) = CASES["blocks of three, scales of channels"], steps
    model = sharded(parametrized(case))
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-8, momentum=0.5)
    schedule = momos.Reassign(model, total_steps=STEPS)

    def state() -> dict[str, Any]:
        weights, moments = get_state_dict(model, optimizer)
        return {"model": weights, "optimizer": moments, "schedule": schedule.state_dict()}

    if start:
        saved = state()
        load(saved, checkpoint_id=folder)
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
        save(state(), checkpoint_id=folder)
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


# Replicas


def differently(rank: int, ranks: int) -> list[Any]:
    """Replicas that are made with different draws, importance and plans."""
    wrapped, found = None, []
    importance = {name: 1.0 + rank * number for number, name in enumerate(EACH)}
    each = {
        name: torch.rand_like(p) for name, p in Net().named_parameters() if name in EACH
    }
    for weights in (importance, each):
        model = Net(seed=rank)
        config = momos.MosaicConfig.learned(num_motifs=8, rate_weight=0.5)
        generator = torch.Generator().manual_seed(rank)
        momos.parametrize_(
            model, config, learn="weights", importance=weights, generator=generator
        )
        wrapped = DistributedDataParallel(model)
        schedule = momos.Reassign(wrapped, total_steps=STEPS + 3 * rank, ramp=0.7)
        learn(wrapped, CASES["rated"], rank, ranks, schedule=schedule)
        found += [bank_of(wrapped).motifs, bank_of(wrapped).indices, schedule.rate_weight]
    return found


def test_what_is_decided_on_one_rank_is_decided_on_all():
    one, *others = run(differently, 3, 3)
    for other in others:
        for mine, its in zip(one, other, strict=True):
            assert torch.equal(torch.as_tensor(mine), torch.as_tensor(its))


def wrapped_in_all_ways(rank: int, ranks: int) -> list[Tensor]:
    found = []
    settings: Any = {"static_graph": True, "gradient_as_bucket_view": True}
    for case in (CASES["rated"], REPLICATED["motifs"], REPLICATED["whole"]):
        model = DistributedDataParallel(parametrized(case), **settings)
        learn(model, case, rank, ranks)
        found.append(whole(momos.freeze_(model))[1])
    for case in (CASES["rated"], REPLICATED["motifs"]):  # two halves of each batch
        model = DistributedDataParallel(parametrized(case))
        optimizer = torch.optim.SGD(model.parameters(), lr=2**-8)
        schedule = (
            momos.Reassign(model, total_steps=STEPS) if case.learn == "weights" else None
        )
        for inputs, slopes in batches(rank, ranks):
            with model.no_sync():
                (model(inputs[::2]) * slopes[::2]).sum().backward()
            (model(inputs[1::2]) * slopes[1::2]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if schedule is not None:
                schedule.step()
        found.append(whole(momos.freeze_(model))[1])
    return found


def test_all_ways_of_wrapping_give_one_mosaic(alone):
    names = ["rated", "motifs", "whole", "rated", "motifs"]
    for found in run(wrapped_in_all_ways, 2, 2):
        for indices, name in zip(found, names, strict=True):
            assert torch.equal(indices, alone[name][1]), name


def broadcast(rank: int) -> None:
    model = DistributedDataParallel(parametrized(CASES["rated"]))
    (inputs, _), *_ = batches(rank, 2)
    model(inputs)
    before = {name: buffer.clone() for name, buffer in model.module.named_buffers()}
    if rank:
        for buffer in model.module.buffers():
            buffer.add_(1) if buffer.dtype != torch.bool else buffer.logical_not_()
    model(inputs)
    for name, buffer in model.module.named_buffers():
        large = name.endswith((".value", "momos.indices"))
        same = torch.allclose(buffer.double(), before[name].double(), equal_nan=True)
        assert same == (not (rank and large)), name


def test_only_small_buffers_are_broadcast_at_each_step():
    run(broadcast, 2)


def shrunk(rank: int, path: str) -> int:
    model = Net()
    config = momos.MosaicConfig.learned(selection="whole", rate_weight=1e-3)
    momos.parametrize_(model, config, learn="weights")
    model = DistributedDataParallel(model)
    schedule = momos.Shrink(model, total_steps=STEPS, target_bytes=700)
    learn(model, REPLICATED["whole"], rank, 2, schedule=schedule)
    momos.freeze_(model)
    momos.save(model.module, f"{path}/{rank}.momos")
    return schedule.num_bytes or 0


def test_a_target_in_bytes_is_met_by_all_replicas(tmp_path: Path):
    sizes = run(shrunk, 2, str(tmp_path))
    assert sizes[0] == sizes[1] <= 700
    assert (tmp_path / "0.momos").read_bytes() == (tmp_path / "1.momos").read_bytes()


def sensitive(rank: int, ranks: int) -> dict[str, float]:
    model = Net()
    wrapped: Any = DistributedDataParallel(model) if ranks > 1 else model
    samples = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0))

    def loss(batch: Tensor) -> Tensor:
        return wrapped(batch).square().mean()

    found = momos.sensitivities(wrapped, samples[rank::ranks], loss)
    assert all(p.grad is None for p in model.parameters())
    wrapped(samples[0]).sum().backward()  # replicas wait for each other again
    return found


def test_sensitivities_are_of_the_batches_of_all_ranks():
    alone = sensitive(0, 1)
    assert sorted(alone) == sorted(dict(Net().named_parameters()))
    for ranks in (2, 3):
        assert run(sensitive, ranks, ranks) == [alone] * ranks


# What is refused


def words(function: Callable[[], object]) -> str:
    try:
        function()
    except ValueError as error:
        return str(error)
    return "nothing was refused"


def refusals(rank: int) -> dict[str, str]:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard

    said, rated = {}, CASES["rated"]
    model = sharded(Net())
    said["order"] = words(lambda: momos.parametrize_(model, rated.config, learn="weights"))
    cases = {"motifs": REPLICATED["motifs"], "whole": REPLICATED["whole"], "rated": rated}
    for name, case in cases.items():
        said[name] = words(lambda case=case: fully_shard(parametrized(case)))
        wrapped = DistributedDataParallel(Net())
        said[f"{name} wrapped"] = words(
            lambda case=case, wrapped=wrapped: momos.parametrize_(
                wrapped, case.config, learn=case.learn
            )
        )
        momos.parametrize_(wrapped.module, case.config, learn=case.learn)
        said[f"{name} run"] = words(lambda wrapped=wrapped: wrapped(torch.ones(2, 5)))
    columns = parametrized(Case({"num_motifs": 4, "include": ("second.*",)}))
    fully_shard(
        columns, shard_placement_fn=lambda p: Shard(1) if p.shape[1:] == (4,) else None
    )
    wide = nn.Sequential(nn.Linear(4, 6))
    momos.parametrize_(wide, rated.config, learn="weights")
    fully_shard(wide, shard_placement_fn=lambda p: Shard(1) if p.ndim == 2 else None)
    said["columns"] = words(lambda: wide(torch.ones(2, 4)))
    part = parametrized(rated)
    fully_shard(part.first)
    said["part"] = words(lambda: momos.Reassign(part, total_steps=2).step())
    for wrap in (sharded, replicated):
        broken = parametrized(rated)
        wrapped = wrap(broken)
        wrapped(torch.ones(2, 5))
        schedule = momos.Reassign(broken, total_steps=4)
        before = bank_of(broken).indices.clone()
        with torch.no_grad():
            tensor: Any = bank_of(broken).tiles[0].latent
            if wrap is sharded and rank == 1:
                tensor.to_local().flatten()[0:1].fill_(torch.nan)
            elif wrap is replicated:
                tensor[0, 0] = torch.nan
        said[f"nan {wrap.__name__}"] = words(schedule.step)
        assert torch.equal(bank_of(broken).indices, before)
        assert schedule.steps == 0
    config = momos.MosaicConfig.learned(num_motifs=4 + rank)
    odd = Net()
    momos.parametrize_(odd, config, learn="weights")
    return said


REFUSED = {
    "order": "motifs must be learned before the model is sharded, but 'first.weight' is sharded "
    "already (call momos.parametrize_, then fully_shard, then make the optimizer)",
    "motifs": "fully_shard can shard learned weights only with learn='weights' and a selection "
    "other than 'whole'",
    "whole": "fully_shard can shard learned weights only with learn='weights' and a selection "
    "other than 'whole'",
    "rated": "nothing was refused",
    **{
        f"{name} {when}": "DistributedDataParallel must wrap the model after momos.parametrize_, "
        "which changes its parameters, but wrapped it before (wrap it again, and make the "
        "optimizer after that)"
        for name in ("motifs", "whole", "rated")
        for when in ("wrapped", "run")
    },
    "columns": "learned weights must be sharded by their first dimension (fully_shard, also with a "
    "mesh of replicas and shards), but '0.weight' is placed as (Shard(dim=1),)",
    "part": "'second.weight' is whole: apply fully_shard to the root too",
    "nan sharded": "weights must be finite, got 1 of 35 NaN or infinite in parameter "
    "'first.weight'",
    "nan replicated": "weights must be finite, got 1 of 35 NaN or infinite in parameter "
    "'first.weight'",
}


def test_what_cannot_be_spread_is_refused_on_all_ranks():
    for said in run(refusals, 2):
        assert said.keys() == REFUSED.keys()
        for name, message in REFUSED.items():
            assert message in said[name], (name, said[name])
