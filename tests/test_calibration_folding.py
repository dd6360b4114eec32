"""Folding moves scales between modules; the network computes what it did before."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from momos import Folding, fold_scales_
from momos.study.tasks.architectures import resnet20
from networks import bits, named

IMAGE, ROWS = (4, 3, 16, 16), (8, 6)


def unsettled(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in float64 with statistics, gains, and channels of very different scales."""
    g = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=g, dtype=torch.float64)

    model = model.double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                if module.running_mean is not None:
                    module.running_mean.copy_(normal(module.running_mean))
                    module.running_var.copy_(normal(module.running_var).exp())
                if module.weight is not None:
                    module.weight.copy_(normal(module.weight))
                    module.bias.copy_(normal(module.bias))
            elif isinstance(getattr(module, "weight", None), Tensor):
                scale = normal(module.weight[:, 0].reshape(len(module.weight), -1)[:, 0])
                shape = (-1, *[1] * (module.weight.ndim - 1))
                module.weight.mul_(scale.exp().view(shape))
    return model


def folded(model: nn.Module, *shape: int) -> tuple[Folding, nn.Module]:
    """What was folded, after asserting that the model computes what it did."""
    model = unsettled(model)
    inputs = torch.randn(*shape, dtype=torch.float64)
    model.eval()
    before = model(inputs)
    model.train()
    folding = fold_scales_(model, inputs)
    assert model.training
    model.eval()
    torch.testing.assert_close(model(inputs), before, rtol=1e-10, atol=1e-10)
    for pair in folding.pairs:
        rms = scales(model.get_parameter(pair.weight))
        rms = rms[rms > 0]
        torch.testing.assert_close(rms, torch.full_like(rms, rms.mean()))
    return folding, model


def scales(weight: Tensor) -> Tensor:
    return weight.detach().flatten(1).square().mean(1).sqrt()


def pairs(folding: Folding) -> list[tuple[str, str]]:
    return [(pair.weight, pair.normalization) for pair in folding.pairs]


def reasons(folding: Folding) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in folding.skipped}


FOLDED = {
    "linear": ([nn.Linear(6, 5), nn.BatchNorm1d(5)], ROWS),
    "conv with bias": ([nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)], IMAGE),
    "conv without": ([nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)], IMAGE),
    "1d": ([nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5)], (4, 3, 9)),
    "3d": ([nn.Conv3d(3, 5, 2), nn.BatchNorm3d(5)], (4, 3, 4, 4, 4)),
    "depthwise": ([nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)], IMAGE),
    "without affine": ([nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, affine=False)], IMAGE),
    "large eps": ([nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, eps=0.7)], IMAGE),
    "synchronized": ([nn.Conv2d(3, 5, 3), nn.SyncBatchNorm(5)], IMAGE),
    "instances": ([nn.Conv2d(3, 5, 3), nn.InstanceNorm2d(5, 1e-5, 0.1, True, True)], IMAGE),
}


@pytest.mark.parametrize("name", FOLDED)
def test_channels_become_equal_and_the_function_stays(name):
    modules, shape = FOLDED[name]
    folding, _ = folded(nn.Sequential(*modules), *shape)
    assert pairs(folding) == [("0.weight", "1")]
    assert folding.skipped == ()
    assert folding.pairs[0].num_left == 0


def test_every_convolution_of_a_resnet_is_folded():
    folding, model = folded(resnet20(), *IMAGE)
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert [pair.weight for pair in folding.pairs] == [f"{n}.weight" for n in convolutions]
    assert all(
        "conv" in w and w.replace("conv", "bn") == f"{n}.weight" for w, n in pairs(folding)
    )
    assert reasons(folding) == {"linear": "is not followed directly by a normalization"}


def test_folding_again_changes_nothing():
    _, model = folded(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)), *ROWS)
    before = copy.deepcopy(model.state_dict())
    fold_scales_(model, torch.randn(*ROWS).double())
    torch.testing.assert_close(model.state_dict(), before, rtol=1e-12, atol=1e-12)


def test_the_whole_keeps_its_scale():
    model = unsettled(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)))
    before = model[0].weight.detach().square().mean()
    fold_scales_(model, torch.randn(*ROWS).double())
    torch.testing.assert_close(model[0].weight.detach().square().mean(), before)


@pytest.mark.parametrize("affine", [True, False])
def test_channels_of_zeros_or_out_of_reach_are_left_alone(affine):
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=affine))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].weight[3] *= 1e-30  # a variance of 1e60 is not finite in float32
    before = copy.deepcopy(model.state_dict())
    folding = fold_scales_(model, torch.randn(*ROWS))
    assert folding.pairs[0].num_left == 2
    for name, tensor in model.state_dict().items():
        if tensor.ndim:
            assert torch.equal(tensor[[1, 3]], before[name][[1, 3]])
            assert bool(tensor.isfinite().all())
    rms = scales(model[0].weight)[[0, 2, 4]]
    torch.testing.assert_close(rms, rms.mean().expand(3))


