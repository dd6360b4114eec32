"""Importance by tensor and by weight are one thing, in one unit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from elsewhere import pretended
from momos import Layout, MosaicConfig
from momos.learning import Bank
from momos.learning.fitting import LEAST, Fitting, Importance, scaled_blocks, scales_of
from momos.mosaic import usage_of

SCALES = ["none", "tensor", "channel"]
SEEDS = st.integers(0, 2**32)


def network(seed: int = 0) -> nn.Sequential:
    """Two matrices, whose blocks of 3 need padding, one ten times the other."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(7, 5, bias=False), nn.Linear(5, 4, bias=False))
    with torch.no_grad():
        model[1].weight.mul_(10)
    return model


def parts(model: nn.Module, scales="none") -> tuple[Layout, list[Tensor], tuple | None]:
    layout = Layout.of(model, block_size=3)
    weights = [weight for _, weight in layout.tensors(model)]
    return layout, weights, scales_of(weights, scales)


def fitted(
    model: nn.Module, importance: dict | None, *, rate_weight: float = 0.0, scales="none"
) -> tuple[Tensor, Tensor]:
    """Indices and motifs after three rounds of assigning and moving."""
    layout, weights, found = parts(model, scales)
    weighed = None if importance is None else Importance.of(layout, importance, found)
    config = MosaicConfig(block_size=3, num_motifs=5, scales=scales)
    fitting = Fitting(layout, config, weighed)
    blocks = scaled_blocks(layout, weights, found, torch.float32)
    generator = torch.Generator().manual_seed(0)
    motifs, indices = fitting.start(blocks, generator=generator)
    for _ in range(3):
        indices = fitting.assign(
            blocks, motifs, usage=usage_of(indices, len(motifs)), rate_weight=rate_weight
        )
        motifs = fitting.move(blocks, indices, motifs, revive=False)
    return indices, motifs


@given(seed=SEEDS)
@pytest.mark.parametrize("scales", SCALES)
def test_the_geometric_mean_over_the_weights_is_one(scales, seed) -> None:
    model = network(seed % 100)
    layout, _, found = parts(model, scales)
    one, two = torch.rand(2, generator=torch.Generator().manual_seed(seed)).tolist()
    numbers = {"0.weight": 0.1 + one, "1.weight": 100 * (0.1 + two)}
    importance = Importance.of(layout, numbers, found)
    logarithms = torch.tensor(
        [importance.by_tensor[p.name] for p in layout.placements], dtype=torch.float64
    ).log()
    counts = torch.tensor([p.num_weights for p in layout.placements])
    assert float((logarithms * counts).sum()) == pytest.approx(0, abs=1e-9)


@given(seed=SEEDS, rate_weight=st.sampled_from([0.0, 0.1]))
@pytest.mark.parametrize("scales", ["none", "tensor"])
def test_by_weight_and_constant_in_each_tensor_is_by_tensor(scales, seed, rate_weight):
    model = network(seed % 100)
    layout, _, found = parts(model, scales)
    one, two = torch.rand(2, generator=torch.Generator().manual_seed(seed)).tolist()
    numbers = {"0.weight": 0.1 + one, "1.weight": 0.1 + two}
    spread = {name: torch.full(w.shape, numbers[name]) for name, w in tensors(model)}
    by_tensor = Importance.of(layout, numbers, found)
    by_weight = Importance.of(layout, spread, found)
    assert by_tensor.by_weight is None
    assert by_weight.by_weight is not None
    assert by_weight.by_tensor == pytest.approx(by_tensor.by_tensor)
    for place in layout.placements:
        rows = by_weight.by_weight[place.start : place.stop].flatten()
        held, padding = rows[: place.num_weights], rows[place.num_weights :]
        assert held.tolist() == pytest.approx(
            [by_tensor.by_tensor[place.name]] * place.num_weights, rel=1e-5
        )
        assert not padding.any()


def tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, weight.detach()) for name, weight in model.named_parameters()]


def test_by_tensor_chooses_as_by_weight_does_where_nothing_is_padded() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    numbers = {"0.weight": 4.0, "1.weight": 0.5}
    spread = {name: torch.full(w.shape, numbers[name]) for name, w in tensors(model)}
    one = fitted(model, numbers, rate_weight=0.02)
    two = fitted(model, spread, rate_weight=0.02)
    assert torch.equal(one[0], two[0])
    torch.testing.assert_close(one[1], two[1])


@given(constant=st.sampled_from([1e-6, 0.3, 1.0, 7e5]), seed=st.integers(0, 50))
def test_a_rate_weight_means_the_same_with_constant_importance_as_with_none(constant, seed):
    """Whatever the constant is: only differences in importance count."""
    model = network(seed)
    numbers = dict.fromkeys(("0.weight", "1.weight"), constant)
    plain = fitted(model, None, rate_weight=0.05)
    weighed = fitted(model, numbers, rate_weight=0.05)
    assert torch.equal(plain[0], weighed[0])
    torch.testing.assert_close(plain[1], weighed[1])


