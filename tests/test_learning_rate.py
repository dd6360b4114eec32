"""The code length that training makes smaller: its value, its gradients, and whole motifs."""

import copy
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import momos
from momos import MosaicConfig, Reassign, freeze_, nearest_reference, parametrize_
from momos.codec import in_order
from momos.learning import following
from momos.learning.bank import Bank
from momos.learning.rate import _slopes_compiled, slopes_reference
from momos.learning.whole import round_, whole_indices
from networks import bits

WHOLE = MosaicConfig.learned(selection="whole", min_ndim=1, rate_weight=1e-3)


def network(seed: int = 0, inputs: int = 12, outputs: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))


def whole(config: MosaicConfig = WHOLE, **about: int) -> tuple[nn.Module, Bank]:
    model = network(**about)
    return model, parametrize_(model, config, learn="weights")


def trained(model: nn.Module, schedule: Reassign, steps: int) -> None:
    """Towards constant outputs, from where the schedule is."""
    inputs = torch.randn(64, 12, generator=torch.Generator().manual_seed(7))
    for _ in range(steps):
        model.zero_grad()
        (model(inputs).square().mean() + schedule.penalty()).backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.05 * weight.grad.sign()
        schedule.step()


@given(
    st.integers(0, 1000), st.sampled_from([1, 3, 5, 31, 255]), st.sampled_from([0.3, 4, 60])
)
def test_whole_numbers_are_the_nearest_motifs(seed: int, count: int, spread: float) -> None:
    blocks = spread * torch.randn(200, 1, generator=torch.Generator().manual_seed(seed))
    blocks[:8, 0] = torch.arange(-2, 2, 0.5)  # as near to two
    motifs = in_order(torch.zeros(count, dtype=torch.uint32)).float()[:, None]
    assert torch.equal(
        whole_indices(blocks, count).long(), nearest_reference(blocks, motifs)
    )


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.9, 3.0])
def test_weights_up_to_the_threshold_become_zero_and_no_others(threshold: float) -> None:
    blocks = torch.linspace(-4, 4, 801)[:, None]
    found = whole_indices(blocks, 255, threshold)
    assert torch.equal(found == 0, blocks[:, 0].abs() <= threshold)
    far = blocks[:, 0].abs() > max(0.5, threshold)
    assert torch.equal(found[far], whole_indices(blocks, 255)[far])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 2.0])
def test_compiled_rounding_is_that_of_the_definition(threshold: float) -> None:
    latent = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 2
    latent[:3] = torch.tensor([0.0, -0.0, 1e6])
    scale = torch.tensor([0.3125])
    found = []
    for each in (scale, scale.expand(500)):  # with a scale for each, it is not compiled
        indices, value = torch.zeros(500, dtype=torch.int32), torch.zeros(500)
        about = {"num_motifs": 31, "threshold": threshold}
        changed = round_(latent, each, indices, value, **about)
        assert changed == int((indices != 0).sum())
        assert round_(latent, each, indices, value, **about) == 0
        found.append((indices, value))
    assert torch.equal(found[0][0], found[1][0])
    assert bits(found[0][1]) == bits(found[1][1])


