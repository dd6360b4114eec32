"""An exported file computes what the mosaic computes, and holds packed indices, in any runtime."""

import warnings

import pytest
import torch
from commands import invoke
from torch import nn

pytest.importorskip("onnxscript", reason="torch.onnx needs it")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime as runtime

import momos
from momos import LatticeConfig, MosaicConfig
from momos.integrations.onnx import export

IDS = torch.arange(20).view(4, 5)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 33)
        self.conv = nn.Conv1d(33, 16, 3, padding=1)
        self.linear = nn.Linear(16, 33)
        self.head = nn.Linear(33, 50)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.embed(ids).transpose(1, 2)).transpose(1, 2)
        return self.head(self.linear(x).relu())


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx has many of its own
        yield


def mosaic(config) -> nn.Module:
    torch.manual_seed(0)
    model = Net().eval()
    if config.bits <= 8:
        momos.parametrize_(model, config)
        momos.freeze_(model)
    else:
        momos.project_(model, config)
    return model


def outputs(path, ids=IDS, **options):
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"], **options)
    return torch.from_numpy(
        session.run(None, {session.get_inputs()[0].name: ids.numpy()})[0]
    )


CONFIGS = {
    "uint4": (MosaicConfig(block_size=4, num_motifs=16, min_ndim=2), {"UINT4"}),
    "12 bits": (MosaicConfig(block_size=2, num_motifs=700, min_ndim=2), {"UINT4", "UINT8"}),
    "scales": (
        MosaicConfig.learned(block_size=4, num_motifs=64, scales="channel"),
        {"UINT8"},
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_runtime_computes_the_same(tmp_path, name):
    config, kinds = CONFIGS[name]
    model, path = mosaic(config), tmp_path / "net.onnx"
    assert export(model, (IDS,), path) == {}
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    found = {onnx.TensorProto.DataType.Name(t.data_type) for t in proto.graph.initializer}
    assert found & {"UINT4", "UINT8", "UINT16"} == kinds
    with torch.no_grad():
        wanted = model(IDS)
    assert torch.allclose(outputs(path), wanted, atol=1e-5)
    assert torch.allclose(
        outputs(path, disabled_optimizers=["ConstantFolding"]), wanted, atol=1e-5
    )


def test_a_compact_network_is_exported_for_any_batch(tmp_path):
    model, path = mosaic(CONFIGS["uint4"][0]), tmp_path / "net.onnx"
    momos.compact_(model)
    export(model, (IDS,), path, dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        assert torch.allclose(outputs(path, IDS[:1]), model(IDS[:1]), atol=1e-5)


def test_the_file_is_as_small_as_its_parts(tmp_path):
    model, path = nn.Linear(512, 512), tmp_path / "net.onnx"
    momos.project_(model, MosaicConfig(block_size=4, num_motifs=256, min_ndim=2))
    export(model, (torch.zeros(1, 512),), path)
    assert path.stat().st_size <= 1.1 * (512 * 512 / 4 + 256 * 16 + 512 * 4)


def test_tensors_too_large_for_one_file_replace_those_of_an_older_export(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("momos.integrations.onnx.LARGEST", 0)
    model, path = nn.Linear(128, 128).eval(), tmp_path / "net.onnx"
    momos.project_(model, MosaicConfig(block_size=4, num_motifs=256, min_ndim=2))
    sizes = []
    for _ in range(2):
        export(model, (torch.zeros(1, 128),), path)
        sizes.append({file.name: file.stat().st_size for file in tmp_path.iterdir()})
    assert sizes[0].keys() == {"net.onnx", "net.onnx.data"}
    assert sizes[0] == sizes[1]
    inputs = torch.randn(1, 128)
    with torch.no_grad():
        assert torch.allclose(outputs(path, inputs), model(inputs), atol=1e-5)


def test_what_stays_dense_is_named(tmp_path):
    model = nn.Linear(8, 8)
    momos.project_(model, MosaicConfig(block_size=4, num_motifs=8))
    dense = export(model, (torch.zeros(1, 8),), tmp_path / "net.onnx")
    assert dense == {"bias": "fewer than 2 dimensions"}
    with pytest.raises(ValueError, match="was never projected"):
        export(nn.Linear(2, 2), (torch.zeros(1, 2),), tmp_path / "other.onnx")


def test_the_command(tmp_path, monkeypatch):
    (tmp_path / "build.py").write_text(
        "import torch\n"
        "def network():\n"
        "    return torch.nn.Linear(64, 64), (torch.zeros(1, 64),)\n"
        "def wrong():\n"
        "    return 3\n"
    )
    model = nn.Linear(64, 64)
    momos.compress(model, tmp_path / "net.momos", LatticeConfig(step=0.3))
    momos.load_(model, tmp_path / "net.momos")
    path = tmp_path / "net.onnx"
    done = invoke(
        "export", tmp_path / "net.momos", path, "--network", f"{tmp_path}/build.py:network"
    )
    assert done.exit_code == 0, done.output
    assert "bytes, from" in done.output
    inputs = torch.randn(1, 64)
    with torch.no_grad():
        assert torch.allclose(outputs(path, inputs), model(inputs), atol=1e-5)
    done = invoke(
        "export", tmp_path / "net.momos", path, "--network", f"{tmp_path}/build.py:wrong"
    )
    assert done.exit_code == 1
    assert "must return a Module and a tuple of inputs, got int" in done.output


def test_the_command_refuses_a_file_that_it_cannot_write_before_any_work(tmp_path):
    (tmp_path / "build.py").write_text("def network():\n    raise RuntimeError('built')\n")
    source, other = tmp_path / "net.momos", tmp_path / "none" / "net.onnx"
    momos.compress(nn.Linear(8, 8), source)
    before = source.read_bytes()
    for output, code, words in (
        (source, 1, "must be written beside the files that are read"),
        (other, 3, f"{other}: No such file or directory"),
        (tmp_path, 3, "a file must be written to a file name"),
    ):
        done = invoke("export", source, output, "--network", f"{tmp_path}/build.py:network")
        assert (done.exit_code, "built" in done.output) == (code, False), done.output
        assert words in done.output
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build.py", "net.momos"]


def test_the_command_says_in_one_line_that_a_network_cannot_be_exported(tmp_path):
    (tmp_path / "build.py").write_text(
        "import torch\n"
        "def network():\n"
        "    return torch.nn.Linear(8, 8), (torch.zeros(1, 5),)\n"
    )
    source, build = tmp_path / "net.momos", f"{tmp_path}/build.py:network"
    momos.compress(nn.Linear(8, 8), source)
    done = invoke("export", source, tmp_path / "net.onnx", "--network", build)
    assert done.exit_code == 1
    assert f"momos: torch.onnx cannot export {build}: " in done.stderr
    assert done.stderr.splitlines()[-1].startswith("momos: torch.onnx cannot export")
    assert not (tmp_path / "net.onnx").exists()