def test_importance_is_of_unscaled_weights() -> None:
    """An error in a scaled block is one of the weight, divided by the scale."""
    model = network()
    layout, _, scales = parts(model, "tensor")
    assert scales is not None
    numbers = dict.fromkeys(("0.weight", "1.weight"), 1.0)
    found = Importance.of(layout, numbers, scales).by_tensor
    ratio = float(scales[1] / scales[0]) ** 2
    assert found["1.weight"] / found["0.weight"] == pytest.approx(ratio)


def test_a_tensor_without_importance_is_not_given_up() -> None:
    layout, _, _ = parts(network())
    found = Importance.of(layout, {"0.weight": 0.0, "1.weight": 2.0}, None).by_tensor
    assert found["0.weight"] == pytest.approx(LEAST * found["1.weight"])


def test_more_important_tensors_are_more_exact() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 30, bias=False), nn.Linear(30, 30, bias=False))
    layout, weights, _ = parts(model)
    blocks = scaled_blocks(layout, weights, None, torch.float32)
    errors = []
    for numbers in ((1.0, 1.0), (30.0, 1.0)):
        importance = dict(zip(("0.weight", "1.weight"), numbers, strict=True))
        indices, motifs = fitted(model, importance, rate_weight=4.5)
        errors.append((blocks - motifs[indices]).square().sum(1).split(300)[0].sum())
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, "must have parameter '0.weight', got none"),
        ({"0.weight": 1.0}, "must have parameter '1.weight', got none"),
        ({"0.weight": -1.0}, "of parameter '0.weight' must be finite and at least 0"),
        ({"0.weight": float("nan")}, "of parameter '0.weight' must be finite and at leas"),
        ({"0.weight": float("inf")}, "of parameter '0.weight' must be finite and at leas"),
        ({"0.weight": torch.ones(3)}, r"must broadcast to \(5, 7\), got shape \(3,\)"),
        ({"0.weight": 0, "1.weight": 0}, "must be above 0 somewhere, got 0 everywhere"),
    ],
)
def test_importance_that_cannot_be_is_refused(given_, message) -> None:
    layout, _, _ = parts(network())
    with pytest.raises(ValueError, match=message):
        Importance.of(layout, given_, None)


@pytest.mark.parametrize("scales", SCALES)
def test_the_rate_weight_is_relative_to_the_weights(scales) -> None:
    model = network(0)
    indices, _ = fitted(model, None, rate_weight=0.3, scales=scales)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2.0**9)
    assert torch.equal(fitted(model, None, rate_weight=0.3, scales=scales)[0], indices)


# On a device beside the CPU


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize(
    "given_",
    [
        {"0.weight": 1.0, "1.weight": 2.0},  # as `sensitivities` measures
        {"0.weight": torch.rand(7), "1.weight": 3.0},
    ],
)
def test_importance_is_where_the_weights_are_wherever_its_numbers_are_from(
    given_, scales
) -> None:
    layout, weights, _ = parts(network())
    config = MosaicConfig(block_size=layout.block_size, num_motifs=4, scales=scales)
    here = Importance.of(layout, given_, scales_of(weights, config.scales))
    with pretended() as where:
        there = [weight.detach().to(where.device) for weight in weights]
        own = scales_of(there, config.scales)
        found = Importance.of(layout, given_, own, device=where.device)
        assert found.by_tensor == here.by_tensor
        assert (found.by_weight is None) == (here.by_weight is None)
        if found.by_weight is None or here.by_weight is None:
            return
        assert found.by_weight.device == where.device
        assert torch.equal(found.by_weight.cpu(), here.by_weight)
        blocks = scaled_blocks(layout, there, own, torch.float32)
        indices = Fitting(layout, config, found).assign(
            blocks,
            blocks[:4].clone(),
            usage=torch.arange(4).to(where.device),
            rate_weight=0.1,
        )
        assert indices.device == where.device


def test_all_of_a_bank_is_where_its_motifs_are() -> None:
    layout, _, _ = parts(network())
    fitting = Fitting(
        layout, MosaicConfig.learned(block_size=layout.block_size, num_motifs=3)
    )
    with pretended() as where:
        motifs = torch.zeros(3, layout.block_size).to(where.device)
        indices = torch.zeros(layout.num_blocks, dtype=torch.int32).to(where.device)
        scales = tuple(torch.ones(1).to(where.device) for _ in layout.placements)
        bank = Bank(fitting, "weights", motifs, indices, scales)
        assert {str(buffer.device) for buffer in bank.buffers()} == {str(where.device)}
