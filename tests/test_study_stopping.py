"""Runs that stop early, keep their best network, or compute in other ways; resumed with the same bits."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import momos
from momos.study.analysis.cohort import cohorts
from momos.study.cell import Cell
from momos.study.store import Finished
from momos.study.tasks import TASKS
from momos.study.tasks.archives import Images
from momos.study.tasks.task import Optimization, Task, image_task, seeded
from momos.study.training import checkpoints
from momos.study.training import run as running
from momos.study.training.estimate import COPIES, estimate
from momos.study.training.run import run

CHOSEN = Cell(task="pictures", controls=0, validation=0.25, patience=2, keep="best")
TREATMENTS: list[tuple[str, dict[str, Any]]] = [
    ("dense", {}),
    ("prune", {"sparsity": 0.8, "begin": 0.1, "end": 0.4}),
    ("quantize_aware", {"bits": 2, "scale": "learned"}),
    ("sampled", {"num_motifs": 9, "every": 4}),
    ("sampled", {"num_motifs": 9, "levels": 7}),
    ("learned", {"num_motifs": 8, "dense": 0.2, "ramp": 0.3}),
    ("learned", {"num_motifs": 8, "learn": "motifs"}),
]
IDS = [f"{name}-{number}" for number, (name, _) in enumerate(TREATMENTS)]
LOW = {"precision": "bfloat16", "channels_last": True}


def pictures() -> Task:
    """Four classes of small noisy images."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (64,), generator=generator)
    pixels = torch.randn(4, 2, 5, 5, generator=generator)[labels]
    images = Images(pixels + torch.randn(64, 2, 5, 5, generator=generator), labels)

    def network() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
            nn.Linear(36, 4),
        )

    return image_task(
        *("pictures", images, images, seeded(network)),
        Optimization(learning_rate=3e-2, batch_size=16, epochs=5),
        prepared=lambda pixels: pixels,
    )


def judged(validate: Callable[[nn.Module], float]) -> Callable[[], Task]:
    """The same with another validation."""

    def without(share: float) -> Task:
        return replace(pictures().held_out(share), validate=validate)

    return lambda: replace(pictures(), without=without)


def stillness(network: nn.Module) -> float:
    """Worse with every epoch: how near a network is to its start."""
    first = pictures().network(0)
    return -float((network[4].weight - first[4].weight).detach().norm())  # type: ignore[index]


def sizes(network: nn.Module) -> float:
    """Of distinct weights there are fewest where a network is a mosaic, or pruned."""
    weights = [weight.flatten() for weight in network.parameters() if weight.ndim > 1]
    return -float(len(torch.cat(weights).unique()))


@pytest.fixture(autouse=True)
def _pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "pictures", pictures)
    monkeypatch.setattr(momos, "measure", partial(momos.measure, measures="signs"))


def left(found: Finished) -> dict[str, Any]:
    """All that a run leaves, but for time and place."""
    files = {p.name: p.read_bytes() for p in found.folder.iterdir() if p.is_file()}
    result = json.loads(files.pop("result.json")) | {"seconds": 0}
    files.pop("cell.json")
    assert not [name for name in files if "ckpt" in name]
    return files | {"result": result}


def interrupt(*arguments: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("treatment", "settings"), TREATMENTS, ids=IDS)
def test_what_is_kept_is_the_best_of_what_files_would_hold(
    treatment: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """In float32, although training is not."""
    cell = replace(CHOSEN, treatment=treatment, settings=settings, patience=0, **LOW)
    found = run(cell, tmp_path)
    from_ = {"prune": 2, "learned": 2 if "ramp" in settings else 1}.get(treatment, 1)
    counted = [line for line in found.history if line["epoch"] >= from_]
    best = max(counted, key=lambda line: line["validation"])
    assert found.kept_epoch == best["epoch"]
    assert found.stopped_epoch is None
    assert (found.validation, found.metric) == (best["validation"], best["metric"])
    assert all(isfinite(line["train_loss"]) for line in found.history[1:])
    network, weights = pictures().network(0), load_file(found.weights)
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}
    # That weights moved, however far: how much was learned differs between processors.
    assert not torch.equal(weights["4.weight"], network[4].weight)  # type: ignore[index]
    network.load_state_dict(weights)
    task = pictures().held_out(0.25)
    assert task.validate is not None
    assert (task.validate(network), task.evaluate(network)) == (
        *(found.validation, found.metric),
    )


