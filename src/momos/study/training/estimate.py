"""Estimates time, memory and disk of cells before they are run, from a few steps of each kind."""

import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn

import momos
from momos.study.cell import Cell
from momos.study.tasks.zoo import network as network_of
from momos.study.training.devices import CPU, CUDA, Compute, compute_for
from momos.study.training.history import finished_copy
from momos.study.training.learner import Learner
from momos.study.training.preparation import Prepared, prepared
from momos.study.training.surroundings import undisturbed

STEPS = 3  # that are timed, after one that is not
COPIES = 9  # of the weights on disk at most: weights, file, two checkpoints with moments
STARTING = 5.0  # seconds until a process has imported everything


@dataclass(frozen=True)
class Estimate:
    """For all cells together; memory is of all processes."""

    cells: int
    seconds: float
    memory: int
    disk: int

    def warnings(self, root: Path) -> list[str]:
        """What this machine seems too small for."""
        found = []
        free_memory, free_disk = _free_memory(), shutil.disk_usage(_existing(root)).free
        if self.memory > free_memory:
            found.append(
                f"about {self.memory / 2**30:.1f} GiB of memory are wanted, and "
                f"{free_memory / 2**30:.1f} are free: run fewer processes"
            )
        if self.disk > free_disk:
            found.append(
                f"about {self.disk / 2**30:.1f} GiB of disk are wanted, and "
                f"{free_disk / 2**30:.1f} are free in {root}"
            )
        return found


@dataclass(frozen=True)
class _Rates:
    """Seconds of one step, one evaluation and one measuring; bytes of the weights."""

    step: float
    evaluation: float
    measuring: float
    weights: int


def estimate(
    cells: Sequence[Cell], *, processes: int, threads: int = 1, device: str = ""
) -> Estimate:
    """Tries a few steps for every kind of cell: by task, network, treatment and how it is trained.

    As if nothing stopped early, and on the device of the cells (`run.compute_for`). Processes that
    share a GPU are taken to take turns on it.

    Raises:
        ValueError: if a task, network, treatment or setting is wrong.
    """
    rates: dict[tuple[str, ...], _Rates] = {}
    seconds, disk, shared = 0.0, 0, False
    for cell in cells:
        names = (cell.task, cell.network, cell.treatment)
        kind, plan = (*names, str(cell.settings), str(cell.options)), prepared(cell)
        compute = compute_for(cell, device)
        shared = shared or compute.kind != CPU
        if kind not in rates:
            with undisturbed(threads, compute):
                rates[kind] = _tried(plan.on(compute), compute)
        own, epochs = rates[kind], plan.epochs
        lines = epochs / cell.record_every + 1
        measured = epochs / cell.measure_every + 1 if cell.measure_every else 0
        seconds += plan.total_steps * own.step + lines * own.evaluation
        seconds += own.measuring * (cell.controls + 2 + 3 * measured)
        disk += (COPIES + (cell.keep == "best")) * own.weights
    team = max(1, min(processes, len(cells)))
    seconds /= 1 if shared else team
    return Estimate(len(cells), seconds + STARTING, team * _peak_memory(), disk)


def _tried(plan: Prepared, compute: Compute) -> _Rates:
    cell, task, treatment, place = plan.cell, plan.task, plan.treatment, compute.device
    network, teacher = network_of(cell.network, task, cell.seed).to(place), cell.teacher
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    measuring = _timed(lambda: momos.measure(network, controls=0))
    evaluation = _timed(lambda: task.evaluate(network))
    learner = Learner(
        network,
        task,
        plan.optimization,
        plan.total_steps,
        seed=0,
        teacher=teacher and network_of(teacher.network, task, teacher.seed).to(place),
        channels_last=cell.channels_last,
    )
    treatment.start(network, plan.total_steps, epochs=plan.epochs, seed=0)
    evaluation += _timed(lambda: _validate(plan, network))
    return _Rates(_step(plan, learner, compute), evaluation, measuring, weights)


def _validate(plan: Prepared, network: nn.Module) -> None:
    if plan.task.validate is None:
        return
    if not plan.treatment.settled:  # others cannot always be finished at their start
        network = finished_copy(network, plan.treatment)
    plan.task.validate(network)


def _step(plan: Prepared, learner: Learner, compute: Compute) -> float:
    optimizer = learner.optimization.optimizer_of(learner.network)
    batches = plan.task.batches(torch.Generator().manual_seed(0))
    half = plan.cell.precision == "bfloat16"
    begun = time.perf_counter()
    for number, batch in enumerate(islice(batches, STEPS + 1)):
        if number == 1:
            _wait_for(compute)
            begun = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(compute.device.type, torch.bfloat16, enabled=half):
            inputs, targets = (part.to(compute.device) for part in batch)
            loss = learner.training_step((inputs, targets))
        loss.backward()
        optimizer.step()
        plan.treatment.after_step()
    _wait_for(compute)
    return (time.perf_counter() - begun) / STEPS


def _wait_for(compute: Compute) -> None:
    if compute.device.type == CUDA:
        torch.cuda.synchronize(compute.device)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _peak_memory() -> int:
    """Of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _free_memory() -> int:
    """What the system would give, in bytes."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path
