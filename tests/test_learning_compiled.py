"""Learned motifs under torch.compile and in several processes."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import nn

import momos
from momos import MosaicConfig, Reassign, parametrize_
from networks import bits

CONFIG = MosaicConfig.learned(num_motifs=12, rate_weight=0.1)
# torch.compile makes an instance of autograd.Function itself, and torch warns of that.
COMPILES = pytest.mark.filterwarnings("ignore:.*should not be instantiated")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


@COMPILES
@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_a_compiled_network_has_the_same_gradients(learn: str) -> None:
    """In one graph, also after motifs and indices have followed the weights."""
    torch.compiler.reset()
    inputs, found = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), []
    for compiled in (False, True):
        model = network()
        parametrize_(model, CONFIG, learn=learn)
        schedule = (
            Reassign(model, total_steps=3, every=1, dense=0.3)
            if learn == "weights"
            else None
        )
        call = (
            torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        )
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            call(inputs).square().sum().backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        found.append([call(inputs).detach(), *(p.detach() for p in model.parameters())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def train_on_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    for learn in ("motifs", "weights"):
        model = network(seed=rank)  # DDP starts all of them as the first
        parametrize_(model, CONFIG, learn=learn)
        schedule = Reassign(model, total_steps=6, dense=0.3) if learn == "weights" else None
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        inputs = torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(1))
        for batch in inputs:
            optimizer.zero_grad()
            wrapped(batch[rank * 4 : rank * 4 + 4]).square().mean().backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        momos.freeze_(model)
        momos.save(model, folder / f"{learn}{rank}.momos")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each of two processes saved; both end within three minutes."""
    folder = tmp_path_factory.mktemp("ranks")
    running = torch.multiprocessing.start_processes(
        train_on_rank, (folder,), nprocs=2, join=False, start_method="spawn"
    )
    deadline = time.monotonic() + 180
    try:
        while not running.join(timeout=1):
            assert time.monotonic() < deadline, (
                "the processes must end within three minutes"
            )
    finally:
        for process in running.processes:
            process.kill()
    return folder


@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_processes_agree_bit_for_bit(learn: str, trained: Path) -> None:
    one, two = (trained / f"{learn}{rank}.momos" for rank in (0, 1))
    assert one.read_bytes() == two.read_bytes()
    untrained = network()
    parametrize_(untrained, CONFIG, learn=learn)
    momos.freeze_(untrained)
    found = momos.load(one).state_dict()
    assert any(bits(found[n]) != bits(t) for n, t in untrained.state_dict().items())
