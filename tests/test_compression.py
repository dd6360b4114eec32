"""A checkpoint on disk becomes a small file, as `project_` would have made it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import momos
import momos.compression as compression

CONFIG = momos.MosaicConfig(block_size=4, num_motifs=16, selection="kmeans")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(18, 30)
    )


def checkpoint(folder: Path, state: dict[str, torch.Tensor] | None = None) -> Path:
    path = folder / "x.safetensors"
    save_file(network().state_dict() if state is None else state, path)
    return path


@pytest.mark.parametrize("selection", ["sample", "distinct", "kmeans"])
def test_it_is_what_project_makes_of_the_same_weights(tmp_path, selection):
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 21))
    torch.save(model.state_dict(), tmp_path / "x.pt")
    config = momos.MosaicConfig(block_size=4, num_motifs=32, selection=selection, seed=3)
    momos.compress(tmp_path / "x.pt", tmp_path / "x.momos", config)
    found = momos.load(tmp_path / "x.momos").mosaic
    expected = momos.project_(model, config)
    assert found is not None
    assert torch.equal(found.motifs, expected.mosaic.motifs)
    assert torch.equal(found.indices, expected.mosaic.indices)
    assert found.config == config
    assert found.layout == expected.mosaic.layout


def test_the_report_says_what_became_of_every_tensor(tmp_path):
    config = momos.MosaicConfig(block_size=4, num_motifs=16, exclude=("*bias",))
    state = network().state_dict() | {"empty": torch.empty(0, 2)}
    report = momos.compress(checkpoint(tmp_path, state), tmp_path / "x.momos", config)
    found = {tensor.name: (tensor.stored, tensor.why) for tensor in report.tensors}
    assert found == {
        "0.weight": ("blocks", ""),
        "0.bias": ("dense", "not chosen"),
        "1.weight": ("blocks", ""),
        "1.bias": ("dense", "not chosen"),
        "1.running_mean": ("dense", "running statistics"),
        "1.running_var": ("dense", "running statistics"),
        "1.num_batches_tracked": ("dense", "not of a floating dtype"),
        "3.weight": ("blocks", ""),
        "3.bias": ("dense", "not chosen"),
        "empty": ("dense", "empty"),
    }


def test_what_stays_dense_is_kept_bit_for_bit(tmp_path):
    state = network().state_dict() | {"mask": torch.tensor([float("-inf"), -0.0])}
    config = momos.MosaicConfig(block_size=4, num_motifs=16, include=("*weight",))
    momos.compress(checkpoint(tmp_path, state), tmp_path / "x.momos", config)
    found = momos.load(tmp_path / "x.momos").state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        if not name.endswith("weight"):
            assert found[name].dtype == value.dtype
            assert bytes(found[name].view(-1).view(torch.uint8)) == bytes(
                value.view(-1).view(torch.uint8)
            )


def test_distortions_are_those_of_the_file(tmp_path):
    path = checkpoint(tmp_path)
    report = momos.compress(
        path, tmp_path / "x.momos", CONFIG, motif_dtype=torch.float16, per_tensor_scale=True
    )
    before, after = load_file(path), momos.load(tmp_path / "x.momos").state_dict()
    for tensor in report.tensors:
        if tensor.stored == "blocks":
            difference = before[tensor.name].double() - after[tensor.name].double()
            assert tensor.distortion == pytest.approx(float(difference.square().sum()))


def test_a_scale_for_each_tensor_saves_the_small_from_the_large(tmp_path):
    torch.manual_seed(0)
    state = {"large": 100 * torch.randn(64, 64), "small": 0.01 * torch.randn(64, 64)}
    path = checkpoint(tmp_path, state)

    def kept(**options: bool) -> float:
        """How much of the small tensor's variance is left."""
        momos.compress(path, tmp_path / "x.momos", CONFIG, **options)
        small = momos.load(tmp_path / "x.momos").state_dict()["small"]
        return float((small - state["small"]).var() / state["small"].var())

    assert kept() > 0.9
    assert kept(per_tensor_scale=True) < 0.6


def test_motifs_take_the_dtype_that_is_asked_for(tmp_path):
    path = checkpoint(tmp_path)
    plain = momos.compress(path, tmp_path / "x.momos", CONFIG)
    half = momos.compress(path, tmp_path / "x.momos", CONFIG, motif_dtype=torch.float16)
    mosaic = momos.load(tmp_path / "x.momos").mosaic
    assert mosaic is not None
    assert mosaic.motifs.dtype == torch.float16
    assert plain.lengths is not None
    assert half.lengths is not None
    assert 2 * half.lengths.bank == plain.lengths.bank


