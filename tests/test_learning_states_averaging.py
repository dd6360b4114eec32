"""Averages of networks whose motifs are learned: what is validated, saved and frozen is one mosaic."""

import copy
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

import momos
from momos import MosaicConfig, Reassign, freeze_, parametrize_
from networks import bits

CONFIG = MosaicConfig.learned(num_motifs=12, rate_weight=0.1, dense_dtype="float32")
BOTH = pytest.mark.parametrize("learn", ["motifs", "weights"])
BUFFERS = pytest.mark.parametrize("use_buffers", [False, True])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


class Run:
    """Twenty steps of training and what averages them."""

    def __init__(
        self,
        learn: Literal["motifs", "weights"],
        *,
        config: MosaicConfig = CONFIG,
        dense: float = 0.0,
        **options,
    ) -> None:
        self.model = network()
        parametrize_(self.model, config, learn=learn)
        options = {"multi_avg_fn": get_ema_multi_avg_fn(0.8)} | options
        self.average = AveragedModel(self.model, **options)
        self.inputs = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 0.02)
        self.schedule = None
        if learn == "weights":
            self.schedule = Reassign(self.model, total_steps=20, dense=dense)

    def train(self, steps: int = 20) -> None:
        for _ in range(steps):
            self.loss(self.model).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.schedule is not None:
                self.schedule.step()
            self.average.update_parameters(self.model)

    def loss(self, model: Callable[[Tensor], Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(self.inputs), self.inputs[:, :4].argmax(1))


def distinct(model: nn.Module) -> int:
    return max(len(model[i].weight.detach().view(-1, 2).unique(dim=0)) for i in (0, 3))


@BOTH
@BUFFERS
@pytest.mark.parametrize("dense", [0.0, 0.3])
def test_what_is_validated_of_an_average_is_what_is_frozen(
    learn, use_buffers, dense
) -> None:
    run = Run(learn, use_buffers=use_buffers, dense=dense)
    run.train()
    averaged = run.average.module.eval()
    validated, weight = run.loss(run.average).detach(), bits(averaged[0].weight)
    assert distinct(averaged) <= 12
    assert weight != bits(run.model[0].weight)  # nor the mosaic of the last step
    mosaic = freeze_(averaged)
    assert (bits(averaged[0].weight), run.loss(averaged)) == (weight, validated)
    assert momos.Mosaic.of(averaged) is mosaic


@BUFFERS
def test_latent_weights_are_averaged_and_blocks_take_their_best_motif(use_buffers) -> None:
    config = MosaicConfig(block_size=2, num_motifs=12)  # so that the nearest is the best
    run = Run("weights", config=config, use_buffers=use_buffers)
    means = []
    for step in range(5):
        run.train(1)
        latents = [run.model[i].parametrizations.weight.original.detach() for i in (0, 3)]
        pairs = zip(means, latents, strict=False)
        means = (
            [0.8 * m + 0.2 * w for m, w in pairs] if step else [w.clone() for w in latents]
        )
    averaged, errors = run.average.module, []
    for model in (averaged, run.model):
        weights = [model[i].weight.detach() for i in (0, 3)]
        pairs = zip(weights, means, strict=True)
        errors.append(sum(float((w - m).double().square().sum()) for w, m in pairs))
    for i, mean in zip((0, 3), means, strict=True):
        latent = averaged[i].parametrizations.weight.original.detach()
        torch.testing.assert_close(latent, mean)
    assert torch.equal(averaged.momos.settings, run.model.momos.settings)
    if not use_buffers:  # so it began from the motifs of the last step
        assert errors[0] < errors[1]


@BOTH
@BUFFERS
def test_an_average_frozen_without_being_looked_at_is_the_same(learn, use_buffers) -> None:
    found = []
    for looked in (False, True):
        run = Run(learn, use_buffers=use_buffers)
        run.train()
        if looked:
            run.loss(run.average.module.eval())
            run.loss(run.average.module)
        freeze_(run.average.module)
        found.append([bits(t) for t in run.average.module.state_dict().values()])
    assert found[0] == found[1]


@BOTH
@BUFFERS
def test_the_state_of_an_average_is_that_mosaic_and_goes_on_alike(
    learn, use_buffers
) -> None:
    run = Run(learn, use_buffers=use_buffers, avg_fn=get_ema_avg_fn(0.8), multi_avg_fn=None)
    run.train(7)
    other = copy.deepcopy(run)
    other.average = AveragedModel(
        run.model, use_buffers=use_buffers, avg_fn=run.average.avg_fn
    )
    state = copy.deepcopy(run.average.state_dict())
    assert bits(state["module.0.weight"]) == bits(run.average.module[0].weight)
    other.average.load_state_dict(state)
    for each in (run, other):
        each.average.update_parameters(run.model)
    assert bits(run.average.module[0].weight) == bits(other.average.module[0].weight)


@BOTH
def test_a_copy_that_is_not_averaged_stays_as_it_is(learn) -> None:
    run = Run(learn)
    run.train(3)
    with torch.no_grad():
        for tile in run.model.momos.tiles if learn == "weights" else ():
            tile.latent.add_(torch.randn_like(tile.latent))
    other = copy.deepcopy(run.model)
    before = bits(run.model[0].weight)
    assert bits(other[0].weight) == before
    freeze_(other)
    assert bits(other[0].weight) == before == bits(run.model[0].weight)


def test_weights_that_are_not_what_the_bank_says_are_never_frozen() -> None:
    run = Run("weights")
    run.train(3)
    with torch.no_grad():
        run.model[0].parametrizations.weight[0].value[3, 5] += 1
        run.model[3].parametrizations.weight[0].value[1, 2] -= 1
    before = {name: bits(tensor) for name, tensor in run.model.state_dict().items()}
    words = (
        r"'0\.weight' must be what its motifs and indices say, got 1 of 128 values that dif"
    )
    with pytest.raises(ValueError, match=words):
        freeze_(run.model)
    assert {name: bits(tensor) for name, tensor in run.model.state_dict().items()} == before
    Reassign(run.model, total_steps=1).step()
    freeze_(run.model)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_average_is_that_mosaic_too_or_says_that_it_cannot_be() -> None:
    torch.compiler.reset()
    run = Run("weights")
    averaged = run.average.module.eval()
    compiled = torch.compile(averaged, backend="eager")
    for _ in range(2):
        run.train(2)
        compiled(run.inputs)
        weight = averaged[0].parametrizations.weight[0].value.clone()
        assert bits(averaged[0].weight) == bits(weight) != bits(run.model[0].weight)
    torch.compiler.reset()
    whole = torch.compile(averaged, backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        whole(run.inputs)


# Reassign forgotten


def moved(model: nn.Module) -> None:
    with torch.no_grad():
        for tile in model.momos.tiles:
            tile.latent.mul_(1.01)


def test_a_network_whose_mosaic_never_followed_is_frozen_with_a_warning() -> None:
    model = network()
    parametrize_(model, CONFIG, learn="weights")
    Reassign(model, total_steps=5)  # and no step of it
    moved(model)
    with pytest.warns(
        UserWarning, match=r"never followed them.*momos\.Reassign\("
    ) as caught:
        freeze_(model)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("how", ["not moved", "followed", "loaded", "half", "motifs"])
def test_others_are_frozen_without(how) -> None:
    model = network()
    parametrize_(model, CONFIG, learn="motifs" if how == "motifs" else "weights")
    if how == "followed":
        moved(model)
        Reassign(model, total_steps=1).step()
    if how == "loaded":
        moved(model)
        state, model = model.state_dict(), network()
        parametrize_(model, CONFIG, learn="weights")
        model.load_state_dict(state)
    if how == "half":
        model.bfloat16()
    if how == "motifs":
        with torch.no_grad():
            model.momos.motifs.mul_(1.01)
    freeze_(model)
