"""The smallest file that keeps a metric: few evaluations, none of them below the limit."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import momos
from momos.checkpoints.search import COARSEST, EVALUATIONS, FINEST, Search, Trial, number_of
from momos.config import LatticeConfig


def weights(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    state = {"a.weight": weights(40, 30), "b.weight": weights(20, 40, seed=1)}
    save_file(state | {"a.bias": weights(40, seed=2)}, path)
    return path


def closeness(path: Path) -> Callable[[dict[str, Tensor]], float]:
    """A metric of 100 for the weights at `path`, less as others are further from them."""
    before = load_file(path)

    def metric(state: dict[str, Tensor]) -> float:
        errors = [
            (state[n] - t).square().mean() / t.square().mean() for n, t in before.items()
        ]
        return 100 * (1 - float(torch.stack(errors).mean()))

    return metric


@pytest.mark.parametrize("max_drop", [0.01, 20.0])
def test_the_file_keeps_the_metric_and_is_hardly_larger_than_it_must_be(
    source, tmp_path, max_drop
):
    metric = closeness(source)
    report = momos.compress(
        source, tmp_path / "x.momos", evaluate=metric, max_drop=max_drop
    )
    assert metric(momos.load(tmp_path / "x.momos").state_dict()) >= 100 - max_drop
    assert report.config is not None
    dense, *tried = report.trials
    assert (dense.step, dense.metric, dense.kept) == (None, 100, True)
    assert len(report.trials) <= EVALUATIONS
    (chosen,) = [trial for trial in tried if trial.step == report.config["step"]]
    assert chosen.kept
    assert chosen.num_bytes == report.num_bytes == (tmp_path / "x.momos").stat().st_size
    failed = [trial.num_bytes for trial in tried if not trial.kept]
    assert max(failed) >= 0.98 * chosen.num_bytes


def test_the_metric_of_a_trial_is_that_of_its_file(source, tmp_path):
    given: list[dict[str, Tensor]] = []

    def evaluate(state: dict[str, Tensor]) -> float:
        given.append({name: tensor.clone() for name, tensor in state.items()})
        for tensor in state.values():
            tensor.fill_(7)  # what is done to it afterwards matters to nobody
        return -float(len(given) > 4)

    path = tmp_path / "x.momos"
    report = momos.compress(source, path, evaluate=evaluate, max_drop=0)
    assert report.config is not None
    steps = [trial.step for trial in report.trials]
    chosen = given[steps.index(report.config["step"])]
    found = momos.load(path).state_dict()
    assert chosen.keys() == found.keys()
    assert all(torch.equal(chosen[name], tensor) for name, tensor in found.items())
    before = load_file(source)
    assert all(torch.equal(given[0][name], tensor) for name, tensor in before.items())


def search(
    metric: Callable[[float], float],
    max_drop: float,
    **more,
) -> tuple[Trial, ...]:
    """The trials where a step alone decides about the metric (0 of dense weights) and bytes."""
    found: list[Trial] = []
    best, all_trials = Search(
        config=LatticeConfig(**more),
        max_drop=max_drop,
        dense_bytes=10**6,
        contents=lambda config: config.step,  # pyright: ignore
        size=lambda step: 1000 + int(10**4 * (6 - math.log2(step))),  # pyright: ignore
        measure=lambda step: 0.0 if step is None else metric(step),  # pyright: ignore[reportArgumentType]
        on_trial=found.append,
        progress=lambda doing, done, total: None,
    ).run()
    assert tuple(found) == all_trials
    assert len(all_trials) <= EVALUATIONS
    kept = [trial for trial in all_trials[1:] if trial.kept]
    assert best == min(kept, key=lambda trial: trial.num_bytes).step
    return all_trials


@pytest.mark.parametrize("limit", [0.0004, 0.003, 0.09, 0.11, 0.39, 0.41, 3.0, 15.0])
def test_few_trials_come_near_the_coarsest_step_that_keeps_the_metric(limit):
    found = search(lambda step: -step, limit)
    best = max(trial.step or 0 for trial in found[1:] if trial.kept)
    assert 0.9 * limit <= best <= limit


def test_a_metric_that_never_falls_takes_the_coarsest_step():
    found = search(lambda step: 0.0, 0)
    assert [trial.step for trial in found[1:]] == pytest.approx(
        [0.07, 0.28, 1.12, 4.48, COARSEST]
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_noisy_metric_never_chooses_a_step_that_was_below_the_limit(seed):
    generator = np.random.default_rng(seed)
    search(lambda step: generator.normal(0.5 - step, 0.5), 0.2, step=0.01)


@pytest.mark.parametrize("start", [FINEST / 2, FINEST, 0.1, COARSEST])
def test_any_step_may_be_the_first(start):
    found = search(lambda step: -step, 0.3, step=start)
    assert found[1].step == start
    assert max(trial.step or 0 for trial in found if trial.kept) >= 0.2


def test_if_no_step_keeps_the_metric_it_says_what_each_gave(source, tmp_path):
    path = tmp_path / "x.momos"
    path.write_bytes(b"the old file")
    before = load_file(source)["a.weight"]

    def exact(state: dict[str, Tensor]) -> float:
        return float(torch.equal(state["a.weight"], before))

    with pytest.raises(ValueError, match="the metric must stay") as caught:
        momos.compress(source, path, evaluate=exact, max_drop=0.5)
    message = str(caught.value)
    assert "stay at 0.5 or above (the dense weights give 1, max_drop is 0.5)" in message
    assert "got 0 with step 0.07, 0 with step 0.0175, " in message
    assert (
        "; exclude the tensors that it depends on, keep dense ones as they are" in message
    )
    assert "(dense_dtype float32), or allow a larger max_drop (largest relative" in message
    assert "largest relative errors at the finest step: " in message
    assert "a.weight (" in message
    assert path.read_bytes() == b"the old file"
    assert {file.name for file in tmp_path.iterdir()} == {"x.momos", "x.safetensors"}


@pytest.mark.parametrize(
    "value",
    [1, 1.5, torch.tensor(2.0), torch.tensor([[3]]), np.float32(4), np.array([5.0])],
)
def test_one_number_may_be_of_any_kind(value):
    found = number_of(value, "step 1")
    assert type(found) is float
    assert found == float(np.asarray(value).item())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (True, "True"),
        ("91", "'91'"),
        (torch.tensor(True), "a tensor of shape () and dtype torch.bool"),
        (torch.zeros(2), "a tensor of shape (2,) and dtype torch.float32"),
        (np.bool_(True), "np.True_"),
        (1j, "1j"),
        ({"accuracy": list(range(99))}, "a dict"),
    ],
)
def test_what_is_no_number_is_refused(source, tmp_path, value, shown):
    message = re.escape(f"evaluate must return a number, got {shown} for the dense weights")
    with pytest.raises(TypeError, match=message):
        momos.compress(source, tmp_path / "x", evaluate=lambda state: value, max_drop=1)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_a_metric_that_is_not_finite_is_refused(source, tmp_path, value):
    values = iter([1.0, value])
    message = f"must return a finite number, got {float(value)} for step 0.07"
    with pytest.raises(ValueError, match=message):
        momos.compress(source, tmp_path / "x", evaluate=lambda _: next(values), max_drop=1)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("error", [KeyError("fc"), KeyboardInterrupt()])
def test_what_the_evaluation_raises_is_raised_and_an_old_file_stays(
    source, tmp_path, error
):
    path = tmp_path / "x.momos"
    path.write_bytes(b"the old file")
    calls = iter([1.0, 1.0])

    def evaluate(state: dict[str, Tensor]) -> float:
        if (value := next(calls, None)) is None:
            raise error
        return value

    with pytest.raises(type(error)):
        momos.compress(source, path, evaluate=evaluate, max_drop=1)
    assert path.read_bytes() == b"the old file"
    assert {file.name for file in tmp_path.iterdir()} == {"x.momos", "x.safetensors"}


BANK = momos.MosaicConfig(num_motifs=4)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"evaluate": len}, ValueError, "max_drop must be given with evaluate: how much"),
        (
            {"max_drop": 0.5},
            ValueError,
            "max_drop must be given with evaluate, got 0.5 alone",
        ),
        (
            {"evaluate": "f", "max_drop": 1},
            TypeError,
            "evaluate must be a function, got 'f'",
        ),
        ({"evaluate": len, "max_drop": -1}, ValueError, "at least 0 and finite, got -1"),
        (
            {"evaluate": len, "max_drop": math.nan},
            ValueError,
            "at least 0 and finite, got nan",
        ),
        (
            {"evaluate": len, "max_drop": math.inf},
            ValueError,
            "at least 0 and finite, got inf",
        ),
        (
            {"evaluate": len, "max_drop": "1"},
            TypeError,
            "max_drop must be a number, got '1'",
        ),
        (
            {"evaluate": len, "max_drop": True},
            TypeError,
            "max_drop must be a number, got True",
        ),
        (
            {"evaluate": len, "max_drop": 1, "target_bytes": 9},
            ValueError,
            "one of evaluate and a target size or factor must be given, got both",
        ),
        (
            {"evaluate": len, "max_drop": 1, "target_factor": 9.0},
            ValueError,
            "one of evaluate and a target size or factor must be given, got both",
        ),
        (
            {"evaluate": len, "max_drop": 1, "config": BANK},
            ValueError,
            "evaluate must be given with a LatticeConfig, got a MosaicConfig",
        ),
    ],
)
def test_arguments_without_sense_are_refused(source, tmp_path, options, kind, message):
    with pytest.raises(kind, match=message):
        momos.compress(source, tmp_path / "x.momos", **options)
    assert not (tmp_path / "x.momos").exists()


def test_without_floating_weights_nothing_is_evaluated(tmp_path):
    save_file({"a": torch.ones(3, 3, dtype=torch.int64)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="at least one floating tensor must be chosen"):
        momos.compress(
            tmp_path / "x.safetensors", tmp_path / "x", evaluate=pytest.fail, max_drop=1
        )


def test_where_nothing_can_be_written_nothing_is_evaluated(source, tmp_path):
    for path in (tmp_path / "absent" / "x.momos", tmp_path):
        with pytest.raises(OSError, match=r"absent|must be written to a file name"):
            momos.compress(source, path, evaluate=pytest.fail, max_drop=1)
    with pytest.raises(ValueError, match="must be written beside the files that are read"):
        momos.compress(source, source, evaluate=pytest.fail, max_drop=1)
    assert list(tmp_path.iterdir()) == [source]


def test_trials_are_in_the_report_as_json_and_as_words(source, tmp_path):
    told: list[tuple[str, int, int]] = []
    seen: list[momos.Trial] = []
    report = momos.compress(
        source,
        tmp_path / "x.momos",
        evaluate=closeness(source),
        max_drop=0.5,
        on_trial=seen.append,
        progress=lambda *what: told.append(what),
    )
    assert tuple(seen) == report.trials
    found = report.to_dict()["trials"]
    assert found[0] == {"step": None, "num_bytes": 8160, "metric": 100, "kept": True}
    assert found[1]["step"] == 0.07
    assert str(seen[0]) == "dense: 8,160 bytes, metric 100, kept"
    assert any(str(trial).endswith(", too low") for trial in seen)
    assert ("evaluating", 1, EVALUATIONS) in told
    assert told.index(("evaluating", EVALUATIONS, EVALUATIONS)) > told.index(
        ("evaluating", len(seen), EVALUATIONS)
    )


def test_without_an_evaluation_there_are_no_trials(source, tmp_path):
    assert momos.compress(source, tmp_path / "x.momos").trials == ()