@pytest.mark.parametrize(
    ("treatment", "settings", "options"), [(*TREATMENTS[3], {}), (*TREATMENTS[5], LOW)]
)
def test_a_run_that_was_killed_chooses_and_ends_with_the_same_bits(
    treatment: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = replace(CHOSEN, treatment=treatment, settings=settings, **options)
    monkeypatch.setitem(TASKS, "pictures", judged(stillness))
    whole = run(cell, tmp_path / "one")
    first = 1 if treatment == "sampled" else 2
    assert (whole.kept_epoch, whole.stopped_epoch) == (first, first + 2)
    assert [line["epoch"] for line in whole.history] == list(range(first + 3))

    def note(line: dict[str, Any]) -> None:
        if line["epoch"] == first + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cell, tmp_path / "two", note=note)
    assert (tmp_path / "two" / cell.folder / checkpoints.BEST).exists()
    with monkeypatch.context() as patch:  # once it has stopped
        patch.setattr(running._Run, "_result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(cell, tmp_path / "two")
    told: list[Any] = []
    again = run(cell, tmp_path / "two", note=told.append)
    assert not told
    assert left(again) == left(whole)


def test_a_best_network_is_there_whole_when_the_checkpoint_after_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = replace(CHOSEN, patience=0, epochs=2)
    whole = run(cell, tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "os", SimpleNamespace(replace=interrupt))
        with pytest.raises(KeyboardInterrupt):
            run(cell, tmp_path / "two")
    folder = tmp_path / "two" / cell.folder
    assert (folder / "best.ckpt.part").exists()
    assert not (folder / "best.ckpt").exists()
    assert left(run(cell, tmp_path / "two")) == left(whole)


def test_what_is_validated_is_what_the_file_would_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two projections weights are no mosaic, but what is validated is one."""
    monkeypatch.setitem(TASKS, "pictures", judged(sizes))
    settings = {"num_motifs": 5, "block_size": 1, "every": 1000}
    sampled = replace(CHOSEN, treatment="sampled", settings=settings, patience=0, epochs=1)
    assert all(line["validation"] >= -5 for line in run(sampled, tmp_path).history)


def test_the_last_is_kept_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "pictures", judged(stillness))
    found = run(replace(CHOSEN, keep="last", measure_every=4), tmp_path)
    assert (found.kept_epoch, found.stopped_epoch) == (3, 3)
    assert found.validation == found.history[-1]["validation"]
    assert ["measures" in line for line in found.history] == [True, False, False, True]
    (log,) = found.folder.glob("log/version_0/metrics.csv")
    assert "validation" in log.read_text().splitlines()[0].split(",")


def test_pruning_does_not_stop_before_it_has_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "pictures", judged(stillness))
    settings = {"sparsity": 0.8, "begin": 0.1, "end": 0.6}
    cell = replace(CHOSEN, treatment="prune", settings=settings, patience=1)
    found = run(cell, tmp_path)
    assert (found.kept_epoch, found.stopped_epoch) == (3, 4)
    weights = [w for w in load_file(found.weights).values() if w.ndim > 1]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == round(0.8 * sum(weight.numel() for weight in weights))


def test_the_forward_pass_is_in_the_precision_and_format_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Spy(nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out = super().forward(images)
            last = images.is_contiguous(memory_format=torch.channels_last)
            seen.append((self.training, out.dtype, last))
            return out

    def task() -> Task:
        network = lambda: nn.Sequential(Spy(2, 4, 3), nn.Flatten(), nn.Linear(36, 4))  # noqa: E731
        return replace(pictures(), network=seeded(network))

    monkeypatch.setitem(TASKS, "pictures", task)
    cell = Cell(task="pictures", epochs=1, controls=0)
    for options in ({}, {"precision": "bfloat16"}, {"channels_last": True}):
        seen.clear()
        run(replace(cell, **options), tmp_path)
        dtype = torch.bfloat16 if "precision" in options else torch.float32
        assert set(seen) == {
            (True, dtype, "channels_last" in options),
            (False, torch.float32, False),
        }


def test_runs_trained_in_other_ways_are_no_cohort(tmp_path: Path) -> None:
    plain = Cell(task="pictures", epochs=1, controls=0)
    cells = [plain, replace(plain, validation=0.25), replace(plain, **LOW)]
    found = cohorts([run(cell, tmp_path) for cell in cells])
    assert [cohort.full_label for cohort in found] == [
        *("dense, 1 epochs", "dense validation=0.25, 1 epochs"),
        "dense precision=bfloat16 channels_last=True, 1 epochs",
    ]


def test_what_it_will_take_is_estimated_with_validation() -> None:
    plain = replace(CHOSEN, keep="last", validation=0.0, patience=0)
    cells = [plain, replace(CHOSEN, treatment="sampled", settings={"num_motifs": 4}, **LOW)]
    found = [estimate([cell], processes=1) for cell in cells]
    assert found[1].disk == found[0].disk * (COPIES + 1) // COPIES


def test_a_task_that_cannot_be_split_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "pictures", lambda: replace(pictures(), without=None))
    with pytest.raises(ValueError, match="validation must be 0 for the task 'pictures'"):
        run(CHOSEN, tmp_path)
    assert not list(tmp_path.iterdir())