def test_without_gains_a_variance_never_becomes_negative():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False, eps=1.0))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[10.0, 10.0], [0.1, 0.1]]))
        model[1].running_var.fill_(0.01)
    folding = fold_scales_(model, torch.randn(3, 2))
    assert folding.pairs[0].num_left == 1
    assert bool((model[1].running_var >= 0).all())


def test_nothing_but_zeros_stays():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    nn.init.zeros_(model[0].weight)
    assert fold_scales_(model, torch.randn(*ROWS)).pairs[0].num_left == 5
    assert not model[0].weight.any()


# What is not folded, and why


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    return model


def with_frozen(*names: str) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


def with_hook(at: int) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    model[at].register_forward_hook(lambda module, inputs, output: output * 2)
    return model


class Own(nn.Linear):
    pass


UNFIT = {
    "tied": (tied, ROWS, "shares memory"),
    "frozen weight": (lambda: with_frozen("0.weight"), ROWS, "is frozen"),
    "frozen bias": (lambda: with_frozen("0.bias"), ROWS, "is frozen"),
    "frozen gain": (lambda: with_frozen("1.weight"), ROWS, "which is frozen"),
    "hook on the layer": (lambda: with_hook(0), ROWS, "has hooks"),
    "hook on the norm": (lambda: with_hook(1), ROWS, "which has hooks"),
    "subclass": (
        lambda: nn.Sequential(Own(6, 6), nn.BatchNorm1d(6)),
        ROWS,
        "is a Own, which may",
    ),
    "no statistics": (
        lambda: nn.Sequential(
            nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False)
        ),
        ROWS,
        "which keeps no running statistics",
    ),
    "groups": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.GroupNorm(6, 6)),
        IMAGE,
        "which normalizes by statistics of each input",
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6)),
        IMAGE,
        "is a transposed convolution",
    ),
    "features last": (
        lambda: nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(5)),
        (8, 5, 6),
        "has its channels where none are normalized",
    ),
    "unbatched": (
        lambda: nn.Sequential(nn.Conv1d(6, 6, 3), nn.BatchNorm1d(6)),
        (6, 8),
        "has its channels where none are normalized",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_modules_that_do_not_fit_are_left_as_they_are(name):
    build, shape, reason = UNFIT[name]
    model = build().eval()
    before = {name: bits(tensor) for name, tensor in named(model).items()}
    folding = fold_scales_(model, torch.randn(*shape))
    assert folding.pairs == ()
    assert reason in reasons(folding)["0"]
    assert {name: bits(tensor) for name, tensor in named(model).items()} == before


def test_a_frozen_bias_of_the_norm_does_not_matter():
    assert len(fold_scales_(with_frozen("1.bias"), torch.randn(*ROWS)).pairs) == 1


@pytest.mark.parametrize("at", [0, 1])
def test_parametrized_modules_are_refused(at):
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    parametrize.register_parametrization(model[at], "weight", nn.Identity())
    message = rf"^module '{at}' must not be parametrized, .* \(fold before parametrize_\)$"
    with pytest.raises(ValueError, match=message):
        fold_scales_(model, torch.randn(*ROWS))


def test_weights_that_are_not_finite_are_named():
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match=r"^weights must be finite, got 1 of 36 .*'0\.weight'"
    ):
        fold_scales_(model, torch.randn(*ROWS))


class Failing(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        super().forward(torch.rand_like(x))
        raise ArithmeticError


@pytest.mark.parametrize("build", [Failing, nn.Sequential])
def test_all_but_the_folded_is_left_as_it_was(build):
    model = build(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout())
    model[2].eval()
    state, values = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    if build is Failing:
        with pytest.raises(ArithmeticError):
            fold_scales_(model, torch.ones(*ROWS))
        torch.testing.assert_close(model.state_dict(), values, rtol=0, atol=0)
    else:
        fold_scales_(model, torch.ones(*ROWS))
        assert model[1].num_batches_tracked == values["1.num_batches_tracked"]
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_training_goes_on():
    _, model = folded(resnet20(), *IMAGE)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(torch.randn(*IMAGE).double()).square().mean().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    before = copy.deepcopy(model.conv1.weight.detach())
    optimizer.step()
    assert not torch.equal(model.conv1.weight.detach(), before)


def test_in_training_mode_only_eps_is_in_the_way():
    model = unsettled(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, eps=1e-12)))
    inputs = torch.randn(*ROWS).double()
    model[1].momentum = 0.0  # the statistics stay
    before = model(inputs)
    fold_scales_(model, inputs)
    torch.testing.assert_close(model(inputs), before, rtol=1e-6, atol=1e-6)
