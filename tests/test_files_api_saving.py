"""What cannot be saved is refused by name, and an old file stays whole."""

import os
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import momos
from momos import Mosaic
from momos.codec import PACK_VALUES
from momos.files import api, writer
from momos.files.api import save_contents
from momos.files.contents import Contents
from momos.files.manifest import Record
from networks import assert_returns, network, projected


def refused(model: object, path: Path, error: type[Exception], message: str) -> None:
    """That an old file stays whole, and no other is left behind."""
    path.write_bytes(b"the old file")
    with pytest.raises(error, match=message):
        momos.save(model, path)
    assert path.read_bytes() == b"the old file"
    assert os.listdir(path.parent) == [path.name]


def test_a_model_that_was_never_projected_is_refused(path):
    refused(network(), path, ValueError, "Sequential was never projected")


def test_a_model_that_changed_since_it_was_projected_is_refused(path):
    """One motif more than there may be; the paper's sample may leave room for one."""
    model = projected(selection="distinct")
    with torch.no_grad():
        model[2].bias[1] += 1e-3
    refused(model, path, ValueError, r"'2\.bias' differs from its motifs in 1 weights")


@pytest.mark.parametrize("other", [{}, None, "a.momos", torch.zeros(2), [], nn.Linear])
def test_what_is_no_network_is_refused(other, path):
    refused(
        other, path, TypeError,
        f"a Module, a Mosaic or a Checkpoint can be saved, got {type(other).__name__}",
    )  # fmt: skip


def quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.qint8)


