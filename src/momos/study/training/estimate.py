"""Estimates time, memory and disk of cells before they are run, from a few steps of each kind."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

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

    seconds: float
    memory: int
    disk: int


@dataclass(frozen=True)
class _Rates:
    """Seconds of one step, one evaluation and one measuring; bytes of the weights."""

    step: float
    evaluation: float
    measuring: float
    weights: int


def estimate(cells: Sequence[Cell], *, processes: int, device: str = "") -> Estimate:
    """Tries a few steps for every kind of cell: by task, network, treatment and how it is trained.

    As if nothing stopped early, on the device of the cells, where processes take turns on a GPU.
    """
    rates: dict[tuple[str, ...], _Rates] = {}
    seconds, disk, shared, most = 0.0, 0, False, 1
    for cell in cells:
        names = (cell.task, cell.network, cell.treatment)
        kind, plan = (*names, str(cell.settings), str(cell.options)), prepared(cell)
        compute = compute_for(cell, device)
        shared, most = shared or compute.kind != CPU, max(most, compute.devices)
        if kind not in rates:
            with undisturbed(compute):
                rates[kind] = _tried(plan.on(compute), compute)
        own, epochs = rates[kind], plan.epochs
        lines = epochs / cell.record_every + 1
        measured = epochs / cell.measure_every + 1 if cell.measure_every else 0
        seconds += plan.total_steps * own.step + lines * own.evaluation
        seconds += own.measuring * (cell.controls + 2 + 3 * measured)
        disk += (COPIES + (cell.keep == "best")) * own.weights
    team = max(1, min(processes, len(cells)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = peak if sys.platform == "darwin" else 1024 * peak
    return Estimate(
        seconds / (1 if shared else team) + STARTING, team * most * memory, disk
    )


def _tried(plan: Prepared, compute: Compute) -> _Rates:
    cell, task, treatment, place = plan.cell, plan.task, plan.treatment, compute.device
    network, teacher = network_of(cell.network, task, cell.seed).to(place), cell.teacher
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    measuring = _timed(lambda: momos.measure(network, controls=0))
    evaluation = _timed(lambda: task.evaluate(network))
    teaching = teacher and network_of(teacher.network, task, teacher.seed).to(place)
    learner = Learner(network, plan, teaching)
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
            share = -(-len(batch[0]) // compute.devices)
            inputs, targets = (part[:share].to(compute.device) for part in batch)
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