@pytest.mark.parametrize("shape", [(1, 30), (12, 40), (40, 1)])
def test_compiled_slopes_are_those_of_the_definition(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    model = nn.Linear(shape[1], shape[0], bias=False)
    with torch.no_grad():
        model.weight.mul_(torch.rand(shape) < 0.4)[0, 0] = 3.0
    bank = parametrize_(model, WHOLE, learn="weights")
    (tile,) = bank.tiles
    one, two = (
        slopes_reference(bank, tile, shape[0]),
        _slopes_compiled(bank, tile, shape[0]),
    )
    assert torch.allclose(one[0], two[0], rtol=1e-5)
    assert torch.allclose(one[1], two[1], rtol=1e-4, atol=1e-4)
    assert torch.allclose(one[2].sum(), two[2], rtol=1e-4)


@pytest.mark.parametrize("scales", ["tensor", "channel"])
def test_the_gradient_is_the_change_of_the_length_towards_the_next_number(
    scales: str,
) -> None:
    """Slope times way, for one weight that crosses from 0 to 1, at unchanged code lengths."""
    model, bank = whole(MosaicConfig.learned(selection="whole", scales=scales))
    momos.code_length(model).backward()
    tile = bank.tiles[0]
    scale = float(bank.scales[bank.span(tile.place)[0]])
    flat = tile.latent.grad.view(-1) * torch.sign(tile.latent.detach().view(-1)) * scale
    own = bank.indices[: flat.numel()].view(16, 12)
    used = (own > 0).float()
    share = (used.sum() + 1) / (used.numel() + 2)
    row = (used.sum(1) + 2 * share) / 14
    column = (used.sum(0) + 2 * share) / 18
    log_odds = lambda p: (p.clamp(max=0.98) / (1 - p.clamp(max=0.98))).log2()  # noqa: E731
    odds = log_odds(row)[:, None] + log_odds(column) - log_odds(share)
    usage = torch.bincount(own.reshape(-1), minlength=3).float()
    ones = usage[1] + usage[2]
    wanted = 1 - ((ones + 0.5) / (used.sum() + 0.5 * 127)).log2() - odds[0, 0]
    assert float(tile.latent.detach()[0, 0].abs()) < scale  # between 0 and 1
    assert float(flat[0]) == pytest.approx(max(0.0, float(wanted)), rel=1e-3)


def test_the_length_is_near_that_of_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(300, 200, bias=False)
    columns = torch.rand(300).pow(3)
    with torch.no_grad():
        model.weight.copy_(torch.randn(200, 300) * (torch.rand(200, 300) < columns))
    parametrize_(model, WHOLE, learn="weights")
    estimated = momos.code_length(model).item() / 8
    freeze_(model)
    report = momos.save(model, tmp_path / "net.momos")
    found = sum(tensor.length for tensor in report.tensors) / 8
    assert estimated == pytest.approx(found, rel=0.1)


def test_following_its_gradient_makes_the_length_smaller() -> None:
    model, bank = whole()
    schedule = Reassign(model, total_steps=1000, ramp=0)
    before = momos.code_length(model).item()
    for _ in range(20):
        model.zero_grad()
        momos.code_length(model).backward()
        with torch.no_grad():
            for tile in bank.tiles:
                tile.latent.sub_(0.02 * tile.latent.grad.sign())
        schedule.step()
    assert momos.code_length(model).item() < 0.5 * before


def test_scales_are_learned_by_the_rounding_error() -> None:
    model, bank = whole()
    weights = torch.randn(16, 12, generator=torch.Generator().manual_seed(3))
    (model[0].weight * weights).sum().backward()
    tile = bank.tiles[0]
    wanted = (weights * (tile.value - tile.latent.detach())).sum() / (16 * 12) ** 0.5
    assert float(bank.stretch.grad[0]) == pytest.approx(float(wanted), rel=1e-4)
    assert torch.equal(tile.latent.grad, weights)


def test_a_clipped_weight_grows_with_its_scale() -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.1, 0.1, 0.1, 9.0]]))
    bank = parametrize_(
        model, MosaicConfig.learned(selection="whole", num_motifs=3), learn="weights"
    )
    model.weight[0, 3].backward()
    value = float(bank.tiles[0].value[0, 3])
    assert value == float(bank.scales[0]) < 9
    assert float(bank.stretch.grad) == pytest.approx(
        value / 2
    )  # over the root of 4 weights


@pytest.mark.parametrize("scales", ["tensor", "channel"])
def test_what_was_trained_is_what_is_saved_and_goes_on(scales: str, tmp_path: Path) -> None:
    config = MosaicConfig.learned(selection="whole", scales=scales, rate_weight=1e-3)
    model, _ = whole(config)
    schedule = Reassign(model, total_steps=30)
    trained(model, schedule, 30)
    seen = bits(model[0].weight)
    mosaic = freeze_(model)
    assert bits(model[0].weight) == seen
    assert mosaic.motifs[0] == 0
    momos.save(model, tmp_path / "net.momos")
    other = network(1)
    momos.load_(other, tmp_path / "net.momos")
    assert bits(other[0].weight) == seen
    bank = parametrize_(other, config, learn="weights")
    assert bits(other[0].weight) == seen
    assert torch.equal(bank.scales, torch.cat(mosaic.scales))