UNORDINARY = {
    "meta": (lambda: torch.zeros(3, device="meta"), "must hold values"),
    "lazy": (nn.UninitializedBuffer, "must hold values"),
    "sparse": (lambda: torch.eye(3).to_sparse(), r"must be strided, got torch\.sparse_coo"),
    "rows": (
        lambda: torch.eye(3).to_sparse_csr(),
        r"must be strided, got torch\.sparse_csr",
    ),
    "quantized": (quantized, r"must .* got torch\.qint8"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "must"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize(("make", "message"), UNORDINARY.values(), ids=UNORDINARY)
def test_a_tensor_that_is_not_ordinary_is_refused_by_its_name(make, message, path):
    model = projected()
    model[1].register_buffer("odd", make())
    refused(model, path, ValueError, rf"'1\.odd' {message}")


def test_a_parameter_on_meta_is_refused_by_its_name(path):
    refused(projected().to("meta"), path, ValueError, r"'0\.weight' must hold values")


def test_a_module_with_extra_state_is_refused(path):
    class Extra(nn.Linear):
        def get_extra_state(self) -> int:
            return 1

    model = projected(lambda: nn.Sequential(Extra(3, 3)))
    refused(model, path, ValueError, "0._extra_state")


def test_a_module_whose_state_is_more_than_its_tensors_is_refused(path):
    class More(nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "more"] = torch.ones(2)

    model = projected(lambda: nn.Sequential(More(3, 3)))
    assert "0.more" in model.state_dict()
    refused(model, path, ValueError, r"0\.more")


@pytest.mark.parametrize("name", ["\udc80", "no\ud800"])
def test_a_name_that_no_file_can_hold_is_refused(name, path):
    model = projected()
    model.register_buffer(name, torch.ones(2))
    refused(model, path, ValueError, "UTF-8")


def test_a_shape_that_no_file_can_hold_is_refused(path):
    model = projected()
    model.register_buffer("deep", torch.ones([1] * 65))
    refused(model, path, ValueError, "'deep'")


@pytest.mark.parametrize(
    "name", ["ä", "重み", "a b", "quote\"'\\", "\x00\n", "😀", "__metadata__"]
)
def test_any_other_name_is_kept(name, path):
    def build() -> nn.Module:
        model = network()
        model.register_buffer(name, torch.rand(2))
        return model

    assert_returns(projected(build), build, path)


@pytest.mark.parametrize("capacity", [np.float32(0.5), np.float64(0.5), 0.5, 1])
def test_the_config_may_hold_any_number(capacity, path):
    model = projected(num_motifs=None, capacity=capacity)
    momos.save(model, path)
    assert momos.load(path).mosaic.config == Mosaic.of(model).config


# Values that change while they are saved


def changing(folder: Path, records: tuple[Record, ...], mosaic: Mosaic | None) -> Path:
    """A file of dense tensors that are other ones whenever they are read."""
    count = iter(range(1, 1_000_000))

    def read(name: str, start: int, stop: int) -> Tensor:
        dtype = {record.name: record.dtype for record in records}[name]
        return torch.full((stop - start,), next(count) % 100).to(dtype)

    path = folder / "x.momos"
    save_contents(Contents(records, mosaic, read), path)
    return path


def test_a_file_whose_values_change_between_reads_is_readable(tmp_path):
    mosaic = Mosaic.of(projected())
    blocks = Contents.of_mosaic(mosaic).records
    long = PACK_VALUES + 7  # so that packs are shared and cut
    dense = (
        Record("a", "dense", (long,), torch.int16),
        Record("b", "dense", (5,), torch.float32),
        Record("c", "dense", (2, long), torch.uint8),
        Record("d", "dense", (0,), torch.float64),
        Record("e", "dense", (3,), torch.int16),
        Record("f", "dense", (4,), torch.bool),
        Record("g", "dense", (), torch.float32),
        Record("h", "same", same_as="a"),
    )
    records = (*dense[:3], *blocks[:1], *dense[3:], *blocks[1:])
    path = changing(tmp_path, records, mosaic)
    with momos.MosaicFile(path) as file:
        file.verify()
        assert [dtype for dtype, _ in file.manifest.dense] == [
            *(torch.int16, torch.float32, torch.uint8, torch.float64, torch.bool)
        ]
    found = momos.load(path).tensors()
    assert found["a"].unique_consecutive().tolist() == [1, 2]
    assert found["b"].tolist() == [3] * 5
    assert found["h"].shape == (long,)
    assert all(torch.equal(found[name], tensor) for name, tensor in mosaic.dense().items())


def test_values_wait_on_disk_as_in_memory(tmp_path, monkeypatch):
    model = projected()
    for number, dtype in enumerate((torch.int32, torch.float16, torch.int8)):
        model.register_buffer(f"b{number}", torch.arange(100).to(dtype))
    momos.save(model, tmp_path / "memory.momos")
    monkeypatch.setattr(writer, "MOST_WAITING", 1)
    momos.save(model, tmp_path / "disk.momos")
    assert (tmp_path / "memory.momos").read_bytes() == (
        tmp_path / "disk.momos"
    ).read_bytes()
    assert len(os.listdir(tmp_path)) == 2


def test_weights_that_train_in_another_thread_are_saved_readable(path):
    model = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64))
    momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=8))
    done = threading.Event()

    def forward() -> None:
        while not done.is_set():
            model(torch.randn(16, 8))

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        for _ in range(15):
            momos.save(model, path)
            momos.load(path)
    finally:
        done.set()
        thread.join()
    assert momos.load(path).tensors()["1.num_batches_tracked"] > 0


@pytest.mark.parametrize(
    "values", [torch.zeros(2), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 2).long()]
)
def test_values_of_another_number_or_dtype_are_refused(values, path):
    contents = Contents((Record("a", "dense", (2,), torch.int64),), None, lambda *_: values)
    path.write_bytes(b"the old file")
    with pytest.raises(
        ValueError, match=r"'a' must give 2 values of torch\.int64, got torch"
    ):
        save_contents(contents, path)
    assert path.read_bytes() == b"the old file"


