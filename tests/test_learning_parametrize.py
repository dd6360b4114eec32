"""Weights that are motifs[indices] while they are trained, and ordinary weights afterwards."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import momos
from momos import MosaicConfig, freeze_, parametrize_
from networks import bits

CONFIG = MosaicConfig.learned(num_motifs=12)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent = kind(8, 6, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x)[0]


class Language(nn.Module):
    """Embeddings tied to the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(x)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=3),
        nn.ConvTranspose2d(6, 5, 2),
        nn.Flatten(),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (mlp, lambda: torch.randn(7, 8)),
    "convolutional": (convolutional, lambda: torch.randn(3, 3, 7, 7)),
    "tied embeddings": (Language, lambda: torch.randint(11, (3, 5))),
    "attention": (Attention, lambda: torch.randn(2, 4, 8)),
    "gru": (lambda: Recurrent(nn.GRU), lambda: torch.randn(2, 4, 8)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: torch.randn(2, 4, 8)),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True),
        lambda: torch.randn(2, 4, 8),
    ),
    "half": (
        lambda: nn.Linear(8, 5).to(torch.bfloat16),
        lambda: torch.randn(4, 8, dtype=torch.bfloat16),
    ),
    "double": (lambda: mlp().double(), lambda: torch.randn(7, 8, dtype=torch.float64)),
}
CONFIGS = {
    "plain": MosaicConfig(block_size=3, num_motifs=10),
    "learned": CONFIG,
    "channels": MosaicConfig.learned(num_motifs=9, scales="channel", block_size=4, bits=4),
    "half motifs": MosaicConfig.learned(num_motifs=9, bits=16, scales="none"),
    "no zero motif": MosaicConfig(block_size=2, num_motifs=7, zero_motif=False, bits=3),
    "everything": MosaicConfig.learned(num_motifs=20, min_ndim=0, dense_dtype="float32"),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    build, inputs = NETWORKS[name]
    return build(), inputs()


def trained(model: nn.Module, inputs: Tensor, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(inputs).float().square().mean().backward()
        optimizer.step()
    if getattr(model._modules.get("momos"), "learn", "") == "weights":
        momos.Reassign(model, total_steps=1).step()


@pytest.mark.parametrize("learn", ["motifs", "weights"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_frozen_and_saved_is_what_was_trained(
    name: str, config: str, learn: str, path: Path
) -> None:
    """Frozen, saved and loaded, a network computes what it did while it was trained."""
    model, inputs = made(name)
    settings = CONFIGS[config]
    parametrize_(model, settings, learn=learn)
    trained(model, inputs)
    model.eval()
    before = model(inputs).detach()
    exact = settings.dense_dtype == "float32"
    mosaic = freeze_(model)
    after = model(inputs)
    if exact:
        assert bits(after) == bits(before)
    assert momos.Mosaic.of(model) is mosaic
    momos.save(model, path)
    fresh, _ = made(name)
    momos.load_(fresh.eval(), path)
    assert bits(fresh(inputs)) == bits(after)
    assert len(mosaic.motifs.unique(dim=0)) <= settings.motifs_for(1)


@pytest.mark.parametrize("learn", ["motifs", "weights"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_frozen_weights_are_those_that_the_forward_pass_saw(
    name: str, learn: str
) -> None:
    model, inputs = made(name)
    names = [n for n, p in model.named_parameters() if p.ndim > 1]
    parametrize_(model, CONFIG, learn=learn)
    trained(model, inputs)
    seen = {n: model.get_submodule(n.rpartition(".")[0]) for n in names}
    seen = {n: bits(getattr(module, n.rpartition(".")[2])) for n, module in seen.items()}
    freeze_(model)
    assert {n: bits(model.get_parameter(n)) for n in names} == seen


@pytest.mark.parametrize("name", NETWORKS)
def test_afterwards_nothing_is_left_of_the_parametrization(name: str) -> None:
    model, inputs = made(name)
    before = {n: (type(p), p.shape, p.dtype) for n, p in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    parametrize_(model, CONFIG, learn="motifs")
    freeze_(model)
    assert {n: (type(p), p.shape, p.dtype) for n, p in model.state_dict().items()} == before
    assert [type(module) for module in model.modules()] == kinds
    pickle.loads(pickle.dumps(model))
    trained(model, inputs)


def test_the_gradient_of_a_motif_is_the_sum_over_its_blocks() -> None:
    model = nn.Linear(6, 4, bias=False).double()
    bank = parametrize_(model, MosaicConfig(block_size=3, num_motifs=5))
    inputs = torch.randn(7, 6, dtype=torch.float64)
    weight = model.weight
    weight.retain_grad()
    (inputs @ weight.T).square().sum().backward()
    wanted = torch.zeros_like(bank.motifs)
    wanted.index_add_(0, bank.indices, weight.grad.view(-1, 3))
    wanted[0] = 0  # the zero motif is no variable
    torch.testing.assert_close(bank.motifs.grad, wanted)


@pytest.mark.parametrize("scales", ["none", "tensor", "channel"])
def test_gradients_of_motifs_are_those_of_finite_differences(scales) -> None:
    config = MosaicConfig(block_size=3, num_motifs=5, scales=scales, zero_motif=False)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    bank = parametrize_(model, config)
    inputs = torch.randn(3, 5, dtype=torch.float64)

    def outputs(motifs: Tensor) -> Tensor:
        return torch.func.functional_call(model, {"momos.motifs": motifs}, inputs)

    motifs = bank.motifs.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(outputs, motifs)


def test_the_bank_is_the_only_new_parameter_and_registered_once() -> None:
    model = mlp()
    bank = parametrize_(model, CONFIG)
    names = dict(model.named_parameters(remove_duplicate=False))
    assert {n for n in names if "motifs" in n} == {"momos.motifs"}
    assert names["momos.motifs"] is bank.motifs
    assert {n for n in names if "parametrizations" in n} == set()
    assert names["0.bias"].requires_grad  # dense ones are trained as before
    assert sum(bank.motifs is p for p in model.parameters()) == 1


def test_optimizer_state_shrinks_to_the_motifs() -> None:
    model = nn.Linear(64, 64, bias=False)
    parametrize_(model, CONFIG)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 64)).sum().backward()
    optimizer.step()
    held = [v for state in optimizer.state.values() for v in state.values() if v.ndim]
    assert sum(v.numel() for v in held) == 2 * 12 * 2


@pytest.mark.parametrize("bits_", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_the_zero_motif_stays_exactly_zero(learn, bits_) -> None:
    model, inputs = made("mlp")
    bank = parametrize_(model, MosaicConfig.learned(num_motifs=8, bits=bits_), learn=learn)
    if learn == "weights":
        with torch.no_grad():
            bank.indices[::2] = 0
        bank.update_()
    else:
        bank.indices[::2] = 0
    schedule = momos.Reassign(model, total_steps=5, every=1) if learn == "weights" else None
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (model(inputs) - 1).square().sum().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        assert not bank.motifs[0].any()
    assert not freeze_(model).motifs[0].any()


def test_gradients_go_straight_through_to_the_latent_weights() -> None:
    model = nn.Linear(6, 4)
    weight = model.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = weight.detach().clone()
    parametrize_(model, MosaicConfig(block_size=2, num_motifs=3), learn="weights")
    assert (
        model.parametrizations.weight.original is weight
    )  # and its optimizer state lives on
    inputs, wanted = torch.randn(5, 6), torch.randn(5, 4)
    seen = model.weight.detach()
    loss = (
        (inputs @ (v := seen.clone().requires_grad_()).T + model.bias - wanted)
        .square()
        .sum()
    )
    (gradient,) = torch.autograd.grad(loss, v)
    (model(inputs) - wanted).square().sum().backward()
    assert bits(weight.grad) == bits(gradient)
    optimizer.step()
    assert bits(weight) == bits(before - gradient)
    assert bits(model.weight) == bits(seen)  # the mosaic follows only when told to


def test_tied_weights_are_one_and_stay_tied() -> None:
    model, inputs = made("tied embeddings")
    bank = parametrize_(model, CONFIG)
    assert len(bank.layout.placements) == 1
    assert bits(model.head.weight) == bits(model.embedding.weight)
    trained(model, inputs)
    freeze_(model)
    assert model.head.weight is model.embedding.weight


def test_frozen_and_excluded_weights_are_untouched() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].weight.requires_grad_(False)
    kept = {n: (p, bits(p)) for n, p in model.named_parameters() if n[0] in "01"}
    config = MosaicConfig(block_size=2, num_motifs=3, exclude=("1.*",))
    parametrize_(model, config)
    freeze_(model)
    for name, (parameter, value) in kept.items():
        assert model.get_parameter(name) is parameter
        assert bits(parameter) == value


@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_a_network_of_fewer_blocks_than_motifs_loses_nothing(learn) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = [bits(p) for p in model.parameters()]
    parametrize_(model, MosaicConfig(block_size=4, num_motifs=100), learn=learn)
    mosaic = freeze_(model)
    assert mosaic.num_motifs <= 4
    assert [bits(p) for p in model.parameters()] == before


@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_a_copy_is_a_network_of_its_own(learn) -> None:
    model, inputs = made("mlp")
    parametrize_(model, CONFIG, learn=learn)
    other = copy.deepcopy(model)
    before = bits(model[0].weight)
    trained(other, inputs)
    if learn == "weights":
        momos.Reassign(other, total_steps=1).step()
    assert other.momos is not model.momos
    assert bits(model[0].weight) == before != bits(other[0].weight)
    freeze_(other)
    assert (
        bits(model[0].weight) == before
    )  # freezing the copy leaves the original as it was
    trained(model, inputs)
    freeze_(model)


@pytest.mark.parametrize("learn", ["motifs", "weights"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_network_that_has_run_can_be_copied(kind, learn) -> None:
    torch.manual_seed(0)
    model, inputs = Recurrent(kind), torch.randn(2, 4, 8)
    config = MosaicConfig.learned(num_motifs=12, dense_dtype="float32")
    parametrize_(model, config, learn=learn)
    trained(model, inputs)
    model(inputs)
    other = copy.deepcopy(model)
    assert bits(other(inputs)) == bits(model(inputs))
    before = bits(model(inputs))
    trained(other, inputs)
    assert bits(other(inputs)) != bits(model(inputs)) == before
    for each in (copy.deepcopy(other), other, model):
        each(inputs)
        expected = bits(each(inputs))
        freeze_(each)
        assert bits(copy.deepcopy(each)(inputs)) == bits(each(inputs)) == expected


@pytest.mark.parametrize("learn", ["motifs", "weights"])
@pytest.mark.parametrize("assign", [False, True])
def test_the_state_of_one_network_makes_another_the_same(learn, assign) -> None:
    model, inputs = made("convolutional")
    parametrize_(model, CONFIG, learn=learn)
    trained(model, inputs)
    if learn == "weights":
        momos.Reassign(model, total_steps=1).step()
    torch.manual_seed(5)
    other = convolutional()
    parametrize_(other, CONFIG, learn=learn)
    other.load_state_dict(copy.deepcopy(model.state_dict()), assign=assign)
    assert bits(other.eval()(inputs)) == bits(model.eval()(inputs))
    one, two = freeze_(model), freeze_(other)
    assert bits(one.motifs) == bits(two.motifs)
    assert torch.equal(one.indices, two.indices)


@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_accumulated_gradients_are_those_of_the_whole_batch(learn) -> None:
    inputs, gradients = torch.randn(6, 8).double(), []
    for parts in (1, 3):
        torch.manual_seed(0)
        model = nn.Linear(8, 4).double()
        parametrize_(model, CONFIG, learn=learn)
        for part in inputs.chunk(parts):
            model(part).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("learn", ["motifs", "weights"])
def test_mixed_precision_trains_the_same_parameters(learn) -> None:
    model, inputs = made("mlp")
    parametrize_(model, CONFIG, learn=learn)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(inputs)
    assert outputs.dtype == torch.bfloat16
    outputs.float().square().mean().backward()
    assert all(
        p.grad is not None and p.grad.dtype == p.dtype and p.grad.isfinite().all()
        for p in model.parameters()
    )


def test_of_several_banks_each_group_has_its_own() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    config = MosaicConfig(block_size=2, num_motifs=5, groups=(("0.*",), ("1.*", "9.*")))
    bank = parametrize_(model, config)
    assert len(bank.motifs) == 15
    for number, part in enumerate(bank.indices.split(32)):
        assert (part // 5 == number).all()
    freeze_(model)


def test_importance_makes_important_weights_exact() -> None:
    torch.manual_seed(0)
    model = nn.Linear(16, 16, bias=False)
    before = model.weight.detach().clone()
    importance = torch.full((16, 16), 1e-6)
    importance[:, ::2] = 1
    parametrize_(
        model,
        MosaicConfig(block_size=2, num_motifs=40),
        importance={"weight": importance},
        learn="weights",
    )
    momos.Reassign(model, total_steps=20, every=1, fixed=0)
    schedule = momos.Reassign(model, total_steps=20, every=1, fixed=0)
    for _ in range(20):
        schedule.step()
    freeze_(model)
    errors = (model.weight - before).square().mean(0)
    assert errors[::2].mean() < errors[1::2].mean() / 20


def test_dense_tensors_are_rounded_when_frozen() -> None:
    model, inputs = made("mlp")
    trained(model, inputs)
    parametrize_(model, CONFIG)
    freeze_(model)
    for tensor in (model[0].bias, model[1].weight, model[1].running_var):
        assert bits(tensor) == bits(tensor.bfloat16().float())
    assert model[1].num_batches_tracked.dtype == torch.int64


# What cannot be parametrized says so, and is left as it was


def refused(model: nn.Module, config: MosaicConfig = CONFIG, **options) -> str:
    before = {n: bits(t) for n, t in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        parametrize_(model, config, **options)
    assert {n: bits(t) for n, t in model.state_dict().items()} == before
    assert [type(module) for module in model.modules()] == kinds
    return str(error.value)


def test_another_parametrization_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), weight_norm(nn.Linear(4, 4)))
    said = refused(model)
    assert "'1.parametrizations.weight.original0'" in said
    assert "belongs to another parametrization" in said
    parametrize_(model, MosaicConfig.learned(exclude=("1.parametrizations.*",)))
    freeze_(model)
    model(torch.randn(2, 4))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_modules_are_named() -> None:
    model = nn.Sequential(torch.jit.script(nn.Linear(4, 4)))
    assert "is compiled by TorchScript" in refused(model)


def test_weights_that_are_not_finite_are_named() -> None:
    model = mlp()
    with torch.no_grad():
        model[3].weight[1, 2] = float("nan")
    assert "got 1 of 36 NaN or infinite in parameter '3.weight'" in refused(model)


def test_a_network_is_parametrized_once() -> None:
    model = mlp()
    parametrize_(model, CONFIG)
    with pytest.raises(ValueError, match=r"must not have .*|must not be learned already"):
        parametrize_(model, CONFIG)


def test_a_network_with_the_name_taken_says_so() -> None:
    model = nn.ModuleDict({"momos": nn.Linear(4, 4)})
    assert "must leave the name 'momos' free" in refused(model)


def test_importance_must_fit() -> None:
    model = nn.Linear(4, 3)
    assert "must have parameter 'weight', got none" in refused(
        model, importance={"other": torch.ones(3, 4)}
    )
    assert "must broadcast to (3, 4), got shape (5,)" in refused(
        model, importance={"weight": torch.ones(5)}
    )
    assert "finite and at least 0" in refused(
        model, importance={"weight": -torch.ones(3, 4)}
    )
    assert "above 0 somewhere" in refused(model, importance={"weight": torch.zeros(3, 4)})


def test_learn_is_one_of_two() -> None:
    assert "learn must be 'motifs' or 'weights', got 'both'" in refused(mlp(), learn="both")


def test_vectors_alone_are_no_network_to_learn_motifs_of() -> None:
    said = refused(nn.BatchNorm1d(4))
    assert "among 0 trainable parameters of at least 2 dimensions" in said


def test_freezing_what_was_never_parametrized() -> None:
    with pytest.raises(ValueError, match=r"parametrize_\), but those of Linear are not$"):
        freeze_(nn.Linear(2, 2))
    outer = nn.Sequential(mlp())
    parametrize_(outer[0], CONFIG)
    with pytest.raises(ValueError, match="those of its submodule '0' are"):
        freeze_(outer)


def test_dense_tensors_that_do_not_fit_are_named_and_nothing_changes() -> None:
    model, inputs = made("mlp")
    parametrize_(model, MosaicConfig.learned(dense_dtype="float16"))
    with torch.no_grad():
        model[1].running_var[0] = 1e6
    before = bits(model.eval()(inputs))
    with pytest.raises(ValueError, match=r"fit dense_dtype float16, got 1000000.* '1.runn"):
        freeze_(model)
    assert bits(model(inputs)) == before
    freeze_(parametrized_again(model))


def parametrized_again(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model[1].running_var[0] = 1
    return model


def test_a_parametrized_network_cannot_be_pickled_and_torch_says_why() -> None:
    model = mlp()
    parametrize_(model, CONFIG)
    with pytest.raises(RuntimeError, match=r"only supported through state_dict"):
        pickle.dumps(model)


def test_a_parametrized_network_cannot_be_saved_before_it_is_frozen(path: Path) -> None:
    model = mlp()
    parametrize_(model, CONFIG)
    with pytest.raises(ValueError, match="freeze_"):
        momos.save(model, path)
    assert not path.exists()
