"""Parameters are chosen by name, and refused where they are not whole weights of the network."""

import re
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Literal

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import momos
from momos import MosaicConfig, project_
from momos.calibration.tracing import undisturbed
from momos.parameters import check_whole_tensors

CONFIG = MosaicConfig(num_motifs=4)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4))


# Shards


@pytest.fixture(scope="module")
def processes() -> Iterator[None]:
    """Two processes, as far as this one can tell: the other is made up."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


def flat(*, use_orig_params: bool) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(
        network(), device_id=torch.device("cpu"), use_orig_params=use_orig_params
    )


def fully_sharded() -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(network(), mesh=init_device_mesh("cpu", (2,)))


def distributed() -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    model = network()
    mesh = init_device_mesh("cpu", (2,))
    model[1].weight = nn.Parameter(distribute_tensor(model[1].weight.detach(), mesh))
    return model


FLAT = (
    r"tensor '(0\.weight|_fsdp_wrapped_module\._flat_param)' must be whole, but "
    r"FullyShardedDataParallel has sharded it \(do this inside .*summon_full_params\)"
)
SHARDED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "flat": (lambda: flat(use_orig_params=False), FLAT),
    "flat, with the parameters seen": (lambda: flat(use_orig_params=True), FLAT),
    "inside": (
        lambda: flat(use_orig_params=True).module,
        r"tensor '0\.weight' must be whole, but FullyShardedDataParallel has sharded it",
    ),
    "by parameter": (
        fully_sharded,
        r"tensor '0\.weight' must be whole, but fully_shard has sharded it \(gather it first",
    ),
    "one DTensor": (
        distributed,
        r"tensor '1\.weight' must be whole, but it is a DTensor on 2 processes \(gather it",
    ),
}
ENTRIES: dict[str, Callable[[nn.Module], object]] = {
    "project_": lambda model: project_(model, CONFIG),
    "project_ what is left": lambda model: project_(
        model, MosaicConfig(num_motifs=4, include=("*.bias",))
    ),
    "Projector": lambda model: momos.Projector(model, CONFIG).step(),
    "parametrize_": lambda model: momos.parametrize_(model, CONFIG, learn="weights"),
    "Mosaic.of": lambda model: momos.Mosaic.of(model, CONFIG),
    "write_": lambda model: project_(network(), CONFIG).mosaic.write_(model),
    "save": lambda model: momos.save(model, "never.momos"),
    "measure": momos.measure,
    "sensitivities": lambda model: momos.sensitivities(model, [], lambda _: torch.zeros(())),
    "fold_scales_": lambda model: momos.fold_scales_(model, torch.zeros(1, 6)),
}  # fmt: skip
WHOLE = (
    "parametrize_",
    "write_",
    "sensitivities",
    "fold_scales_",
)  # DTensors are refused by


@pytest.mark.parametrize("kind", SHARDED)
def test_shards_are_refused_wherever_parameters_are_read(kind, processes, path):
    build, message = SHARDED[kind]
    model = build()
    before = [_local(tensor) for tensor in model.parameters()]
    entries = ENTRIES | {"load_": lambda model: momos.load_(model, path)}
    if "DTensor" in message or "fully_shard" in message:
        entries = {name: entries[name] for name in WHOLE}
    other = network()
    project_(other, CONFIG)
    momos.save(other, path)
    for enter in entries.values():
        with pytest.raises(ValueError, match=message):
            enter(model)
    for tensor, kept in zip(model.parameters(), before, strict=True):
        assert torch.equal(_local(tensor), kept)


def _local(tensor: Tensor) -> Tensor:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.detach().clone()


@pytest.mark.parametrize("use_orig_params", [True, False])
def test_what_is_gathered_is_taken(use_orig_params, processes):
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = flat(use_orig_params=use_orig_params)
    with FullyShardedDataParallel.summon_full_params(model):
        check_whole_tensors(model)
        check_whole_tensors(model.module)
        shapes = [place.shape for place in project_(model, CONFIG).mosaic.layout.placements]
    assert shapes == [(8, 6), (8,), (4, 8), (4,)]


def test_a_state_dict_of_shards_is_not_measured(processes):
    with pytest.raises(
        ValueError, match=r"tensor '1\.weight' must be whole, but it is a DTe"
    ):
        momos.measure(dict(distributed().named_parameters()))


# Weights that are computed


def pruned() -> nn.Module:
    return prune.random_unstructured(nn.Linear(6, 8), "weight", amount=0.5)


def old(norm: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return norm(nn.Linear(6, 8))

    return build


COMPUTED = {
    "weight norm": (
        lambda: parametrizations.weight_norm(nn.Linear(6, 8)),
        ("original0", r"torch\.nn\.utils\.parametrize\.remove_parametrizations"),
    ),
    "spectral norm": (
        lambda: parametrizations.spectral_norm(nn.Linear(6, 8)),
        ("original", r"torch\.nn\.utils\.parametrize\.remove_parametrizations"),
    ),
    "old weight norm": (
        old(nn.utils.weight_norm),
        ("weight_g", r"torch\.nn\.utils\.remove_weight_norm"),
    ),
    "old spectral norm": (
        old(nn.utils.spectral_norm),
        ("weight_orig", r"torch\.nn\.utils\.remove_spectral_norm"),
    ),
    "pruned": (pruned, ("weight_orig", r"torch\.nn\.utils\.prune\.remove")),
    "learned": (
        lambda: _learning(nn.Linear(6, 8), "weights"),
        ("original", r"momos\.freeze_"),
    ),
    "learned by gradient": (
        lambda: _learning(nn.Linear(6, 8), "motifs"),
        ("motifs", r"momos\.freeze_"),
    ),
}


def _learning(model: nn.Module, learn: Literal["motifs", "weights"]) -> nn.Module:
    momos.parametrize_(model, CONFIG, learn=learn)
    return model


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("depth", [0, 1])
def test_what_a_weight_is_computed_from_is_not_projected(kind, depth):
    build, (name, remedy) = COMPUTED[kind]
    model = build() if depth == 0 else nn.Sequential(nn.Linear(4, 6), build())
    prefix = "1." if depth else ""
    before = deepcopy([p.detach() for p in model.parameters()])
    where = re.escape(prefix)
    used = "every learned weight" if name == "motifs" else f"'{where}weight'"
    message = (
        rf"parameter '{where}.*{name}' must be a weight that the network uses, not what {used} "
        rf"is computed from \({remedy} ends that; or leave it dense, with exclude="
    )
    with pytest.raises(ValueError, match=message) as error:
        project_(model, CONFIG)
    for parameter, kept in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, kept)
    with pytest.raises(ValueError, match="never projected"):
        momos.Mosaic.of(model)
    if "learned" in kind:
        return
    with pytest.raises(ValueError, match=r"exclude it to leave it dense|not what"):
        momos.parametrize_(model, MosaicConfig(num_motifs=4, min_ndim=1), learn="weights")
    # the advice: what it says to exclude is enough
    exclude = str(error.value).partition("exclude=('")[2].partition("'")[0]
    project_(model, MosaicConfig(num_motifs=4, exclude=(exclude,)))
    kept = dict(zip([n for n, _ in model.named_parameters()], before, strict=True))
    dense = {n: p for n, p in model.named_parameters() if name[:-1] in n}
    assert dense
    for own, parameter in dense.items():
        assert torch.equal(parameter, kept[own])


def test_a_weight_named_like_an_original_is_an_ordinary_one():
    model = nn.Module()
    model.weight_orig = nn.Parameter(torch.randn(6))
    model.parametrizations = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(2, 2)})})
    names = [place.name for place in project_(model, CONFIG).mosaic.layout.placements]
    assert names == [
        "weight_orig",
        "parametrizations.a.b.weight",
        "parametrizations.a.b.bias",
    ]


def test_nothing_is_run_of_a_model_that_is_not_whole(processes):
    with pytest.raises(ValueError, match="must be whole"), undisturbed(fully_sharded()):
        raise AssertionError("a sharded model was run")