def test_a_report_that_fails_leaves_the_old_file(path, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError("stop")

    momos.save(projected(), path)
    before = path.read_bytes()
    monkeypatch.setattr(api, "report_on", fail)
    with pytest.raises(MemoryError):
        momos.save(projected(seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


# Bools


def odd() -> Tensor:
    """Bools as no file may hold them: true ones that are not 1."""
    return torch.tensor([2, 255, 0, 1, 128], dtype=torch.uint8).view(torch.bool)


def assert_plain(found: Tensor) -> None:
    assert found.dtype == torch.bool
    assert found.view(torch.uint8).tolist() == [1, 1, 0, 1, 1]


def test_bools_of_a_model_are_saved_as_0_and_1(path):
    model = projected()
    model.register_buffer("mask", odd())
    model.register_buffer("square", torch.stack([odd(), odd()]).T)
    momos.save(model, path)
    found = momos.load(path)
    assert_plain(found.dense["mask"])
    assert_plain(found.dense["square"][:, 1].contiguous())
    momos.load_(model, path)
    assert_plain(model.get_buffer("mask"))


def test_bools_of_a_checkpoint_are_saved_as_0_and_1(path):
    model = projected()
    model.register_buffer("mask", torch.tensor([True] * 5))
    momos.save(model, path)
    checkpoint = momos.load(path)
    checkpoint.dense["mask"] = odd()
    momos.save(checkpoint, path)
    assert_plain(momos.load(path).dense["mask"])


@pytest.mark.parametrize("scales", ["none", "channel"])
def test_the_default_device_is_no_matter(scales, tmp_path):
    model = projected()
    mask = torch.randn(3000)
    model.register_buffer("mask", mask)
    save_file({"w": torch.randn(8, 80), "m": mask}, tmp_path / "x.safetensors")
    config = momos.MosaicConfig(block_size=4, num_motifs=8, scales=scales, exclude=("m",))
    with torch.device("meta"):
        momos.save(model, tmp_path / "x.momos")
        momos.compress(tmp_path / "x.safetensors", tmp_path / "y.momos", config)
        momos.expand(tmp_path / "y.momos", tmp_path / "y.safetensors")
        momos.expand(tmp_path / "y.momos", tmp_path / "y.pt")
        momos.compress(tmp_path / "y.pt", tmp_path / "z.momos", config)
    assert torch.equal(momos.load(tmp_path / "x.momos").dense["mask"], mask)
    assert torch.equal(load_file(tmp_path / "y.safetensors")["m"], mask)
    assert torch.equal(torch.load(tmp_path / "y.pt")["m"], mask)
    assert torch.equal(momos.load(tmp_path / "z.momos").dense["m"], mask)


# Checkpoints that were changed by hand


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask", torch.zeros(6), r"torch\.float32 of shape \(5,\), .* shape \(6,\)"),
        ("mask", torch.zeros(5).int(), r"torch\.float32 of shape .* got torch\.int32 of"),
        ("new", torch.zeros(5), r"absent, as its record says, got torch\.float32"),
        ("mask", None, r"torch\.float32 of shape \(5,\), as its record says, got absent"),
    ],
)
def test_a_checkpoint_that_is_not_what_its_records_say_is_refused(
    name, value, message, tmp_path
):
    model = projected()
    model.register_buffer("mask", torch.ones(5))
    momos.save(model, tmp_path / "x.momos")
    checkpoint = momos.load(tmp_path / "x.momos")
    if value is None:
        del checkpoint.dense[name]
    else:
        checkpoint.dense[name] = value
    path = tmp_path / "folder" / "network.momos"
    path.parent.mkdir()
    refused(
        checkpoint, path, ValueError, rf"tensor '{name}' of a checkpoint must be {message}"
    )


def test_a_checkpoint_may_hold_other_values(path):
    model = projected()
    model.register_buffer("mask", torch.ones(2, 3))
    momos.save(model, path)
    checkpoint = momos.load(path)
    checkpoint.dense["mask"] = nn.Parameter(torch.arange(6.0).view(3, 2)).T
    momos.save(checkpoint, path)
    assert momos.load(path).dense["mask"].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_loaded_weights_are_saved_by_the_config_that_made_them(path):
    model, other = projected(), network()
    other.load_state_dict(model.state_dict())
    refused(other, path, ValueError, "never projected")
    path.unlink()
    momos.save(other, path, config=Mosaic.of(model).config)
    for name, values in momos.load(path).state_dict().items():
        assert torch.equal(values, model.state_dict()[name])
    wrong = momos.MosaicConfig(num_motifs=2)
    other = network()
    other.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="at most 2 distinct blocks, got more"):
        momos.save(other, path, config=wrong)


def test_a_config_is_for_modules(path):
    mosaic = Mosaic.of(projected())
    with pytest.raises(
        ValueError, match="config must be given for a Module only, got one for"
    ):
        momos.save(mosaic, path, config=mosaic.config)
