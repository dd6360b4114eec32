"""What learning motifs costs on two processes (gloo): a training step, and the bytes that travel.

Two ranks of one thread each, batch 64 on each, SGD with momentum. A step of learned training
re-assigns all blocks (`every=1`). Bytes are those that a rank gives to collectives in one step.
Times are in turn in one run; "processor" is time that a rank's own thread works.
"""

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from measure import milliseconds, table
from torch import Tensor, nn
from torch._C._distributed_c10d import FileStore
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import momos
from momos.study.tasks.architectures import mlp, resnet20

RANKS, BATCH, ROUNDS = 2, 64, 6
CONFIG = momos.MosaicConfig.learned(rate_weight=0.2)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-20": (resnet20, (3, 32, 32)),
    "MLP, 986 634 weights": (mlp, (3072,)),
}
WAYS = ("DDP, plain", "DDP, learned", "FSDP2, plain", "FSDP2, learned")
# The argument of each collective that holds what a rank gives.
GIVEN = {
    "allreduce_": 0,
    "broadcast_": 0,
    "_allgather_base_": 1,
    "_reduce_scatter_base_": 1,
}


class Traffic(TorchDispatchMode):
    """Counts the bytes that this rank gives to collectives."""

    def __init__(self) -> None:
        super().__init__()
        self.given: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name.startswith("c10d::"):
            short = name.removeprefix("c10d::")
            tensors = [t for t in tree_leaves(args[GIVEN[short]]) if isinstance(t, Tensor)]
            self.given[short] += sum(t.nbytes for t in tensors)
        return func(*args, **(kwargs or {}))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        processes = start_processes(
            measure, (Path(folder),), nprocs=RANKS, start_method="spawn"
        )
        assert processes is None
        found = torch.load(Path(folder) / "found")
    rows = []
    for network in NETWORKS:
        for way in WAYS:
            wall, work, given = found[network, way]
            plain = found[network, way.replace("learned", "plain")]
            ratios = [f"{wall / plain[0]:.3f}", f"{work / plain[1]:.3f}"]
            rows.append([network, way, milliseconds(wall), *ratios, f"{given:,}"])
    header = ["network", "training", "step", "÷ plain", "processor ÷ plain"]
    table([*header, "bytes a rank and step"], rows)


def measure(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    found = {}
    for network, (build, shape) in NETWORKS.items():
        steps = {way: step(way, build, shape) for way in WAYS}
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way, take in steps.items():
                dist.barrier()
                start = time.perf_counter(), time.thread_time()
                take()
                stop = time.perf_counter(), time.thread_time()
                times[way].append((stop[0] - start[0], stop[1] - start[1]))
        for way, take in steps.items():
            with Traffic() as traffic:
                take()
            kept = times[way][1:]
            wall, work = (statistics.median(own) for own in zip(*kept, strict=True))
            found[network, way] = wall, work, traffic.given.total()
    if rank == 0:
        torch.save(found, folder / "found")
    dist.destroy_process_group()


def step(way: str, build: Callable[[], Any], shape: tuple[int, ...]) -> Callable[[], None]:
    """One step of training."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model, schedule = build(), None
    if "learned" in way:
        momos.parametrize_(model, CONFIG, learn="weights")
        schedule = momos.Reassign(model, total_steps=10**6)
        schedule.steps = 600_000  # the ramp of the rate weight is over
    if "DDP" in way:
        model = DistributedDataParallel(model)
    else:
        for part in model.children():
            if any(True for _ in part.parameters()) and not isinstance(part, nn.ModuleList):
                fully_shard(part)
        fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    inputs, labels = torch.randn(BATCH, *shape), torch.randint(10, (BATCH,))

    def take() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()

    return take


if __name__ == "__main__":
    main()
