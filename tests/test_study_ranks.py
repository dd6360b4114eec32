"""Cells on several devices: the same mathematics as on one, replicas that agree, and no hang."""

import os
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ranked
import torch
from torch import nn

from momos.study.cell import Cell
from momos.study.execution import ranks
from momos.study.execution.ranks import together
from momos.study.store import NOBODY, begin, read
from momos.study.tasks import TASKS
from momos.study.tasks.archives import Images
from momos.study.tasks.task import Optimization, Task, image_task, seeded
from momos.study.training import run as running
from momos.study.training.devices import compute_for
from momos.study.training.history import History
from momos.study.training.learner import (
    Learner,
    normalize_alone_,
    normalize_together_,
)
from momos.study.training.preparation import prepared
from momos.study.training.run import Job, run, work

SAMPLES, BATCH = 83, 16  # the last batch has 3
DENSE = Cell(task="pictures", epochs=2, controls=0, devices=2)
CELLS = [
    replace(DENSE, validation=0.2, keep="best", measure_every=2),
    replace(DENSE, treatment="sampled", settings={"num_motifs": 8, "every": 4}),
    replace(DENSE, treatment="learned", settings={"num_motifs": 8, "dense": 0.3}),
    replace(DENSE, treatment="learned", settings={"num_motifs": 8, "learn": "motifs"}),
    replace(DENSE, treatment="learned", settings={"whole": True, "target_bytes": 600}),
    replace(DENSE, treatment="prune", settings={"sparsity": 0.8}),
    replace(DENSE, treatment="quantize_aware", settings={"bits": 3, "scale": "learned"}),
]
RESUMED = CELLS[:3]
IDS = [f"{cell.treatment}-{number}" for number, cell in enumerate(CELLS)]


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        nn.Linear(36, 3),
    )


