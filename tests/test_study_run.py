"""A cell is run whole, once, and goes on with the same bits after it was killed."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import momos
from momos.study.cell import Cell
from momos.study.store import read
from momos.study.tasks import TASKS
from momos.study.tasks.archives import Images
from momos.study.tasks.task import Optimization, Task, accuracy, seeded
from momos.study.training import run as running
from momos.study.training.checkpoints import last_whole
from momos.study.training.run import run

EPOCHS = 4
TREATMENTS: list[tuple[str, dict[str, Any]]] = [
    ("dense", {}),
    ("prune", {"sparsity": 0.8}),
    ("quantize_aware", {"bits": 3, "scale": "learned"}),
    ("sampled", {"block_size": 2, "num_motifs": 20}),
    ("sampled", {"block_size": 2, "num_motifs": 20, "every": 3}),
    ("learned", {"num_motifs": 12, "rate_weight": 0.3, "sensitive": True}),
    ("learned", {"num_motifs": 12, "dense": 0.3, "every": 2}),
    ("learned", {"num_motifs": 12, "learn": "motifs"}),
]
IDS = [f"{name}-{number}" for number, (name, _) in enumerate(TREATMENTS)]


def blobs() -> Task:
    """Four classes of eight values, a small network that normalizes and drops out."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (96,), generator=generator)
    pixels = torch.randn(4, 8, generator=generator)[labels] * 2
    pixels = pixels + torch.randn(96, 8, generator=generator)
    images = Images(pixels, labels)

    def batches(order: torch.Generator):
        for rows in torch.randperm(96, generator=order).split(16):
            yield pixels[rows], labels[rows]

    def network() -> nn.Module:
        return nn.Sequential(
            *(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1)),
            nn.Linear(24, 4),
        )

    return Task(
        "blobs",
        seeded(network),
        batches,
        lambda network: accuracy(network, images, lambda values: values),
        6,
        Optimization(learning_rate=1e-2, batch_size=16, epochs=EPOCHS),
    )


@pytest.fixture(autouse=True)
def _blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "blobs", blobs)
    monkeypatch.setattr(momos, "measure", partial(momos.measure, measures="signs"))


def interrupted_at(epoch: int):
    def note(line: dict[str, Any]) -> None:
        if line["epoch"] == epoch:
            raise KeyboardInterrupt

    return note


def interrupt(*arguments: Any) -> None:
    raise KeyboardInterrupt


def kept(root: Path, cell: Cell) -> dict[str, Any]:
    """All that a run leaves, but for time and place."""
    folder = root / cell.folder
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    result = json.loads(files.pop("result.json")) | {"seconds": 0}
    files.pop("cell.json")
    return files | {"result": result}


