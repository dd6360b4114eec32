"""What a file means is what docs/format.md says: two readers find the same bytes in it.

The second (reader.py) was written from that page alone.
"""

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import reader
import torch
from files.make import (
    GOLDEN,
    GOLDEN_2,
    OF_VERSION_2,
    Everything,
    channels,
    described,
    everything,
    learned,
)
from mutants import raw
from safetensors import safe_open
from torch import Tensor, nn

import momos
from momos import Layout, Mosaic, MosaicConfig, project_

EXPECTED = {
    f"{folder.name}/{name}": tensors
    for folder in (GOLDEN, GOLDEN_2)
    for name, tensors in json.loads((folder / "expected.json").read_text()).items()
}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.uint16, torch.uint32, torch.uint64]
INTEGERS += [torch.int8, torch.int16, torch.int32, torch.int64]
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz]
FLOAT8 += [torch.float8_e5m2fnuz, torch.float8_e8m0fnu]
COMPLEX = [torch.complex64, torch.complex128]


def named(model: nn.Module) -> dict[str, Tensor]:
    found = dict(model.named_parameters(remove_duplicate=False))
    return found | dict(model.named_buffers(remove_duplicate=False))


def check(network: nn.Module | Mosaic | momos.Checkpoint, path: Path) -> reader.Tensors:
    """That both readers find the values of `network` in its file; returns them."""
    report = momos.save(network, path)
    found, loaded = reader.read(path), momos.load(path).tensors()
    with momos.MosaicFile(path) as file:
        file.verify()
        alone = {name: file.tensor(name) for name in file.names}
    wanted = named(network) if isinstance(network, nn.Module) else loaded
    assert list(found) == list(loaded) == list(alone)
    assert found.keys() == wanted.keys() == {tensor.name for tensor in report.tensors}
    for name, (dtype, shape, data) in found.items():
        for tensor in (wanted[name], loaded[name], alone[name]):
            assert str(tensor.dtype) == f"torch.{dtype}"
            assert tuple(tensor.shape) == shape
            assert raw(tensor) == data
    return found


def linear(dtype: torch.dtype = torch.float32, *, sizes: tuple[int, ...] = (6, 20, 3)):
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return nn.Sequential(*layers).to(dtype)


def projected(model: nn.Module, **settings) -> nn.Module:
    chosen = {"block_size": 4, "num_motifs": 16, "selection": "kmeans"} | settings
    project_(model, MosaicConfig(**chosen))
    return model


def of_motifs(
    motifs: Tensor,
    dtypes: list[torch.dtype],
    *,
    weights: int = 50,
    scales: Literal["none", "tensor", "channel"] = "none",
    channel: int = 1,
) -> Mosaic:
    """A mosaic of these motifs, drawn at random, in parameters of these dtypes.

    Each has `weights` channels (the next one more, and so on) of `channel` weights.
    """
    shapes = [(weights + i, channel) for i in range(len(dtypes))]
    model = nn.ParameterDict(
        {
            f"p{i}": torch.zeros(shape, dtype=dtype)
            for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
        }
    )
    layout = Layout.of(model, block_size=motifs.shape[1])
    draw = torch.Generator().manual_seed(0)
    indices = torch.randint(len(motifs), (layout.num_blocks,), generator=draw)
    counts = [shape[0] if scales == "channel" else 1 for shape in shapes]
    factors = tuple(torch.rand(n, generator=draw) * 3 + 0.01 for n in counts)
    return Mosaic(motifs, indices, layout, None if scales == "none" else factors)


def whole(k: int, s: int) -> Tensor:
    draw = torch.Generator().manual_seed(k)
    motifs = torch.randint(-128, 128, (k, s), generator=draw, dtype=torch.int8)
    return torch.cat(
        [torch.tensor([[-128], [127], [0]], dtype=torch.int8).expand(-1, s), motifs]
    )


def random(k: int, s: int, dtype: torch.dtype = torch.float32) -> Tensor:
    draw = torch.Generator().manual_seed(k)
    return torch.randn(k, s, generator=draw, dtype=torch.float64).to(dtype)


def wide() -> Tensor:
    """Motifs of all magnitudes that float32 has."""
    return random(99, 3) * 10.0 ** (torch.arange(99)[:, None] * 0.8 - 42)


def batchnorm() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1))
    model(torch.randn(4, 3, 7, 7))
    return model


def tied() -> nn.Module:
    model = linear(sizes=(8, 8, 8))
    model[1].weight = model[0].weight
    return model


def frozen() -> nn.Module:
    model = linear()
    model[0].requires_grad_(False)
    return model