def test_pieces_and_samples_of_any_size_give_the_same_assignment(tmp_path, monkeypatch):
    path = checkpoint(tmp_path)
    config = momos.MosaicConfig(block_size=5, num_motifs=16)
    momos.compress(path, tmp_path / "a.momos", config)
    monkeypatch.setattr(compression, "PIECE", 7)
    momos.compress(path, tmp_path / "b.momos", config)
    left, right = (momos.load(tmp_path / name).mosaic for name in ("a.momos", "b.momos"))
    assert left is not None
    assert right is not None
    assert torch.equal(left.motifs, right.motifs)
    assert torch.equal(left.indices, right.indices)


def test_a_network_larger_than_the_pool_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "POOL", 64)
    path = checkpoint(tmp_path, {"w": torch.randn(4096, generator=torch.Generator())})
    config = momos.MosaicConfig(block_size=4, num_motifs=2, selection="kmeans")
    report = momos.compress(path, tmp_path / "x.momos", config)
    assert report.lengths is not None
    assert momos.load(tmp_path / "x.momos").mosaic.num_motifs == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("selection", ["sample", "kmeans"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value, selection):
    state = {"good": torch.randn(100), "bad": torch.full((50,), value)}
    config = momos.MosaicConfig(num_motifs=4, selection=selection)
    (tmp_path / "x.momos").write_text("old")
    with pytest.raises(ValueError, match=r"must be finite, got .* in tensor 'bad'"):
        momos.compress(checkpoint(tmp_path, state), tmp_path / "x.momos", config)
    assert (tmp_path / "x.momos").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_motifs_that_do_not_fit_are_refused(tmp_path):
    path = checkpoint(tmp_path, {"w": torch.full((64,), 1e5)})
    with pytest.raises(ValueError, match=r"motifs must fit motif_dtype .*got 100000"):
        momos.compress(path, tmp_path / "x.momos", CONFIG, motif_dtype=torch.float16)
    mixed = {"a": torch.full((64,), 1e5), "b": torch.full((4,), 6e4, dtype=torch.float16)}
    only = momos.MosaicConfig(block_size=4, num_motifs=1, zero_motif=False)
    with pytest.raises(
        ValueError, match=r"motifs must fit the torch.float16 of tensor 'b'"
    ):
        momos.compress(checkpoint(tmp_path, mixed), tmp_path / "x.momos", only)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": momos.MosaicConfig(num_motifs=4, include=("nope",))}, "got none for"),
        ({"motif_dtype": torch.int8}, "motif_dtype must be a floating one"),
    ],
)
def test_wrong_wishes_are_refused(tmp_path, arguments, message):
    options = {"config": CONFIG} | arguments
    with pytest.raises(ValueError, match=message):
        momos.compress(checkpoint(tmp_path), tmp_path / "x.momos", **options)


def test_a_momos_file_is_no_checkpoint(tmp_path):
    momos.compress(checkpoint(tmp_path), tmp_path / "y.safetensors", CONFIG)
    with pytest.raises(momos.FormatError, match=r"this is a \.momos file already"):
        momos.compress(tmp_path / "y.safetensors", tmp_path / "x.momos", CONFIG)


def test_a_checkpoint_is_not_overwritten_by_its_own_mosaic(tmp_path):
    path = checkpoint(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="must be written beside the checkpoint"):
        momos.compress(path, path, CONFIG)
    assert path.read_bytes() == before


def test_progress_ends_at_its_totals(tmp_path):
    seen: dict[str, tuple[int, int]] = {}

    def progress(doing: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        seen[doing] = done, total

    report: Callable[[str, int, int], None] = progress
    momos.compress(checkpoint(tmp_path), tmp_path / "x.momos", CONFIG, progress=report)
    for doing in ("assigning", "encoding", "packing", "checking weights"):
        done, total = seen[doing]
        assert done == total


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_dtype_goes_there_and_back(tmp_path, dtype):
    path = checkpoint(tmp_path, {"w": torch.randn(10, 13, dtype=dtype)})
    momos.compress(path, tmp_path / "x.momos", CONFIG)
    momos.expand(tmp_path / "x.momos", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")["w"]
    assert back.dtype == dtype
    assert torch.equal(back, momos.load(tmp_path / "x.momos").state_dict()["w"])