@pytest.mark.parametrize(("treatment", "settings"), TREATMENTS, ids=IDS)
def test_a_run_that_was_killed_ends_with_the_same_bits(
    treatment: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    start = Cell(task="blobs", epochs=2, controls=2)
    cell = replace(
        start,
        treatment=treatment,
        settings=settings,
        epochs=EPOCHS - 0.5,
        measure_every=4,
        start=start,
        teacher=start,
    )
    for root in (tmp_path / "one", tmp_path / "two"):
        run(start, root)
    whole = run(cell, tmp_path / "one")
    for epoch in (1, 3):  # before its checkpoint: the one before it is the last
        with pytest.raises(KeyboardInterrupt):
            run(cell, tmp_path / "two", note=interrupted_at(epoch))
    told: list[int] = []
    run(cell, tmp_path / "two", note=lambda line: told.append(line["epoch"]))
    assert told == [3, 4]
    assert kept(tmp_path / "one", cell) == kept(tmp_path / "two", cell)
    assert [line["epoch"] for line in whole.history] == [0, 1, 2, 3, 4]
    assert ["measures" in line for line in whole.history] == [True, *[False] * 3, True]


@pytest.mark.parametrize("late", ["_Run._result", "_lengths"], ids=["step", "file"])
@pytest.mark.parametrize(("treatment", "settings"), TREATMENTS, ids=IDS)
def test_a_run_that_was_killed_after_its_last_step_or_file_ends_with_the_same_bits(
    treatment: str, settings: dict[str, Any], late: str, tmp_path: Path, monkeypatch
) -> None:
    cell = Cell(task="blobs", treatment=treatment, settings=settings, epochs=2)
    run(cell, tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr(f"{running.__name__}.{late}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(cell, tmp_path / "two")
    told: list[Any] = []
    part = tmp_path / "two" / cell.folder / "last.ckpt.part"
    part.write_text("half written")
    found = run(cell, tmp_path / "two", note=told.append)
    assert not told
    assert (found.folder / found.file).is_file()
    assert kept(tmp_path / "one", cell) == kept(tmp_path / "two", cell)


def test_a_finished_cell_is_read_and_not_run_again(tmp_path: Path) -> None:
    cell = Cell(task="blobs", epochs=1)
    first = run(cell, tmp_path)
    told: list[Any] = []
    again = run(cell, tmp_path, note=told.append)
    assert not told
    assert again.metric == first.metric
    assert again.cell == cell


def test_what_is_reported_is_the_network_that_was_left(tmp_path: Path) -> None:
    cell = Cell(
        task="blobs", treatment="learned", settings={"num_motifs": 8}, measure_every=1
    )
    found = run(cell, tmp_path, recipe={"name": "tried", "settings": {}})
    path = found.folder / found.file
    network = blobs().network(0)
    momos.load_(network, path)
    assert blobs().evaluate(network) == found.metric
    assert found.lengths["file"] == 8 * path.stat().st_size
    assert found.lengths["entropy"] < found.lengths["bound"] < found.lengths["dense"]
    assert found.factor == found.lengths["dense"] / found.lengths["file"]
    assert found.recipe["name"] == "tried"
    row = found.measure("signs")
    assert row is not None
    assert row["init_value"] > 0
    assert sum(found.history[-1]["usage"]) == momos.Mosaic.of(network).layout.num_blocks
    assert found.environment["versions"]["torch"]
    assert found.seconds > 0


def test_seeds_give_other_networks_and_the_same_seed_the_same(tmp_path: Path) -> None:
    one, two = (Cell(task="blobs", epochs=1, seed=seed) for seed in (0, 1))
    weights = [run(c, tmp_path).weights.read_bytes() for c in (one, two)]
    again = run(one, tmp_path / "again").weights.read_bytes()
    assert weights[0] == again != weights[1]


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4711)
        before = torch.random.get_rng_state()
        run(Cell(task="blobs", epochs=1), tmp_path)
        assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "nothing"}, "task must be among digits, .*, got 'nothing'"),
        ({"treatment": "magic"}, "treatment must be among dense, .*, got 'magic'"),
        ({"settings": {"bits": 3}}, "settings of 'dense' must be its own: .*bits"),
        (
            {"treatment": "quantize_aware", "settings": {"scale": "learnt"}},
            "scale must be one of max, learned, got 'learnt'",
        ),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run(replace(Cell(task="blobs"), **changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_metrics_are_logged_by_lightning_too(tmp_path: Path) -> None:
    found = run(Cell(task="blobs", epochs=2), tmp_path)
    (log,) = found.folder.glob("log/version_0/metrics.csv")
    head, *lines = log.read_text().splitlines()
    assert {"epoch", "metric", "train_loss"} <= set(head.split(","))
    assert len(lines) >= 2


@pytest.mark.parametrize(
    ("logger", "error", "message"),
    [
        ("paper", ValueError, "logger must be among csv, .*, got 'paper'"),
        ("wandb", ImportError, "logger wandb needs wandb: pip install wandb"),
    ],
)
def test_loggers_that_there_are_not_are_refused_before_a_run(
    logger: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("momos.study.training.surroundings.find_spec", lambda name: None)
    with pytest.raises(error, match=message):
        run(Cell(task="blobs", epochs=1), tmp_path, logger=logger)
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_says_why_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(task="blobs", epochs=1)

    def fail(*arguments: Any) -> None:
        raise ValueError("weights must be finite, got NaN")

    monkeypatch.setattr(running._Run, "_result", fail)
    with pytest.raises(ValueError, match="must be finite"):
        run(cell, tmp_path)
    with pytest.raises(ValueError, match="it failed: ValueError: weights must be finite"):
        read(tmp_path / cell.folder)
    monkeypatch.undo()
    monkeypatch.setitem(TASKS, "blobs", blobs)
    assert run(cell, tmp_path).metric > 0
    assert not (tmp_path / cell.folder / "failure.txt").exists()


def test_published_weights_are_measured_against_an_untrained_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = blobs()
    weights = {n: t + 1 for n, t in task.network(9).state_dict().items()}

    def theirs(seed: int) -> nn.Module:
        built = task.network(seed)
        built.load_state_dict(weights)
        return built

    given = replace(task, network=theirs, untrained=task.network)
    monkeypatch.setitem(TASKS, "given", lambda: given)
    found = run(Cell(task="given", treatment="published", seed=3), tmp_path)
    left = load_file(found.weights)
    assert all(torch.equal(left[name], weights[name]) for name in weights)
    assert found.metric == task.evaluate(theirs(0))
    assert found.history == ()
    ours = momos.measure(theirs(3), init=task.network(3)).to_dict()["rows"]
    for name in ("value", "init_value"):
        assert [row[name] for row in found.measures] == [row[name] for row in ours]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "a published network is not trained, so it must have no epochs"),
        ({"start": Cell(task="blobs")}, "so it must have no start"),
        ({"precision": "bfloat16"}, "so it must have no precision"),
        ({}, "network must be one with published weights .*, got that of the task 'blobs'"),
    ],
)
def test_what_is_not_published_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run(Cell(task="blobs", treatment="published", **changes), tmp_path)
    assert not list(tmp_path.iterdir())


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [torn, flipped])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_serves(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    cell = Cell(task="blobs", epochs=EPOCHS)
    run(cell, tmp_path / "one")
    for root in (tmp_path / "two", tmp_path / "three"):
        with pytest.raises(KeyboardInterrupt):
            run(cell, root, note=interrupted_at(3))
    told: list[int] = []
    damage(tmp_path / "two" / cell.folder / "last.ckpt")
    message = (
        "last.ckpt is damaged and is now last.ckpt.damaged: the run goes on from the one"
    )
    with pytest.warns(UserWarning, match=message):
        run(cell, tmp_path / "two", note=lambda line: told.append(line["epoch"]))
    assert told == [2, 3, 4]
    for name in ("last.ckpt", "before.ckpt"):
        damage(tmp_path / "three" / cell.folder / name)
    with pytest.warns(UserWarning, match="is damaged and is now") as warned:
        run(cell, tmp_path / "three")
    assert str(warned[-1].message).endswith("before.ckpt.damaged: the run begins anew")
    whole = kept(tmp_path / "one", cell)
    assert whole == kept(tmp_path / "two", cell) == kept(tmp_path / "three", cell)


def test_without_its_best_network_a_run_begins_anew(tmp_path: Path) -> None:
    names = ("last.ckpt", "before.ckpt", "best.ckpt")
    for name in names:
        torch.save({"a": torch.ones(100)}, tmp_path / name)
    assert last_whole(tmp_path) == tmp_path / "last.ckpt"
    torn(tmp_path / "best.ckpt")
    with pytest.warns(
        UserWarning, match="the run begins anew, as the best network is needed"
    ):
        assert last_whole(tmp_path) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{n}.damaged" for n in names
    )


class Executed:
    """What runs code when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_of_a_stranger_runs_no_code(tmp_path: Path) -> None:
    cell = Cell(task="blobs", epochs=1)
    (tmp_path / cell.folder).mkdir()
    torch.save(Executed(tmp_path / "executed"), tmp_path / cell.folder / "last.ckpt")
    with pytest.raises(UnpicklingError):
        run(cell, tmp_path)
    assert not (tmp_path / "executed").exists()
    assert "UnpicklingError" in (tmp_path / cell.folder / "failure.txt").read_text()


def test_what_killed_runs_left_half_written_is_cleared(tmp_path: Path) -> None:
    cell = Cell(task="blobs", epochs=1)
    folder = tmp_path / cell.folder
    (folder / "tmp1234.part").mkdir(parents=True)
    (folder / "tmp1234.part" / "network.zst").write_text("half")
    (folder / "result.json.0123.part").write_text("{")
    run(cell, tmp_path)
    assert not list(folder.glob("*.part"))
