"""Rounding by what the loss is sensitive to: sensitive weights stay nearer."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import momos
from momos.checkpoints.source import module_source
from momos.checkpoints.weights import LEAST, Weights, importance_of
from momos.config import LatticeConfig
from networks import bits


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 20))
    nn.init.normal_(model[0].weight, std=0.1)
    nn.init.normal_(model[2].weight, std=0.1)
    return model


def batches(count: int = 8) -> list[Tensor]:
    inputs = torch.randn(count, 2, 40, generator=torch.Generator().manual_seed(1))
    inputs[..., :20] *= 10  # half of the inputs matter much more
    return list(inputs)


def compressed(model: nn.Module, path: Path, **more) -> tuple[dict[str, Tensor], int]:
    report = momos.compress(model, path, **more)
    return momos.load(path).state_dict(), report.num_bytes


def test_sensitive_weights_are_rounded_more_exactly(tmp_path):
    model = network()
    config = LatticeConfig(step=1.0, rate_weight=0.2, exclude=("2.*",))
    plain, _ = compressed(model, tmp_path / "a", config=config)
    found, _ = compressed(
        model,
        tmp_path / "b",
        config=config,
        calibration=iter(batches()),
        loss=lambda batch: model(batch).square().sum(),
    )
    weight = model[0].weight.detach()

    def error_ratio(state: dict[str, Tensor]) -> float:
        errors = (state["0.weight"] - weight).square().mean(0)
        return float(errors[20:].mean() / errors[:20].mean())

    assert 0.8 < error_ratio(plain) < 1.25
    assert error_ratio(found) > 2


def test_the_model_is_left_as_it_was(tmp_path):
    model = network()
    model(batches()[0]).sum().backward()
    held = [
        (id(p), bits(p), bits(p.grad)) for p in model.parameters() if p.grad is not None
    ]
    momos.compress(
        model,
        tmp_path / "x",
        calibration=batches(),
        loss=lambda batch: model(batch).square().mean(),
    )
    assert held == [(id(p), bits(p), bits(p.grad)) for p in model.parameters()]
    assert all(module.training for module in model.modules())


def test_nothing_is_calibrated_for_a_file_that_cannot_be_made(tmp_path):
    model, seen = network(), []

    def loss(batch: Tensor) -> Tensor:
        seen.append(batch)
        return model(batch).square().mean()

    about = {"calibration": batches(), "loss": loss}
    with pytest.raises(FileNotFoundError):
        momos.compress(model, tmp_path / "none" / "x", **about)
    with torch.no_grad():
        model[2].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"weights must be finite.* tensor '2\.weight'"):
        momos.compress(model, tmp_path / "x", **about)
    assert seen == []


def test_it_goes_with_an_evaluation_and_with_a_target(tmp_path):
    model, reference = network(), network()
    inputs = torch.cat(batches())
    sensitive = {
        "calibration": batches(),
        "loss": lambda batch: mse_loss(model(batch), torch.zeros(2, 20)),
    }

    @torch.no_grad()
    def evaluate(trial: nn.Module) -> Tensor:
        return -mse_loss(trial(inputs), reference(inputs))

    config, path = LatticeConfig(step=4), tmp_path / "a"
    report = momos.compress(model, path, config, evaluate=evaluate, max_drop=9, **sensitive)
    assert any(trial.kept for trial in report.trials[1:])
    assert momos.compress(model, tmp_path / "b", target_factor=3, **sensitive).factor >= 3


def weights_of(model: nn.Module, **scales) -> Weights:
    tensors = module_source(model).tensors
    layout = momos.Layout.cut(1, ((t.name, t.shape, t.dtype) for t in tensors.values()))
    return Weights(tensors, layout, torch.float32, **scales)


def test_importance_has_the_mean_1_and_never_vanishes():
    model = network()
    given = {n: torch.rand(p.shape) ** 4 for n, p in model.named_parameters()}
    given["0.weight"][3] = 0
    found = importance_of(weights_of(model), given)
    flat = torch.cat(list(found.values()))
    assert float(flat.mean()) == pytest.approx(1, abs=LEAST)
    assert float(flat.min()) == pytest.approx(LEAST)
    order = given["2.weight"].view(-1).argsort()
    assert (found["2.weight"][order].diff() >= 0).all()


def test_importance_counts_errors_in_steps():
    model = nn.Linear(2, 3, bias=False)
    scales = (torch.tensor([1.0, 2.0, 4.0]),)
    given = {"weight": torch.ones(3, 2)}
    found = importance_of(weights_of(model, scales=scales), given)["weight"].view(3, 2)
    assert (found / found[0]).tolist() == [[1, 1], [2, 2], [4, 4]]


def test_tensors_without_sensitivities_are_as_before(tmp_path):
    model = network()
    model[2].weight.requires_grad_(False)
    found, _ = compressed(
        model,
        tmp_path / "a",
        config=LatticeConfig(step=0.5),
        calibration=batches(),
        loss=lambda batch: model(batch).square().sum(),
    )
    plain, _ = compressed(model, tmp_path / "b", config=LatticeConfig(step=0.5))
    assert torch.equal(found["2.weight"], plain["2.weight"])
    assert not torch.equal(found["0.weight"], plain["0.weight"])


def loss(batch: Tensor) -> Tensor:
    return batch.sum()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"loss": loss}, ValueError, "loss must be given with calibration, got it alone"),
        ({"calibration": []}, ValueError, r"loss\(batch\) runs the Module, got none"),
        ({"calibration": [], "loss": 3}, TypeError, "loss must be a function, got 3"),
        ({"calibration": [], "loss": loss}, ValueError, "at least one batch, got none"),
        (
            {"config": momos.MosaicConfig(num_motifs=3), "calibration": [1], "loss": loss},
            ValueError,
            "calibration must be given with a LatticeConfig, got a MosaicConfig",
        ),
        (
            {"config": LatticeConfig(block_size=2), "calibration": [1], "loss": loss},
            ValueError,
            "a block_size of 1 and a rate_weight above 0, got 2 and 0.1",
        ),
        (
            {"config": LatticeConfig(rate_weight=0), "calibration": [1], "loss": loss},
            ValueError,
            "a block_size of 1 and a rate_weight above 0, got 1 and 0",
        ),
        (
            {"source": "x.pt", "calibration": [1], "loss": loss},
            ValueError,
            "calibration must be given with a Module as the source, got a path",
        ),
    ],
)
def test_arguments_without_sense_are_refused(tmp_path, options, kind, message):
    options = {"source": network()} | options
    with pytest.raises(kind, match=message):
        momos.compress(path=tmp_path / "x.momos", **options)
    assert not (tmp_path / "x.momos").exists()


def test_a_loss_that_no_weight_changes_is_refused(tmp_path):
    model = network()
    with pytest.raises(ValueError, match="must depend on the weights to be rounded, got"):
        momos.compress(
            model,
            tmp_path / "x",
            calibration=batches(),
            loss=lambda batch: (model(batch) * 0).sum(),
        )


def test_gradients_that_are_not_finite_are_refused(tmp_path):
    model = network()
    with pytest.raises(ValueError, match="must be finite, got others for tensor '0"):
        momos.compress(
            model,
            tmp_path / "x",
            calibration=batches(),
            loss=lambda batch: (model(batch) * 0).sum().sqrt(),
        )
