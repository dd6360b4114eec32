"""Learned motifs under torch.compile and in several processes."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import nn

import momos
from momos import MosaicConfig, Reassign, parametrize_
from networks import bits

CONFIG = MosaicConfig.learned(num_motifs=12, rate_weight=0.1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_a_compiled_network_has_the_same_gradients(learn: str) -> None:
    """In one graph, also after motifs and indices have followed the weights."""
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


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def train_on_rank(rank: int, port: int, learn: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = network()
    parametrize_(model, CONFIG, learn=learn)
    schedule = Reassign(model, total_steps=6, every=2) if learn == "weights" else None
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
    momos.save(model, Path(folder) / f"{rank}.momos")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_processes_agree_bit_for_bit(learn: str, tmp_path: Path) -> None:
    arguments = (free_port(), learn, str(tmp_path))
    torch.multiprocessing.spawn(train_on_rank, arguments, nprocs=2)
    one, two = (tmp_path / f"{rank}.momos" for rank in (0, 1))
    assert one.read_bytes() == two.read_bytes()
    untrained = network()
    parametrize_(untrained, CONFIG, learn=learn)
    momos.freeze_(untrained)
    trained = momos.load(one).state_dict()
    assert any(bits(trained[n]) != bits(t) for n, t in untrained.state_dict().items())
