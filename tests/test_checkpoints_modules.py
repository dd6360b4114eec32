"""A Module as the source: compressed as its saved state dict would be, and never changed."""

from pathlib import Path

import pytest
import torch
from torch import nn

import momos
from momos.config import LatticeConfig
from networks import bits

COARSE = LatticeConfig(step=8)  # from which few trials are left


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(72, 30)
    )
    model[1].running_mean.normal_()
    return model


class Tied(nn.Module):
    """Two names of one weight, a buffer that is not saved, and one of several kinds."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 10, dtype=dtype)
        self.head = nn.Linear(10, 12, bias=False, dtype=dtype)
        self.head.weight = self.embed.weight
        self.out = nn.Linear(12, 9, dtype=dtype)
        self.register_buffer("mask", torch.arange(12) > 3)
        self.register_buffer("places", torch.arange(12).float(), persistent=False)


def state(model: nn.Module) -> tuple:
    """Everything of a model that compression must leave as it was."""
    held = {name: (id(t), bits(t)) for name, t in model.named_parameters()}
    held |= {name: (id(t), bits(t)) for name, t in model.named_buffers()}
    gradients = [None if p.grad is None else bits(p.grad) for p in model.parameters()]
    return (
        held,
        gradients,
        [m.training for m in model.modules()],
        bits(torch.get_rng_state()),
    )


@pytest.mark.parametrize("build", [network, Tied])
def test_it_is_what_its_saved_state_dict_becomes(tmp_path, build):
    model = build()
    before = state(model)
    torch.save(model.state_dict(), tmp_path / "x.pt")
    wanted = momos.compress(tmp_path / "x.pt", tmp_path / "a.momos")
    report = momos.compress(model, tmp_path / "b.momos")
    assert (tmp_path / "a.momos").read_bytes() == (tmp_path / "b.momos").read_bytes()
    assert report.tensors == wanted.tensors
    assert wanted.source_bytes == (tmp_path / "x.pt").stat().st_size
    assert report.source_bytes is None
    assert state(model) == before


def test_the_file_goes_back_into_the_model(tmp_path):
    model, fresh = Tied(), Tied()
    momos.compress(model, tmp_path / "x.momos")
    momos.load_(fresh, tmp_path / "x.momos")
    assert fresh.head.weight is fresh.embed.weight
    error = (fresh.embed.weight - model.embed.weight).square().mean()
    assert 0 < error < 0.01 * model.embed.weight.square().mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_of_another_dtype_is_evaluated_in_it(tmp_path, dtype):
    model = Tied(dtype)

    def evaluate(given: Tied) -> float:
        assert given.embed.weight.dtype == dtype
        assert given.head.weight is given.embed.weight
        error = (given.embed.weight - model.embed.weight).detach().double()
        return -float(error.square().mean())

    report = momos.compress(
        model, tmp_path / "x.momos", LatticeConfig(step=1), evaluate=evaluate, max_drop=0.1
    )
    assert any(trial.kept for trial in report.trials[1:])
    found = momos.load(tmp_path / "x.momos").state_dict()["embed.weight"]
    assert found.dtype == dtype


def test_the_evaluation_is_given_copies_with_the_weights_of_the_file(tmp_path):
    model = network().eval()
    model[3].train()
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    before, given = state(model), []

    def evaluate(trial: nn.Module) -> float:
        assert trial is not model
        assert [m.training for m in trial.modules()] == [
            m.training for m in model.modules()
        ]
        given.append({name: t.clone() for name, t in trial.state_dict().items()})
        trial.train()
        for tensor in (*trial.parameters(), *trial.buffers()):
            tensor.data.fill_(3)  # what is done to a copy matters to no other
        return -float(len(given) > 4)

    report = momos.compress(model, tmp_path / "x.momos", evaluate=evaluate, max_drop=0)
    assert state(model) == before
    dense = model.state_dict()
    assert all(torch.equal(tensor, dense[name]) for name, tensor in given[0].items())
    assert report.config is not None
    steps = [trial.step for trial in report.trials]
    chosen = given[steps.index(report.config["step"])]
    found = momos.load(tmp_path / "x.momos").state_dict()
    assert chosen.keys() == found.keys()
    assert all(torch.equal(chosen[name], tensor) for name, tensor in found.items())


def test_an_evaluation_that_changes_the_model_itself_changes_no_file(tmp_path):
    wanted, model = network(), network()

    def evaluate(trial: nn.Module) -> float:
        model.load_state_dict(trial.state_dict())  # of a model that the function knows
        return 1.0

    def same(trial: nn.Module) -> float:
        return 1.0

    momos.compress(model, tmp_path / "a.momos", COARSE, evaluate=evaluate, max_drop=0)
    momos.compress(wanted, tmp_path / "b.momos", COARSE, evaluate=same, max_drop=0)
    assert (tmp_path / "a.momos").read_bytes() == (tmp_path / "b.momos").read_bytes()


@pytest.mark.parametrize("error", [KeyError("fc"), KeyboardInterrupt()])
def test_an_error_leaves_the_model_as_it_was(tmp_path, error):
    model = network()
    before, calls = state(model), []

    def evaluate(trial: nn.Module) -> float:
        calls.append(trial)
        if len(calls) == 3:
            raise error
        return 1.0

    with pytest.raises(type(error)):
        momos.compress(model, tmp_path / "x.momos", evaluate=evaluate, max_drop=1)
    assert state(model) == before
    assert list(tmp_path.iterdir()) == []


def test_the_evaluation_runs_on_the_default_device_of_the_user(tmp_path):
    def evaluate(trial: nn.Module) -> float:
        assert torch.empty(1).is_meta
        return 1.0

    with torch.device("meta"):
        momos.compress(
            network_on_cpu(), tmp_path / "x.momos", evaluate=evaluate, max_drop=1
        )


def network_on_cpu() -> nn.Module:
    with torch.device("cpu"):
        return network()


def test_expanded_tensors_and_views_are_compressed(tmp_path):
    model = nn.Linear(6, 4, bias=False)
    model.weight = nn.Parameter(torch.randn(6, 4).T)
    model.register_buffer("mask", torch.tensor([[1.0], [2.0]]).expand(2, 5))
    report = momos.compress(
        model,
        tmp_path / "x.momos",
        LatticeConfig(exclude=("mask",)),
        evaluate=lambda trial: -(trial.weight - model.weight).square().sum(),
        max_drop=0.1,
    )
    found = momos.load(tmp_path / "x.momos").state_dict()
    assert (found["weight"] - model.weight).square().sum() <= 0.1
    assert torch.equal(found["mask"], model.mask)
    assert len(report.trials) > 1


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo: dict) -> nn.Module:
        raise TypeError("cannot pickle '_thread.lock' object")


def sparse() -> nn.Module:
    model = nn.Linear(3, 3)
    model.register_buffer("graph", torch.eye(3).to_sparse())
    return model


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (on_meta(), {}, "tensor 'weight' must hold values, got a meta one"),
        (
            nn.LazyLinear(3),
            {},
            "tensor 'weight' must hold values, got an uninitialised one",
        ),
        (nn.ReLU(), {}, "at least one floating tensor must be chosen"),
        (sparse(), {}, r"'graph' of Linear must hold plain values, but is sparse"),
        (network(), {"key": "ema"}, "what torch.save writes only, got 'ema' for a Module"),
        (
            Uncopyable(3, 3),
            {"evaluate": len, "max_drop": 1},
            "must allow copy.deepcopy to be evaluated, but Uncopyable does not: cannot pickle",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_models_that_cannot_be_compressed_are_refused(tmp_path, model, options, message):
    with pytest.raises(ValueError, match=message):
        momos.compress(model, tmp_path / "x.momos", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_motifs_are_learned_is_refused(tmp_path):
    model = network()
    momos.parametrize_(model, momos.MosaicConfig.learned(num_motifs=4))
    with pytest.raises(ValueError, match="must not be learned any more"):
        momos.compress(model, tmp_path / "x.momos")


def test_a_sparse_buffer_can_be_left_out(tmp_path):
    model = sparse()
    config = LatticeConfig(step=16, exclude=("graph",))
    report = momos.compress(
        model, tmp_path / "x.momos", config, evaluate=lambda trial: 1.0, max_drop=1
    )
    assert list(report.left_out) == ["graph"]


def test_other_sources_are_refused(tmp_path: Path):
    with pytest.raises(
        TypeError, match="source must be a path or a Module, got OrderedDict"
    ):
        momos.compress(network().state_dict(), tmp_path / "x.momos")  # pyright: ignore[reportArgumentType]


def test_an_expanded_buffer_is_evaluated_with_its_rounded_values(tmp_path):
    model = nn.Sequential(nn.Linear(9, 8))
    place = torch.randn(1, 8, generator=torch.Generator().manual_seed(3))
    model.register_buffer("place", place.expand(4, 8))
    seen = []

    def evaluate(given: nn.Module) -> float:
        seen.append(given.get_buffer("place").clone())
        return 0.0

    momos.compress(model, tmp_path / "x.momos", COARSE, evaluate=evaluate, max_drop=0)
    assert torch.equal(seen[0], model.get_buffer("place"))
    assert torch.equal(seen[-1], momos.load(tmp_path / "x.momos").state_dict()["place"])
    assert not torch.equal(seen[0], seen[-1])


@pytest.mark.parametrize("shape", [(70, 300, 20), (3, 100_003)])
def test_transposed_weights_are_read_as_contiguous_ones_are(tmp_path, shape):
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    files = []
    for number, stored in enumerate((weights, weights.mT.contiguous().mT)):
        model = nn.ParameterDict({"w": nn.Parameter(stored)})
        momos.compress(model, tmp_path / f"{number}.momos")
        files.append((tmp_path / f"{number}.momos").read_bytes())
    assert files[0] == files[1]


def test_the_config_of_a_compressed_file_finds_no_motifs_and_says_what_to_do(tmp_path):
    model = nn.Sequential(nn.Linear(9, 8))
    momos.compress(model, tmp_path / "x.momos")
    loaded = momos.load(tmp_path / "x.momos")
    other = nn.Sequential(nn.Linear(9, 8))
    other.load_state_dict(loaded.state_dict())
    for call in (
        lambda: momos.Mosaic.of(other, loaded.mosaic.config),
        lambda: momos.save(other, tmp_path / "y.momos", config=loaded.mosaic.config),
    ):
        with pytest.raises(ValueError, match=r"got a LatticeConfig \(momos\.load_"):
            call()
    momos.load_(other, tmp_path / "x.momos")
    momos.save(other, tmp_path / "y.momos")
    assert momos.load(tmp_path / "y.momos").mosaic.config == loaded.mosaic.config
    again = momos.load(tmp_path / "y.momos").state_dict()
    assert all(
        torch.equal(value, again[name]) for name, value in loaded.state_dict().items()
    )


@pytest.mark.parametrize("config", [{"step": 1}, "x", 0.1, LatticeConfig])
def test_a_config_of_another_kind_is_refused(tmp_path, config):
    with pytest.raises(TypeError, match="config must be a MosaicConfig or a LatticeConfig"):
        momos.compress(network(), tmp_path / "x.momos", config)


@pytest.mark.parametrize("options", [{}, {"target_factor": 8}])
def test_a_path_that_cannot_be_written_is_refused_before_any_work(tmp_path, options):
    done = []
    with pytest.raises(FileNotFoundError):
        momos.compress(
            network(),
            tmp_path / "none" / "x.momos",
            progress=lambda doing, now, total: done.append(doing),
            **options,
        )
    assert done == []