def pictures() -> Task:
    """Three kinds of images."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(SAMPLES) % 3
    pixels = torch.randn(3, 1, 5, 5, generator=generator)[labels]
    pixels = pixels + torch.randn(SAMPLES, 1, 5, 5, generator=generator)
    images = Images(pixels, labels)
    optimization = Optimization(learning_rate=1e-2, batch_size=BATCH, epochs=2)
    return image_task(
        "pictures",
        *(images, images, seeded(network), optimization),
        prepared=lambda pixels: pixels,
    )


@dataclass(frozen=True)
class Found:
    """What the first of two ranks finds."""

    root: Path
    gradients: dict[int, float]  # how far they are from those of one device, by batch
    statistics: float  # the same for buffers of normalization
    pieces: list[list[int]]  # rows of seven that each rank has


def at_work(job: Path, note: Any) -> Found:
    """In each of two ranks, once for all tests; in the end the first is alone."""
    TASKS["pictures"] = pictures
    gradients, statistics = {}, 0.0
    for rows in (BATCH, 3, 2):
        gradients[rows], far = compared(rows, normalized=True)
        statistics = max(statistics, far)
    gradients[1], _ = compared(1, normalized=False)  # none for the second rank
    pieces = [ranks.share(torch.arange(7)).tolist()]
    pieces = [pieces[0], ranks.of_first(pieces[0])]
    for cell in CELLS:
        trained(cell, job / "two")
    for cell in RESUMED:
        with interrupted():
            trained(cell, job / "again")
        trained(cell, job / "again")
    assert ranks.agree(lambda: "equal")
    assert not ranks.agree(ranks.rank)
    if not ranks.rank():
        with one_alone():
            for cell in CELLS:
                trained(replace(cell, devices=1), job / "one")
    return Found(job, gradients, statistics, pieces)


def trained(cell: Cell, root: Path) -> None:
    if not ranks.rank():
        begin(root / cell.folder, cell, recipe=NOBODY, environment={})
    ranks.of_first(None)
    work(Job(cell, root, "csv", compute_for(cell, "")))


@contextmanager
def interrupted() -> Iterator[None]:
    """Both ranks are, in the second epoch."""
    add = History._add

    def interrupt(history: History, epoch: int, *rest: Any) -> Any:
        if epoch == 2:
            raise KeyboardInterrupt
        return add(history, epoch, *rest)

    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(History, "_add", interrupt)
        yield


@contextmanager
def one_alone() -> Iterator[None]:
    ranks._together = False
    yield
    ranks._together = True


def compared(rows: int, *, normalized: bool) -> tuple[float, float]:
    """Greatest difference of gradients, and of statistics, between two ranks and one device."""
    plan = prepared(replace(DENSE, devices=1))
    own = (
        network().double() if normalized else nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
    )
    own.double()
    with torch.no_grad():
        for number, weight in enumerate(own.parameters()):
            weight.copy_(
                torch.linspace(-1, 2, weight.numel()).sin().view(weight.shape) + number
            )
    whole = deepcopy(own)
    generator = torch.Generator().manual_seed(rows)
    batch = (
        torch.randn(rows, 1, 5, 5, generator=generator).double(),
        torch.arange(rows) % 3,
    )
    normalize_together_(own)
    Learner(own, plan).training_step(batch).backward()
    normalize_alone_(own)
    gradients = [
        ranks.sum_(weight.grad.clone()) / ranks.count() for weight in own.parameters()
    ]
    with one_alone():
        Learner(whole, plan).training_step(batch).backward()
    pairs = zip(gradients, (weight.grad for weight in whole.parameters()), strict=True)
    far = max(float((a - b).abs().max()) for a, b in pairs)
    buffers = zip(own.buffers(), whole.buffers(), strict=True)
    return far, max((float((a - b).abs().max()) for a, b in buffers), default=0.0)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return together(at_work, tmp_path_factory.mktemp("ranks"), ranks=2)


def test_gradients_are_those_of_the_whole_batch_however_it_is_cut(found: Found) -> None:
    assert found.gradients.keys() == {BATCH, 3, 2, 1}
    assert max(found.gradients.values()) < 1e-9
    assert found.statistics < 1e-9
    assert found.pieces == [[0, 1, 2, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize("cell", CELLS, ids=IDS)
def test_two_devices_train_as_one_does(cell: Cell, found: Found) -> None:
    two = read(found.root / "two" / cell.folder)
    alone = replace(cell, devices=1)
    one = read(found.root / "one" / alone.folder)
    assert cell.key != alone.key
    assert two.cell.devices == 2
    assert len(two.history) == len(one.history) == 3
    for ours, theirs in zip(two.history, one.history, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["metric"] == pytest.approx(theirs["metric"], abs=2.5 / SAMPLES)
        if theirs["epoch"]:
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.02)
    assert two.num_weights == one.num_weights
    assert two.metric == pytest.approx(one.metric, abs=2.5 / SAMPLES)
    assert {path.name for path in two.folder.iterdir()} == {
        path.name for path in one.folder.iterdir()
    }


@pytest.mark.parametrize("cell", RESUMED, ids=lambda cell: cell.treatment)
def test_ranks_that_were_killed_go_on_with_the_same_bits(cell: Cell, found: Found) -> None:
    whole, again = (found.root / name / cell.folder for name in ("two", "again"))
    result = read(whole)
    for name in (result.file, "weights.safetensors", "history.jsonl"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()


def test_a_metric_counts_every_sample_once(found: Found) -> None:
    two = read(found.root / "two" / CELLS[0].folder)
    counted = two.metric * SAMPLES
    assert counted == pytest.approx(round(counted), abs=1e-9)


def test_the_death_of_a_rank_ends_the_others_at_once() -> None:
    processes: list[int] = []
    begun = time.monotonic()
    with pytest.raises(BrokenProcessPool):
        together(ranked.die, None, ranks=2, note=processes.append)
    assert time.monotonic() - begun < 900  # before the time-out of torch, 30 minutes
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_what_one_rank_raises_ends_the_others() -> None:
    with pytest.raises(ValueError, match="it must be something else"):
        together(ranked.fail, "it", ranks=2)


def test_a_cell_whose_ranks_die_is_begun_anew_and_then_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    cell = Cell(task="digits", network="mlp:8", epochs=1, devices=3)
    part = tmp_path / cell.folder / "last.ckpt.part"

    def dying(*arguments: Any, ranks: int, **others: Any) -> None:
        calls.append(ranks)
        assert not part.exists()
        part.touch()
        raise BrokenProcessPool

    monkeypatch.setattr(running, "together", dying)
    message = "one of its 3 processes died, 2 times, as for want of memory"
    with pytest.raises(RuntimeError, match=message):
        run(cell, tmp_path)
    assert calls == [3, 3]
    assert message in (tmp_path / cell.folder / "failure.txt").read_text()


def test_who_alone_is_at_work_is_the_only_rank() -> None:
    values = torch.arange(5)
    assert ranks.count() == 1
    assert torch.equal(ranks.share(values), values)
    assert torch.equal(ranks.sum_(values), torch.arange(5))
    assert ranks.of_first(values) is values
