"""Work on files and on weights of the CPU stays there, whatever torch's default device is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import momos
from momos import MosaicConfig
from momos.vq.gather import gather

SETTINGS = [
    MosaicConfig(num_motifs=9),
    MosaicConfig(block_size=3, capacity=0.3, selection="distinct"),
    MosaicConfig(block_size=8, num_motifs=9, selection="kmeans", zero_motif=False),
]
MEASURES = ("signs, order 4", "signs, ordered BDM", "2-bit codes", "float fields")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 64), nn.BatchNorm1d(64), nn.Linear(64, 3).half())


def state(tensors: dict[str, Tensor]) -> dict[str, list]:
    assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}
    return {name: [tensor.dtype, tensor.tolist()] for name, tensor in tensors.items()}


def of_model(config: MosaicConfig, model: nn.Module, folder: Path) -> list:
    """Everything that is done with a model, and what comes of it."""
    path = folder / "net.momos"
    projection = momos.project_(model, config)
    report = momos.save(model, path)
    momos.load_(model, path)
    loaded = momos.load(path)
    del model.__dict__["_momos_mosaic"]
    found = momos.Mosaic.of(model, config)
    momos.expand(path, folder / "back.safetensors")
    lengths = momos.description_length(projection.mosaic)
    rows = momos.measure(model, measures=MEASURES, controls=2).rows
    return [
        projection.distortion,
        projection.mosaic.usage().tolist(),
        state(model.state_dict()),
        state(loaded.state_dict()),
        state(loaded.mosaic.dense()),
        found.indices.tolist(),
        (path.read_bytes(), (folder / "back.safetensors").read_bytes()),
        (report, momos.inspect(path), lengths),
        [(row.name, row.value, row.control) for row in rows],
    ]


@pytest.mark.parametrize("config", SETTINGS)
def test_a_model_is_projected_saved_and_measured_on_the_cpu(config, tmp_path):
    assert same(lambda model: of_model(config, model, tmp_path))


def same(work: Callable[[nn.Module], object]) -> bool:
    """Whether `work` gives the same where tensors are on the meta device by default."""
    expected, model = work(network()), network()
    with torch.device("meta"):
        return work(model) == expected


@pytest.mark.parametrize(
    ("suffix", "config"),
    [
        ("pt", SETTINGS[0]),
        ("pt", MosaicConfig.learned(num_motifs=9, scales="channel")),
        ("safetensors", SETTINGS[2]),
        ("safetensors", MosaicConfig.learned(num_motifs=9)),
    ],
)
def test_a_checkpoint_is_compressed_on_the_cpu(suffix, config, tmp_path):
    source = tmp_path / f"source.{suffix}"
    if suffix == "pt":
        torch.save(network().state_dict(), source)
    else:
        pytest.importorskip("safetensors.torch").save_file(network().state_dict(), source)

    def work(_: nn.Module) -> object:
        path = tmp_path / "net.momos"
        momos.compress(source, path, config)
        rows = momos.measure(source, measures=MEASURES, controls=2).rows
        found = state(momos.load(path).state_dict())
        return (
            path.read_bytes(),
            found,
            [(row.name, row.value, row.control) for row in rows],
        )

    assert same(work)


def test_blocks_find_their_motifs_on_the_cpu():
    blocks, motifs = torch.randn(999, 4), torch.randn(50, 4)

    def work(_: nn.Module) -> object:
        indices = momos.nearest(blocks, motifs)
        gathered = gather(motifs, indices)
        return indices.tolist(), gathered.tolist()

    assert same(work)
    for choose in (momos.sample_motifs, momos.distinct_motifs, momos.kmeans_motifs):

        def chosen(_: nn.Module, choose: Callable = choose) -> list:
            return choose(blocks, 9, generator=torch.Generator().manual_seed(0)).tolist()

        assert same(chosen)
