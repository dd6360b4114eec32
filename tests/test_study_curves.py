import json
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
import torch
from torch import nn

from momos.study import curves
from momos.study.archives import Images
from momos.study.curves import main, parsed
from momos.study.optimization import Optimization
from momos.study.tasks import Task, image_task, seeded
from momos.study.training import TEMPERATURE, loss_of


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results go; the task `points` is there to be learned."""
    pixels = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    data = Images(pixels, pixels[:, :4].argmax(1))

    def points() -> Task:
        plan = Optimization(learning_rate=1e-2, batch_size=10, epochs=2)
        build = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)))
        return image_task("points", data, data, build, plan, prepared=lambda pixels: pixels)

    monkeypatch.setitem(curves.TASKS, "points", points)
    return tmp_path / "runs/points.jsonl"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_result_is_one_complete_line(output: Path) -> None:
    main(["points", "--treatment", "prune", "--setting", "sparsity=0.5", "-o", str(output)])
    (line,) = lines(output)
    assert (line["task"], line["treatment"], line["settings"]) == (
        "points",
        "prune",
        {"sparsity": 0.5},
    )
    assert (line["seed"], line["epochs"], line["learning_rate"]) == (0, 2, 1e-2)
    assert line["dense_bytes"] == 4 * (7 * 8 + 9 * 4)
    assert line["factor"] == line["dense_bytes"] / line["file_bytes"]
    assert line["metric_name"] == "accuracy"
    assert line["versions"]["torch"] == torch.__version__


def test_cells_that_are_there_are_skipped(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["points", "--treatment", "quantize_aware", "-o", str(output), "--epochs", "1"]
    main([*base, "--seeds", "0", "1", "--setting", "bits=2", "scale=max"])
    main([*base, "--seeds", "1", "2", "--setting", "scale=max", "bits=2"])
    assert [line["seed"] for line in lines(output)] == [0, 1, 2]
    main([*base, "--seeds", "1", "--setting", "bits=3", "scale=max"])
    assert len(lines(output)) == 4
    assert capsys.readouterr().out.count("points quantize_aware") == 4


def test_a_run_is_repeated_exactly(output: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        torch.rand(3)
        keep = str(tmp_path / f"{name}-{{seed}}.pt")
        main(["points", "--treatment", "dense", "-o", f"{output}.{name}", "--keep", keep])
    one, two = (torch.load(tmp_path / f"{name}-0.pt") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_networks_are_started_from_and_taught_by_kept_ones(
    output: Path, tmp_path: Path
) -> None:
    kept = str(tmp_path / "dense-{seed}.pt")
    main(["points", "--treatment", "dense", "-o", str(output), "--keep", kept])
    again = ["points", "--treatment", "dense", "-o", str(output), "--start", kept]
    main(again)
    main([*again, "--teacher", kept])
    main([*again, "--teacher", kept])
    assert [(line["start"], line["teacher"]) for line in lines(output)] == [
        ("", ""),
        (kept, ""),
        (kept, kept),
    ]


def test_a_network_that_equals_its_teacher_learns_from_the_targets_alone() -> None:
    network, inputs = nn.Linear(5, 3), torch.randn(7, 5)
    targets = torch.randint(3, (7,))
    alone = loss_of(network, inputs, targets)
    assert torch.allclose(loss_of(network, inputs, targets, network), alone / 2, atol=1e-6)


def test_what_is_lost_against_the_teacher_is_at_its_temperature() -> None:
    network, teacher, inputs = nn.Linear(5, 3), nn.Linear(5, 3), torch.randn(7, 5)
    targets = torch.randint(3, (7,))
    own, wanted = ((f(inputs) / TEMPERATURE).softmax(1) for f in (network, teacher))
    lost = (wanted * (wanted.log() - own.log())).sum(1).mean()
    expected = (loss_of(network, inputs, targets) + TEMPERATURE**2 * lost) / 2
    assert torch.allclose(loss_of(network, inputs, targets, teacher), expected, atol=1e-6)


def test_settings_are_numbers_or_words() -> None:
    assert [parsed(pair) for pair in ("bits=2", "sparsity=.5", "scale=max", "x=null")] == [
        ("bits", 2),
        ("sparsity", ".5"),
        ("scale", "max"),
        ("x", None),
    ]
    with pytest.raises(ArgumentTypeError, match="a setting must be key=value, got 'bits'"):
        parsed("bits")
