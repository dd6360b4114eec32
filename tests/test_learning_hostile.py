"""What goes wrong while motifs are learned says so, and leaves a network that can be used."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import momos
from momos import MosaicConfig, Reassign, freeze_, parametrize_
from momos.learning import parametrize, tiles
from networks import bits

CONFIG = MosaicConfig.learned(num_motifs=6)
BOTH = pytest.mark.parametrize("learn", ["motifs", "weights"])
FORGOTTEN = pytest.mark.filterwarnings("ignore:latent weights moved, but motifs")


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def state(model: nn.Module) -> dict[str, bytes]:
    return {name: bits(tensor) for name, tensor in model.state_dict().items()}


def trained(model: nn.Module, inputs: Tensor, steps: int = 2) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        model(inputs).float().square().mean().backward()
        optimizer.step()


def seen(model: nn.Module, inputs: Tensor) -> bytes:
    return bits(model(inputs))


# Wrong types


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model", CONFIG), "model must be a Module, got str"),
        ((torch.randn(3, 3), CONFIG), "model must be a Module, got Tensor"),
        ((nn.Linear(2, 2), {"num_motifs": 3}), "config must be a MosaicConfig, got dict"),
        ((nn.Linear(2, 2), None), "config must be a MosaicConfig, got NoneType"),
        ((nn.Linear(2, 2), CONFIG, [1.0]), "importance must be a Mapping, got list"),
        ((nn.Linear(2, 2), CONFIG, torch.ones(2)), "importance must be a Mapping, got Ten"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(arguments, message) -> None:
    model, config, *importance = arguments
    with pytest.raises(TypeError, match=message):
        parametrize_(model, config, **({"importance": importance[0]} if importance else {}))


def test_importance_of_nothing_is_not_no_importance() -> None:
    with pytest.raises(ValueError, match=r"must have parameter '0\.weight', got none"):
        parametrize_(mlp(), CONFIG, importance={})


# Values that are not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dense", [0.0, 0.3])
def test_a_weight_that_becomes_nan_is_named_and_nothing_is_changed(value, dense) -> None:
    model = mlp()
    bank = parametrize_(model, CONFIG, learn="weights")
    schedule = Reassign(model, total_steps=10, dense=dense)
    for _ in range(2):
        schedule.step()
    kept = bank.tiles[1].latent.detach().clone()
    with torch.no_grad():
        bank.tiles[1].latent[2, 3] = value
    before, steps, draw = state(model), schedule.steps, schedule.generator.get_state()
    with pytest.raises(
        ValueError, match=r"got 1 of 32 NaN or infinite in parameter '2\.we"
    ):
        schedule.step()
    assert state(model) == before
    assert (schedule.steps, bank.learning) == (steps, dense == 0)
    assert torch.equal(schedule.generator.get_state(), draw)
    with torch.no_grad():
        bank.tiles[1].latent.copy_(kept)
    assert schedule.step() is not None
    freeze_(model)


@pytest.mark.parametrize("bits_", [4, 16, 32])
def test_a_motif_that_became_nan_is_never_frozen(bits_) -> None:
    model = mlp()
    bank = parametrize_(model, MosaicConfig.learned(num_motifs=6, bits=bits_))
    kept = bank.motifs.detach().clone()
    with torch.no_grad():
        bank.motifs[3, 0] = float("nan")
    before = state(model)
    with pytest.raises(
        ValueError, match="motifs must be finite, got 1 of 12 NaN or infini"
    ):
        freeze_(model)
    assert state(model) == before
    with torch.no_grad():
        bank.motifs.copy_(kept)
    freeze_(model)


# Weights of every shape, in every memory


class Shapes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scalar = nn.Parameter(torch.tensor(1.5))
        self.empty = nn.Parameter(torch.rand(3, 0))
        self.one = nn.Parameter(torch.rand(1, 1, 1))
        self.huge = nn.Parameter(torch.randn(4, 3) * 1e37)
        self.tiny = nn.Parameter(torch.randn(4, 3) * 1e-42)
        self.transposed = nn.Parameter(torch.randn(5, 7).T)
        self.strided = nn.Parameter(torch.randn(6, 8)[::2, 1::3])

    def forward(self) -> Tensor:
        return torch.cat([p.double().flatten() for p in self.own()])

    def own(self) -> list[Tensor]:
        return [getattr(self, n) for n in ("scalar", "one", "huge", "tiny", "transposed")]


@BOTH
@pytest.mark.parametrize("scales", ["none", "tensor", "channel"])
def test_parameters_of_every_shape_are_what_they_were_when_frozen(learn, scales) -> None:
    torch.manual_seed(0)
    model = Shapes()
    config = MosaicConfig.learned(num_motifs=9, min_ndim=0, scales=scales, bits=32)
    parametrize_(model, config, learn=learn)
    before = bits(model())
    model().sum().backward()
    mosaic = freeze_(model)
    assert bits(model()) == before
    assert momos.Mosaic.of(model) is mosaic


def test_memory_formats_change_no_bit_of_outputs_or_gradients() -> None:
    outputs, gradients = [], []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
        model = model.to(memory_format=memory_format)
        parametrize_(model, CONFIG, learn="weights")
        latent = model[0].parametrizations.weight.original
        outputs.append(model(torch.ones(1, 3, 5, 5)))
        outputs[-1].square().sum().backward()
        gradients.append(latent.grad)
        Reassign(model, total_steps=1).step()
        freeze_(model)
        assert model[0].weight is latent
        assert latent.is_contiguous(memory_format=memory_format)
        outputs.append(model[0].weight)
    assert bits(outputs[0]) == bits(outputs[2])
    assert bits(outputs[1]) == bits(outputs[3])
    assert bits(gradients[0]) == bits(gradients[1])


# Networks of every structure


class Twice(nn.Module):
    """One module under two names, run three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.second(self.first(x)))


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.list = nn.ParameterList([torch.randn(6, 6), torch.randn(6, 6)])
        self.dict = nn.ParameterDict({"a": torch.randn(6, 6)})

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.list:
            x = x @ weight
        return x @ self.dict["a"] @ self.list[1]


