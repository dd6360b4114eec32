"""Runs on another device: what they are called, what they record, and where their data are.

The CPU stands for the GPU (`Here`), or a pretended device does (`elsewhere`).
"""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import invoke
from torch import nn

from elsewhere import pretended
from momos.cli.study import device_options
from momos.study.cell import Cell, ordered
from momos.study.recipes import RECIPES
from momos.study.store import read
from momos.study.sweep import Sweep
from momos.study.tasks import TASKS
from momos.study.tasks.archives import Images
from momos.study.tasks.task import CONTEXT, Optimization, Task, image_task, text_task
from momos.study.training import devices
from momos.study.training.devices import (
    FAST,
    Compute,
    compute_for,
    compute_of,
    fits,
    options_for,
)
from momos.study.training.estimate import estimate
from momos.study.training.preparation import prepared
from momos.study.training.run import run
from momos.study.training.surroundings import environment

DENSE = Cell(task="digits", network="mlp:16", epochs=2, controls=0)
PLAIN = {"device": "cuda"}  # in the CPU's own arithmetic


class Here(Compute):
    """The CPU, under the name of a GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def lightning(self) -> dict[str, Any]:
        return {"accelerator": "cpu", "devices": 1}

    @property
    def seeded(self) -> list[int]:
        return []

    def free_memory(self) -> int:
        return 2**30


@pytest.fixture
def cuda(monkeypatch) -> list[torch.device]:
    """A machine with a GPU; where the data of its tasks were put."""
    placed: list[torch.device] = []
    put = Images.to

    def to(images: Images, device: torch.device) -> Images:
        placed.append(device)
        return put(images, device)

    def named(name: str, *, here: bool = True) -> Compute:
        return Compute("cpu") if name == "cpu" else Here(name.replace("auto", "cuda"))

    monkeypatch.setattr(devices, "compute_of", named)
    monkeypatch.setattr(devices, "device_count", lambda: 1)
    monkeypatch.setattr(Images, "to", to)
    return placed


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ("cpu:0", "device must be auto, cpu, cuda or cuda:N, got 'cpu:0'"),
        ("cuda:", "device must be auto, cpu, cuda or cuda:N, got 'cuda:'"),
        ("cuda:x", "device must be auto, cpu, cuda or cuda:N, got 'cuda:x'"),
        ("cuda", "device must be available, got 'cuda': torch sees no CUDA device"),
    ],
)
def test_names_of_devices_that_are_none_are_refused(name, message, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        compute_of(name)
    assert str(error.value) == message


def test_a_number_that_no_device_has_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for count, word in ((1, "device"), (2, "devices")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        message = f"device must be available, got 'cuda:7': torch sees {count} CUDA {word}"
        with pytest.raises(ValueError, match=message):
            compute_of("cuda:7")
    assert compute_of("cuda:1").lightning == {"accelerator": "gpu", "devices": [1]}
    assert compute_of("auto").name == "cuda"


def test_devices_of_other_machines_need_not_be_here(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert compute_of("cuda", here=False).name == "cuda"
    assert compute_of("auto").name == "cpu"


def test_a_cell_is_not_run_on_a_device_of_another_kind(tmp_path) -> None:
    message = "device must be of the cell's kind, cuda, got 'cpu'"
    with pytest.raises(ValueError, match=message):
        run(replace(DENSE, device="cuda"), tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


# Several devices for one cell


def test_several_devices_are_the_first_of_their_kind(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    compute = compute_for(replace(DENSE, device="cuda", devices=4), "")
    assert compute == Compute("cuda", devices=4)
    assert [compute.of_rank(rank).name for rank in (0, 3)] == ["cuda:0", "cuda:3"]
    assert compute.lightning["devices"] == 4
    host = compute_for(replace(DENSE, devices=2), "cpu")
    assert host.of_rank(1).name == "cpu"
    message = "device must be available, got 'cuda:4': torch sees 4 CUDA devices"
    with pytest.raises(ValueError, match=message):
        compute_for(replace(DENSE, device="cuda", devices=5), "")
    message = "device must be cuda for 2 devices, got 'cuda:1'"
    with pytest.raises(ValueError, match=message):
        compute_for(replace(DENSE, device="cuda", devices=2), "cuda:1")


def test_the_command_gives_cells_their_devices() -> None:
    assert device_options("cpu") == ("cpu", {})
    assert device_options("cpu", None, 2) == ("cpu", {"devices": 2})
    name, options = device_options("cuda", "10.0.0.1:6379", 4)
    assert (name, options) == ("cuda", {"device": "cuda", "devices": 4} | FAST)
    cells = ordered(RECIPES["compressors"](devices=2).runs())
    assert {cell.devices for cell in cells} == {2}


# Cells


def test_the_cpu_leaves_keys_as_they_were() -> None:
    assert Cell(task="digits", device="cpu", compiled="no").key == "23b0ac08c16e"
    assert Cell(task="digits", device="cuda").key != "23b0ac08c16e"


def test_all_that_is_trained_for_a_recipe_is_on_its_device() -> None:
    options = options_for("cuda")
    assert options == {"device": "cuda"} | FAST
    for name in ("capacity", "compressors"):
        cells = ordered(RECIPES[name](**options).runs())
        assert {cell.device for cell in cells} == {"cuda"}
        assert {cell.precision for cell in cells} == {"bfloat16"}


def test_a_sweep_is_on_the_device_unless_its_cells_say_otherwise(tmp_path) -> None:
    path = tmp_path / "own.toml"
    text = '[cell]\ntask = "digits"\nprecision = "float32"\n[grid]\nseed = [0, 1]\n'
    path.write_text(text, "utf-8")
    cells = Sweep.read(path, options=options_for("cuda")).cells
    assert [cell.device for cell in cells] == ["cuda", "cuda"]
    assert [cell.precision for cell in cells] == ["float32", "float32"]
    assert [cell.key for cell in Sweep.read(path).cells] == [
        Cell(task="digits", seed=seed).key for seed in (0, 1)
    ]


# Runs


@pytest.mark.parametrize(
    "options",
    [
        {"treatment": "dense"},
        {"treatment": "sampled", "settings": {"num_motifs": 20}, "validation": 0.2},
        {
            "treatment": "learned",
            "settings": {"num_motifs": 12, "sensitive": True, "rate_weight": 0.3},
        },
    ],
)
def test_a_run_on_a_device_is_that_on_the_cpu_where_both_are_one(
    cuda, tmp_path, options
) -> None:
    cell = replace(DENSE, epochs=1, **options)
    there = run(replace(cell, **PLAIN), tmp_path)
    assert cuda
    here = run(cell, tmp_path)
    assert there.folder != here.folder
    assert [line["metric"] for line in there.history] == [
        line["metric"] for line in here.history
    ]
    assert (there.metric, there.lengths) == (here.metric, here.lengths)
    assert there.network.read_bytes() == here.network.read_bytes()
    assert there.environment["machine"]["device"] == "cuda"
    assert environment()["machine"]["device"] == "cpu"


def test_a_run_with_the_options_of_a_device_goes_on_after_a_kill(cuda, tmp_path) -> None:
    cell = replace(DENSE, **options_for("cuda"))
    whole = run(cell, tmp_path / "whole")

    def stop(line: dict) -> None:
        if line["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cell, tmp_path / "killed", note=stop)
    again = run(cell, tmp_path / "killed", device="cuda:0")
    assert again.network.read_bytes() == whole.network.read_bytes()
    assert again.cell.options == options_for("cuda")


def test_an_estimate_is_of_the_device(cuda, monkeypatch) -> None:
    tried = []
    inner = Compute.device.fget
    monkeypatch.setattr(
        Here,
        "device",
        property(lambda self: tried.append(self.name) or torch.device("cpu")),
    )
    assert inner is not None
    four = [replace(DENSE, seed=seed, **PLAIN) for seed in range(4)]
    shared = estimate(four, processes=4, device="cuda:0")
    assert set(tried) == {"cuda:0"}
    assert shared.seconds > 0


def test_the_command_names_a_device_that_is_not_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    place = ["--runs", str(tmp_path), "--device", "cuda"]
    result = invoke("study", "run", "capacity", "--task", "digits", *place)
    assert result.exit_code != 0
    assert (
        "device must be available, got 'cuda': torch sees no CUDA device" in result.output
    )
    result = invoke("demo", "--output", str(tmp_path), "--device", "cuda:2")
    assert "got 'cuda:2'" in result.output


def test_the_command_runs_a_recipe_on_a_device(cuda, tmp_path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(
        '[cell]\ntask = "digits"\nnetwork = "mlp:8"\nepochs = 1\n[grid]\nseed=[0]\n'
    )
    runs = tmp_path / "runs"
    result = invoke(
        *("study", "sweep", str(path), "--runs", str(runs)),
        *("--device", "auto", "--per-device", "2"),
    )
    assert result.exit_code == 0, result.output
    assert "in 2 processes" in result.output
    (folder,) = (
        each for each in runs.iterdir() if each.is_dir() and (each / "cell.json").exists()
    )
    assert read(folder).cell.options == options_for("cuda")


def test_ray_chooses_the_gpu(cuda, tmp_path) -> None:
    place = ["--runs", str(tmp_path), "--ray", "local", "--device", "cuda:1"]
    result = invoke("study", "run", "capacity", "--task", "digits", *place)
    message = "device must be cuda with --ray, which chooses the GPU, got 'cuda:1'"
    assert message in " ".join(result.output.split())


# Data


def pictures() -> Task:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(40) % 4)
    plan = Optimization(learning_rate=0.1, batch_size=16, epochs=1)
    return image_task(
        *("pictures", images, images, lambda seed: nn.Flatten(), plan),
        prepared=lambda pixels: pixels.float() / 255,
        augmented=True,
    )


def text() -> Task:
    words = "".join(chr(97 + i * i % 7) for i in range(9 * CONTEXT))
    plan = Optimization(learning_rate=0.1, batch_size=2, epochs=1)
    return text_task("text", words, lambda seed: nn.Flatten(), plan)


@pytest.mark.parametrize("make", [pictures, text])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_batches_are_made_on_the_device_where_the_data_fit(make, share) -> None:
    task = make().held_out(share)
    generator = torch.Generator().manual_seed(1)
    here = list(islice(task.batches(generator), 3))
    with pretended() as where:
        placed = task.on(where.device, lambda data: True)
        where.waits.clear()
        found = list(islice(placed.batches(torch.Generator().manual_seed(1)), 3))
        assert all(part.device == where.device for batch in found for part in batch)
        assert not where.waits  # nothing comes back to the host
        there = [[part.cpu() for part in batch] for batch in found]
        assert task.on(where.device, lambda data: False) is task
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_network_is_evaluated_where_it_is(monkeypatch) -> None:
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # not for such tensors
    torch.manual_seed(0)
    task = TASKS["digits"]().held_out(0.1)
    network = nn.Linear(64, 10)
    assert task.validate is not None
    expected = task.evaluate(network), task.validate(network)
    with pretended() as where:
        network.to(where.device)
        for placed in (task, task.on(where.device, lambda data: True)):
            assert placed.validate is not None
            assert (placed.evaluate(network), placed.validate(network)) == expected


def test_data_that_would_fill_a_device_stay_on_the_host() -> None:
    data = list(prepared(DENSE).task.data)
    size = sum(tensor.nbytes for tensor in data)

    class Small(Here):
        def free_memory(self) -> int:
            return 4 * size - 1

    assert not fits(data, Small("cuda"))
    assert fits(data, Here("cuda"))


def test_environment_is_that_of_the_folder(cuda, tmp_path: Path) -> None:
    found = run(replace(DENSE, epochs=1, **PLAIN), tmp_path, device="cuda:0")
    assert found.environment["machine"]["device"] == "cuda:0"