def test_a_resumed_run_is_the_same() -> None:
    model, _ = whole()
    schedule = Reassign(model, total_steps=20)
    trained(model, schedule, 11)
    saved = copy.deepcopy((model.state_dict(), schedule.state_dict()))
    trained(model, schedule, 9)
    other, _ = whole(seed=5)
    again = Reassign(other, total_steps=20)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    trained(other, again, 9)
    for name, value in model.state_dict().items():
        assert bits(other.state_dict()[name]) == bits(value), name


def test_an_average_is_the_mosaic_of_averaged_weights_and_scales() -> None:
    model, _ = whole(MosaicConfig.learned(selection="whole", rate_weight=0.0))
    schedule = Reassign(model, total_steps=20)
    average = torch.optim.swa_utils.AveragedModel(model)
    trained(model, schedule, 2)
    average.update_parameters(model)
    latent = average.module.momos.tiles[0].latent.detach()
    freeze_(average.module)
    scale = average.module[0].weight.detach().abs()
    unit = float(scale[scale > 0].min())
    near = (latent / unit).round() * unit
    share = float((near - average.module[0].weight.detach()).abs().lt(1e-6).float().mean())
    assert share > 0.9  # the unit is a bfloat16 number, so few round otherwise


def test_a_device_with_kernels_of_its_own_rounds_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernels search motifs and move them, which whole numbers do not."""
    one, two = whole()[0], whole()[0]
    trained(one, Reassign(one, total_steps=3), 3)
    monkeypatch.setattr(following, "runs_on", lambda device: True)
    trained(two, Reassign(two, total_steps=3), 3)
    for name, value in one.state_dict().items():
        assert bits(two.state_dict()[name]) == bits(value), name


def test_pulling_is_the_gradient_of_the_penalty() -> None:
    one, two = whole()[0], whole()[0]
    schedules = [Reassign(model, total_steps=10, ramp=0) for model in (one, two)]
    (one(torch.ones(3, 12)).sum() + 2 * schedules[0].penalty()).backward()
    two(torch.ones(3, 12)).sum().backward()
    schedules[1].pull_(2.0)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-7)


def test_motifs_that_are_not_whole_have_no_penalty() -> None:
    model = network()
    parametrize_(model, MosaicConfig.learned(num_motifs=8), learn="weights")
    schedule = Reassign(model, total_steps=10)
    assert schedule.penalty().item() == 0
    schedule.pull_()
    assert model[0].parametrizations.weight.original.grad is None
    message = "selection must be 'whole' for code_length, got 'kmeans'"
    with pytest.raises(ValueError, match=message):
        momos.code_length(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"learn": "motifs"},
            "learn must be 'weights' for selection='whole', got 'motifs'",
        ),
        (
            {"learn": "weights", "importance": {"0.weight": 1.0}},
            "importance must be None for selection='whole'",
        ),
    ],
)
def test_what_does_not_go_with_whole_motifs_is_refused(
    settings: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parametrize_(network(), WHOLE, **settings)


WARNING = (
    r"^in 10 steps the optimizer wrote latent weights but never the scales \(momos.stretch\), "
    r"so they stay fixed: make the optimizer after parametrize_, or call "
    r"bank.stretch.requires_grad_\(False\) if that is meant$"
)


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    schedule = Reassign(model, total_steps=10)
    for _ in range(steps):
        model(torch.ones(3, 12)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def test_an_optimizer_without_the_scales_is_warned_of_once() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    parametrize_(model, WHOLE, learn="weights")
    with pytest.warns(UserWarning, match=WARNING) as seen:
        stepped(model, optimizer, 12)
    assert len(seen) == 1
    assert seen[0].filename == __file__


@pytest.mark.parametrize("fixed", [True, False])
def test_scales_that_move_or_are_meant_to_stay_give_no_warning(fixed: bool) -> None:
    model = network()
    before = torch.optim.Adam(model.parameters())
    bank = parametrize_(model, WHOLE, learn="weights")
    bank.stretch.requires_grad_(not fixed)
    # No learning rate at first, as in a warm-up: it is not the values that are looked at.
    stepped(model, before if fixed else torch.optim.Adam(model.parameters(), lr=0.0), 10)
    assert not bank.stretch.any()


def test_a_scale_that_vanished_is_named() -> None:
    model, bank = whole()
    schedule = Reassign(model, total_steps=10)
    with torch.no_grad():
        bank.stretch[2] = -200.0
    with pytest.raises(
        ValueError, match=r"training moved one of parameter '2\.weight' to 0\.0"
    ):
        schedule.step()