class Children(nn.Module):
    """Whatever its children are, it runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


STRUCTURES = {"twice": Twice, "lists": Lists, "children": Children, "sequential": mlp}


@BOTH
@pytest.mark.parametrize("name", STRUCTURES)
def test_networks_of_every_structure_learn_and_freeze(name, learn) -> None:
    torch.manual_seed(0)
    model, inputs = STRUCTURES[name](), torch.randn(3, 6)
    names = list(model.state_dict())
    parametrize_(model, CONFIG, learn=learn)
    trained(model, inputs)
    if learn == "weights":
        Reassign(model, total_steps=1).step()
    replica = copy.deepcopy(model)
    freeze_(replica)
    freeze_(model)
    assert seen(replica, inputs) == seen(model, inputs)
    assert list(model.state_dict()) == names
    trained(model, inputs)


def test_the_bank_is_the_last_element_of_a_container_until_it_is_frozen() -> None:
    model = mlp()
    bank = parametrize_(model, CONFIG)
    assert model[-1] is bank
    assert len(model) == 4
    freeze_(model)
    assert len(model) == 3
    listed = nn.ModuleList(mlp())
    parametrize_(listed, CONFIG)
    x = torch.randn(2, 6)
    for layer in listed:
        x = layer(x)
    named = nn.ModuleDict({"a": nn.Linear(6, 6)})
    parametrize_(named, CONFIG)
    assert list(named) == ["a", "momos"]
    freeze_(named)
    assert list(named) == ["a"]


def test_weights_without_values_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="'weight' must hold values, got a meta tensor"):
        parametrize_(model, CONFIG)
    lazy = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(4))
    with pytest.raises(ValueError, match=r"'1\.weight' must be initialised"):
        parametrize_(lazy, CONFIG)


# Modes, dtypes, copies


@BOTH
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_no_mode_of_autograd_is_anything_else_made(mode, learn) -> None:
    model, inputs = mlp(), torch.randn(3, 6)
    with mode():
        parametrize_(model, CONFIG, learn=learn)
    trained(model, inputs)
    if learn == "weights":
        with mode():
            Reassign(model, total_steps=1).step()
    trained(model, inputs, steps=1)
    with mode():
        freeze_(model)
    assert not any(p.is_inference() for p in model.parameters())
    trained(model, inputs)


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_network_may_take_another_dtype_while_it_learns(dtype, learn) -> None:
    model, inputs = mlp(), torch.randn(3, 6, dtype=dtype)
    bank = parametrize_(model, CONFIG, learn=learn)
    motifs, scales = bits(bank.motifs), bits(bank.scales)
    model.to(dtype)
    assert (bits(bank.motifs), bits(bank.scales)) == (motifs, scales)  # as exact as before
    assert model[0].weight.dtype == dtype
    trained(model, inputs)
    if learn == "weights":
        Reassign(model, total_steps=1).step()
    before = bits(model[0].weight)
    mosaic = freeze_(model)
    assert bits(model[0].weight) == before
    assert momos.Mosaic.of(model) is mosaic
    assert mosaic.layout.dtype == dtype


@FORGOTTEN
def test_a_part_that_took_another_dtype_is_named() -> None:
    model = mlp()
    parametrize_(model, CONFIG, learn="weights")
    model[0].half()
    with pytest.raises(
        ValueError, match=r"'0\.weight' must have dtype torch\.float32, got t"
    ):
        freeze_(model)
    model[0].float()
    freeze_(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_motifs": 5}, r"momos\.motifs must have shape \(6, 2\), got \(5, 2\)"),
        ({"block_size": 4}, r"momos\.motifs must have shape \(6, 2\), got \(6, 4\)"),
        ({"scales": "channel"}, r"momos\.scales must have shape \(2,\), got \(12,\)"),
        ({"bits": 4}, r"bits and zero_motif must be \[8, 1\], got \[4, 1\]"),
        ({"zero_motif": False}, r"bits and zero_motif must be \[8, 1\], got \[8, 0\]"),
    ],
)
@BOTH
def test_the_state_of_another_config_is_refused(settings, message, learn) -> None:
    other = mlp(1)
    parametrize_(other, MosaicConfig.learned(**({"num_motifs": 6} | settings)), learn=learn)
    model = mlp()
    bank = parametrize_(model, CONFIG, learn=learn)
    before = [bits(t) for t in bank.state_dict().values()]
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(other.state_dict())
    assert [bits(t) for t in bank.state_dict().values()] == before


def test_an_index_of_no_motif_is_refused() -> None:
    model = mlp()
    parametrize_(model, CONFIG)
    given = copy.deepcopy(model.state_dict())
    given["momos.indices"][3] = 6
    with pytest.raises(RuntimeError, match=r"momos\.indices must be below 6, got 6"):
        model.load_state_dict(given)


@FORGOTTEN
@BOTH
def test_frozen_parameters_stay_frozen(learn) -> None:
    model, inputs = mlp(), torch.randn(3, 6)
    bank = parametrize_(model, CONFIG, learn=learn)
    if learn == "weights":
        bank.tiles[0].latent.requires_grad_(False)
        before = bits(bank.tiles[0].latent)
        trained(model, inputs)
        assert bits(bank.tiles[0].latent) == before
    else:
        bank.motifs.requires_grad_(False)
        before = bits(bank.motifs)
        trained(model, inputs)
        assert bits(bank.motifs) == before
    freeze_(model)
    assert model[0].weight.requires_grad == (learn == "motifs")


# Interrupted at any moment


class Interruption:
    """Raises KeyboardInterrupt at the n-th call of a function, before it or after."""

    def __init__(self, function: Callable, number: int, after: bool) -> None:
        self.function, self.left, self.after = function, number, after

    def __call__(self, *arguments, **options):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KeyboardInterrupt
        result = self.function(*arguments, **options)
        if self.left == 0:
            raise KeyboardInterrupt
        return result


@FORGOTTEN
@BOTH
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupted_parametrization_has_not_happened(
    number, after, learn, monkeypatch
) -> None:
    model, inputs = mlp(), torch.randn(3, 6)
    before = state(model), [(n, id(p)) for n, p in model.named_parameters()]
    kinds = [type(module) for module in model.modules()]
    register = tiles.register_parametrization
    with monkeypatch.context() as patch:
        interruption = Interruption(register, number, after)
        patch.setattr(tiles, "register_parametrization", interruption)
        with pytest.raises(KeyboardInterrupt):
            parametrize_(model, CONFIG, learn=learn)
    assert (state(model), [(n, id(p)) for n, p in model.named_parameters()]) == before
    assert [type(module) for module in model.modules()] == kinds
    parametrize_(model, CONFIG, learn=learn)
    trained(model, inputs)
    freeze_(model)


@FORGOTTEN
@BOTH
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupted_freezing_is_ended_by_freezing_again(
    number, after, learn, monkeypatch
) -> None:
    model, inputs = mlp(), torch.randn(3, 6)
    parametrize_(model, CONFIG, learn=learn)
    trained(model, inputs)
    whole = copy.deepcopy(model)
    freeze_(whole)
    with monkeypatch.context() as patch:
        interruption = Interruption(parametrize.restore, number, after)
        patch.setattr(parametrize, "restore", interruption)
        with pytest.raises(KeyboardInterrupt):
            freeze_(model)
    assert seen(model, inputs) == seen(whole, inputs)
    mosaic = freeze_(model)
    assert momos.Mosaic.of(model) is mosaic
    assert state(model) == state(whole)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupted_step_leaves_a_mosaic(number, after, monkeypatch) -> None:
    model = mlp()
    bank = parametrize_(model, CONFIG, learn="weights")
    schedule = Reassign(model, total_steps=5, fixed=0.0, ramp=0.0)
    with torch.no_grad():
        for tile in bank.tiles:
            tile.latent.add_(torch.randn_like(tile.latent))
    tile = type(bank.tiles[0])
    with monkeypatch.context() as patch:
        interruption = Interruption(tile.update_, number, after)
        patch.setattr(tile, "update_", lambda *arguments: interruption(*arguments))
        with pytest.raises(KeyboardInterrupt):
            schedule.step()
    assert schedule.steps == 0
    frozen = copy.deepcopy(model)
    mosaic = freeze_(frozen)
    assert momos.Mosaic.of(frozen) is mosaic
    schedule.step()
    freeze_(model)