def buffered(*buffers: Tensor) -> nn.Module:
    model = linear()
    for i, buffer in enumerate(buffers):
        model.register_buffer(f"b{i}", buffer, persistent=i % 3 != 2)
    return model


def counted(dtype: torch.dtype) -> Tensor:
    """Every pattern of bits that a byte can hold, as that dtype."""
    return torch.arange(256, dtype=torch.uint8).repeat(dtype.itemsize).view(dtype)


def empties() -> nn.Module:
    model = buffered(torch.zeros(0), torch.zeros(3, 0, dtype=torch.int32), torch.tensor([]))
    model.nothing = nn.Parameter(torch.zeros(0, 5))
    return model


def ordered(weights: int, **settings) -> nn.Module:
    """Sorted weights: the motif of a block tells that of the next."""
    model = nn.ParameterDict({"a": torch.linspace(-2, 2, weights).reshape(-1, 2)})
    return projected(model, **settings)


NETWORKS: dict[str, Callable[[], nn.Module | Mosaic]] = {
    **{str(dtype): lambda dtype=dtype: projected(linear(dtype)) for dtype in DTYPES},
    "four dtypes at once": lambda: of_motifs(random(9, 3), DTYPES),
    "float16 motifs": lambda: of_motifs(random(9, 3, torch.float16), DTYPES),
    "bfloat16 motifs": lambda: of_motifs(random(9, 3, torch.bfloat16), DTYPES),
    "float64 motifs": lambda: of_motifs(random(9, 3, torch.float64), DTYPES),
    "one motif": lambda: projected(linear(), num_motifs=1, zero_motif=False),
    "two motifs": lambda: projected(linear(), num_motifs=2),
    "16-bit indices": lambda: projected(linear(sizes=(30, 50, 4)), num_motifs=300),
    "as many motifs as blocks": lambda: of_motifs(random(500, 1), DTYPES, weights=125),
    "unused motifs": lambda: of_motifs(random(3000, 2), DTYPES[2:3]),
    "huge blocks": lambda: projected(linear(), block_size=1000, num_motifs=3),
    "blocks of one": lambda: projected(linear(), block_size=1),
    "BatchNorm": lambda: projected(batchnorm()),
    "tied": lambda: projected(tied()),
    "excluded": lambda: projected(linear(), exclude=("*bias",)),
    "frozen": lambda: projected(frozen()),
    "scales": lambda: of_motifs(random(20, 3), DTYPES, scales="tensor"),
    "scales of float16 motifs": lambda: of_motifs(
        random(20, 3, torch.float16), DTYPES, scales="tensor"
    ),
    "scales of float64 motifs": lambda: of_motifs(
        random(20, 3, torch.float64), DTYPES, scales="tensor"
    ),
    "a scale for each weight": lambda: of_motifs(random(20, 3), DTYPES, scales="channel"),
    "blocks in several channels": lambda: of_motifs(
        random(20, 7), DTYPES, weights=13, scales="channel", channel=5
    ),
    "channels of many blocks": lambda: of_motifs(
        random(20, 3, torch.float64), DTYPES, weights=3, scales="channel", channel=100
    ),
    "whole motifs": lambda: of_motifs(whole(20, 3), DTYPES, scales="tensor"),
    "whole motifs, scaled by channel": lambda: of_motifs(
        whole(20, 4), DTYPES, weights=9, scales="channel", channel=6
    ),
    "tiny and huge motifs": lambda: of_motifs(wide(), DTYPES, weights=900),
    "tiny and huge motifs, scaled": lambda: of_motifs(
        wide(), DTYPES, weights=900, scales="tensor"
    ),
    "bool": lambda: projected(buffered(torch.arange(99) % 3 == 0, torch.tensor(True))),
    "integers": lambda: projected(buffered(*map(counted, INTEGERS))),
    "float8": lambda: projected(buffered(*map(counted, FLOAT8))),
    "complex": lambda: projected(buffered(*map(counted, COMPLEX))),
    "floats of all bits": lambda: projected(buffered(*map(counted, DTYPES))),
    "empty tensors": lambda: projected(empties()),
    "nothing": nn.Sequential,
    "nothing to train": lambda: linear().requires_grad_(False),
    "learned streams": learned,
    "learned at length": lambda: ordered(80_000, block_size=2, num_motifs=64),
    "everything": everything,
    "channels": channels,
    "a dense tensor of two packs": lambda: buffered(
        torch.arange(2**20 + 3, dtype=torch.int16)
    ).requires_grad_(False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_both_readers_find_the_bytes_that_were_saved(name, tmp_path):
    check(NETWORKS[name](), tmp_path / "network.momos")


def test_more_blocks_than_a_stream_holds_are_cut_into_streams(tmp_path):
    model = nn.ParameterDict({"a": torch.zeros(2**20 + 70), "b": torch.zeros(5)})
    layout = Layout.of(model, block_size=1)
    indices = torch.arange(layout.num_blocks) // 3 % 5
    mosaic = Mosaic(random(5, 1), indices, layout)
    check(mosaic, tmp_path / "network.momos")
    with momos.MosaicFile(tmp_path / "network.momos") as file:
        assert [len(record.streams) for record in file.manifest.records] == [2, 1]


def test_streams_learn_where_there_is_something_to_learn(tmp_path):
    momos.save(learned(), tmp_path / "network.momos")
    with momos.MosaicFile(tmp_path / "network.momos") as file:
        assert any(rate for record in file.manifest.records for rate, _ in record.streams)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_motifs_of_float64_are_rounded_by_way_of_float32(dtype, tmp_path):
    """Where that is not the nearest."""
    half = torch.finfo(dtype).eps / 2
    motifs = torch.tensor(
        [[1 + half + 2**-40], [1 + 3 * half - 2**-40]], dtype=torch.float64
    )
    check(of_motifs(motifs, [dtype]), tmp_path / "network.momos")


def test_a_checkpoint_saved_again_holds_the_same(tmp_path):
    first = check(everything(), tmp_path / "first.momos")
    checkpoint = momos.load(tmp_path / "first.momos")
    assert check(checkpoint, tmp_path / "second.momos") == first
    assert (tmp_path / "first.momos").read_bytes() == (
        tmp_path / "second.momos"
    ).read_bytes()


def test_safetensors_opens_the_file(tmp_path):
    report = momos.save(everything(), tmp_path / "network.momos")
    with safe_open(tmp_path / "network.momos", framework="pt") as file:
        assert list(file.keys()) == ["momos"]
        assert file.metadata() == {"momos": "2"}
        (length,) = file.get_slice("momos").get_shape()
    assert length == report.num_bytes - report.sections["header"] + 24


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_files_are_read_for_ever(name):
    path = GOLDEN.parent / f"{name}.momos"
    tensors = momos.load(path).tensors()
    assert {key: described(tensor) for key, tensor in tensors.items()} == EXPECTED[name]
    found = {
        key: {"dtype": dtype, "shape": [*shape], "sha256": hashlib.sha256(data).hexdigest()}
        for key, (dtype, shape, data) in reader.read(path).items()
    }
    assert found == EXPECTED[name]


def test_there_is_a_golden_file_for_each_that_is_expected():
    found = (path.relative_to(GOLDEN.parent) for path in GOLDEN.parent.glob("*/*.momos"))
    assert sorted(EXPECTED) == sorted(str(path.with_suffix("")) for path in found)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_golden_file_is_loaded_into_its_model(version):
    model = Everything()
    momos.load_(model, GOLDEN.parent / version / "everything.momos")
    found = {name: described(tensor) for name, tensor in named(model).items()}
    assert found == EXPECTED[f"{version}/everything"]


def test_what_is_written_is_what_the_golden_files_of_its_version_are(tmp_path):
    """Else the format has changed, or a file got longer."""
    for name, make in OF_VERSION_2.items():
        momos.save(make(), tmp_path / "x.momos")
        golden = (GOLDEN_2 / f"{name}.momos").read_bytes()
        assert len((tmp_path / "x.momos").read_bytes()) <= len(golden), name


@pytest.mark.parametrize("name", ["v1/everything", "v1/learned", "v2/whole", "v2/scalar"])
def test_a_golden_file_saved_again_holds_the_same(name, tmp_path):
    checkpoint = momos.load(GOLDEN.parent / f"{name}.momos")
    found = check(checkpoint, tmp_path / "again.momos")
    assert {
        key: {"dtype": dtype, "shape": [*shape], "sha256": hashlib.sha256(data).hexdigest()}
        for key, (dtype, shape, data) in found.items()
    } == EXPECTED[name]


def test_blocks_are_coded_by_value_where_that_is_shorter(tmp_path):
    found = {}
    for name in ("whole", "scalar", "ordered"):
        with momos.MosaicFile(GOLDEN_2 / f"{name}.momos") as file:
            found[name] = file.bank.states, file.bank.ordered
    assert found == {"whole": (8, True), "scalar": (1, True), "ordered": (0, True)}
