"""A checkpoint on disk becomes a small file, as `project_` would have made it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import momos
from momos._util.reading import watch
from momos.checkpoints import banks
from momos.checkpoints import weights as reading

CONFIG = momos.MosaicConfig(block_size=4, num_motifs=16, selection="kmeans")
OPTIONS = [
    {},
    {"scales": "tensor", "bits": 16},
    {"scales": "channel", "rate_weight": 0.1},
    {"bits": 8},
    {"rate_weight": 0.1, "bits": 6},
    {"scales": "channel", "rate_weight": 0.2, "bits": 8},
]


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


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_distortions_are_those_of_the_file(tmp_path, options):
    path = checkpoint(tmp_path)
    report = momos.compress(path, tmp_path / "x.momos", replace(CONFIG, **options))
    before, after = load_file(path), momos.load(tmp_path / "x.momos").state_dict()
    for tensor in report.tensors:
        if tensor.stored == "blocks":
            difference = before[tensor.name].double() - after[tensor.name].double()
            assert tensor.distortion == pytest.approx(
                float(difference.square().sum()), rel=1e-3
            )


def mosaic_of(path: Path, config: momos.MosaicConfig) -> momos.Mosaic:
    momos.compress(path, path.with_name("x.momos"), config)
    found = momos.load(path.with_name("x.momos")).mosaic
    assert found is not None
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_config_is_kept(tmp_path, options):
    config = replace(CONFIG, **options)
    assert mosaic_of(checkpoint(tmp_path), config).config == config


def lost(path: Path, config: momos.MosaicConfig, name: str, channel: int) -> float:
    """How much of the variance of one channel is lost."""
    before = load_file(path)[name][channel]
    after = mosaic_of(path, config).dense()[name][channel]
    return float((before - after).var() / before.var())


def test_a_scale_for_each_tensor_saves_the_small_from_the_large(tmp_path):
    torch.manual_seed(0)
    state = {"large": 100 * torch.randn(64, 64), "small": 0.01 * torch.randn(64, 64)}
    path = checkpoint(tmp_path, state)
    assert lost(path, CONFIG, "small", 0) > 0.9
    assert lost(path, replace(CONFIG, scales="tensor"), "small", 0) < 0.6


def test_a_scale_for_each_channel_saves_the_small_from_the_large(tmp_path):
    torch.manual_seed(0)
    sizes = torch.where(torch.arange(64) % 8 == 0, 0.01, 10.0)
    path = checkpoint(tmp_path, {"w": sizes[:, None] * torch.randn(64, 64)})
    assert lost(path, replace(CONFIG, scales="tensor"), "w", 8) > 0.9
    assert lost(path, replace(CONFIG, scales="channel"), "w", 8) < 0.6


@pytest.mark.parametrize("scales", ["tensor", "channel"])
def test_scales_are_root_mean_squares_to_8_bits(tmp_path, monkeypatch, scales):
    monkeypatch.setattr(reading, "PIECE", 5)  # so that channels are cut
    state = {name: tensor for name, tensor in network().state_dict().items() if "3" in name}
    state["zeros"] = torch.zeros(4, 3)
    found = mosaic_of(checkpoint(tmp_path, state), replace(CONFIG, scales=scales))
    assert found.scales is not None
    for place, scale in zip(found.layout.placements, found.scales, strict=True):
        rows = place.shape[0] if scales == "channel" and len(place.shape) > 1 else 1
        squares = state[place.name].double().reshape(rows, -1).square().mean(1)
        assert torch.equal(scale, scale.bfloat16().float())
        wanted = torch.where(squares > 0, squares.sqrt(), 1.0).float()
        torch.testing.assert_close(scale, wanted, rtol=2**-8, atol=0)


def test_motifs_of_16_bits_are_float16(tmp_path):
    path = checkpoint(tmp_path)
    plain = momos.compress(path, tmp_path / "x.momos", CONFIG)
    half = momos.compress(path, tmp_path / "x.momos", replace(CONFIG, bits=16))
    found = momos.load(tmp_path / "x.momos").mosaic
    assert found is not None
    assert found.motifs.dtype == torch.float16
    assert plain.lengths is not None
    assert half.lengths is not None
    assert 2 * half.lengths.bank == plain.lengths.bank


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("scales", ["none", "tensor", "channel"])
@pytest.mark.parametrize("selection", ["sample", "kmeans"])
def test_motifs_of_few_bits_are_whole_and_have_scales(tmp_path, bits, scales, selection):
    config = replace(CONFIG, bits=bits, scales=scales, selection=selection)
    report = momos.compress(checkpoint(tmp_path), tmp_path / "x.momos", config)
    found = momos.load(tmp_path / "x.momos").mosaic
    assert found is not None
    assert found.motifs.dtype == torch.int8
    most = 2 ** (bits - 1) - 1
    assert int(found.motifs.int().abs().max()) <= most
    assert not found.motifs[0].any()
    assert found.scales is not None
    num_scales = sum(map(len, found.scales))
    assert report.lengths is not None
    assert report.lengths.bank == found.motifs.numel() * bits + 16 * num_scales


def test_more_bits_lose_less(tmp_path):
    path = checkpoint(tmp_path, {"w": torch.randn(300, 40)})

    def distortion(bits: int) -> float:
        config = momos.MosaicConfig(num_motifs=64, selection="kmeans", bits=bits)
        report = momos.compress(path, tmp_path / "x.momos", config)
        return sum(tensor.distortion or 0.0 for tensor in report.tensors)

    found = [distortion(bits) for bits in (3, 5, 8, 32)]
    assert found == sorted(found, reverse=True)
    assert found[2] < 1.02 * found[3]


@pytest.mark.parametrize("scales", ["none", "tensor"])
def test_a_rate_weight_makes_the_mosaic_shorter_and_loses_little(tmp_path, scales):
    torch.manual_seed(0)
    path = checkpoint(tmp_path, {"w": 1e-3 * torch.randn(300, 40)})
    lengths, distortions = [], []
    for rate_weight in (0.0, 0.05, 0.3, 3.0):
        config = momos.MosaicConfig(
            num_motifs=64, selection="kmeans", rate_weight=rate_weight, scales=scales
        )
        report = momos.compress(path, tmp_path / "x.momos", config)
        assert report.lengths is not None
        lengths.append(report.lengths.mosaic_entropy)
        distortions.append(sum(tensor.distortion or 0.0 for tensor in report.tensors))
    assert lengths == sorted(lengths, reverse=True)
    assert distortions == sorted(distortions)
    assert lengths[-1] == 0  # at 3 squares a bit nothing but the zero motif is worth it


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_no_block_has_a_better_motif_by_distance_and_rate(tmp_path, bits):
    torch.manual_seed(0)
    weight = torch.randn(200, 30)
    path = checkpoint(tmp_path, {"w": weight})
    config = momos.MosaicConfig(
        num_motifs=32, selection="kmeans", rate_weight=0.2, scales="tensor", bits=bits
    )
    found = mosaic_of(path, config)
    unit = weight.double().square().mean()
    motifs = torch.tensor(float(found.scales[0])) * found.motifs.double()
    costs = torch.cdist(weight.double().view(-1, 2), motifs).square() / unit
    usage = found.usage().double()
    costs += 0.2 * (usage.sum().log2() - usage.clamp(min=0.5).log2())
    own = costs.gather(1, found.indices.long()[:, None])[:, 0]
    # The usage by which they were chosen is that of the round before.
    assert float((own - costs.min(1).values).mean()) < 0.01


def test_motifs_that_the_rate_empties_are_left_out(tmp_path):
    path = checkpoint(tmp_path, {"w": torch.randn(100, 40)})
    config = momos.MosaicConfig(num_motifs=64, selection="kmeans", rate_weight=1.0)
    found = mosaic_of(path, config)
    assert found.num_motifs < 64
    assert int(found.usage()[1:].min()) > 0
    assert not found.motifs[0].any()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_groups_use_only_their_own_motifs(tmp_path, options):
    torch.manual_seed(0)
    state = {name: torch.randn(20, 16) + 3 * i for i, name in enumerate("abcd")}
    config = replace(CONFIG, num_motifs=8, groups=(("c",), ("x",), ("a*", "c")), **options)
    found = mosaic_of(checkpoint(tmp_path, state), config)
    used = {
        place.name: set(found.indices[place.start : place.stop].tolist())
        for place in found.layout.placements
    }
    rest = used["b"] | used["d"]
    assert max(used["c"]) < min(used["a"]) <= max(used["a"]) < min(rest)
    if not options.get("rate_weight"):
        assert found.num_motifs == 24
        assert used["c"] <= set(range(8))
        assert used["a"] <= set(range(8, 16))
        assert rest <= set(range(16, 24))


def test_a_group_of_its_own_is_compressed_as_if_alone(tmp_path):
    torch.manual_seed(0)
    state = {name: torch.randn(20, 16) for name in "abc"}
    both = mosaic_of(checkpoint(tmp_path, state), replace(CONFIG, groups=(("b",),)))
    alone = mosaic_of(checkpoint(tmp_path, {"b": state["b"]}), CONFIG)
    assert torch.equal(both.dense()["b"], alone.dense()["b"])


@pytest.mark.parametrize("min_ndim", [None, 0, 1, 2, 3])
def test_tensors_of_few_dimensions_stay_dense(tmp_path, min_ndim):
    shapes = {"scalar": (), "bias": (8,), "matrix": (8, 6), "kernel": (4, 3, 2)}
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    config = replace(CONFIG, min_ndim=min_ndim)
    report = momos.compress(checkpoint(tmp_path, state), tmp_path / "x.momos", config)
    least = 1 if min_ndim is None else min_ndim
    why = f"fewer than {least} dimensions" if least > 1 else "a single number"
    for tensor in report.tensors:
        dense = len(shapes[tensor.name]) < least
        assert (tensor.stored, tensor.why) == (("dense", why) if dense else ("blocks", ""))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_what_stays_dense_is_rounded_and_keeps_its_dtype(tmp_path, name):
    dtype, torch_state = getattr(torch, name), network().state_dict()
    torch_state["0.bias"][0] = float("inf")
    torch_state["0.bias"][1] = float("nan")
    others = {"wide": torch.randn(9).double(), "half": torch.randn(9).half()}
    others |= {"brain": torch.randn(9).bfloat16(), "steps": torch.arange(5)}
    state = torch_state | others
    config = replace(CONFIG, include=("*weight",), dense_dtype=name)
    report = momos.compress(checkpoint(tmp_path, state), tmp_path / "x.momos", config)
    found = momos.load(tmp_path / "x.momos").state_dict()
    for tensor in report.tensors:
        value = state[tensor.name]
        assert found[tensor.name].dtype == value.dtype
        if tensor.stored == "blocks":
            continue
        wide = value.dtype in (torch.float32, torch.float64)
        expected = value.to(dtype).to(value.dtype) if wide else value
        torch.testing.assert_close(
            found[tensor.name], expected, rtol=0, atol=0, equal_nan=True
        )
        assert tensor.why.endswith(f", rounded to {name}") == wide


def test_dense_tensors_that_do_not_fit_are_refused_before_anything_is_done(tmp_path):
    state = network().state_dict()
    state["1.running_var"][3] = 7e4
    path, done = checkpoint(tmp_path, state), []
    config = replace(CONFIG, dense_dtype="float16")
    with pytest.raises(
        ValueError, match=r"must fit float16, got 70000\.0 in tensor '1\.running_var'"
    ):
        momos.compress(
            path,
            tmp_path / "x.momos",
            config,
            progress=lambda doing, *_: done.append(doing),
        )
    assert set(done) <= {"checking dense tensors"}
    assert not (tmp_path / "x.momos").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_floating_dtype_loses_about_the_same(tmp_path, dtype, options):
    torch.manual_seed(0)
    weight = 1e-3 * torch.randn(100, 64)
    config = replace(CONFIG, num_motifs=64, **options)

    def distortion(state: dict[str, torch.Tensor]) -> float:
        path = checkpoint(tmp_path, state)
        report = momos.compress(path, tmp_path / "x.momos", config)
        return sum(tensor.distortion or 0.0 for tensor in report.tensors)

    expected = distortion({"w": weight})
    assert distortion({"w": weight.to(dtype)}) == pytest.approx(expected, rel=0.1)


def test_pieces_and_samples_of_any_size_give_the_same_assignment(tmp_path, monkeypatch):
    path = checkpoint(tmp_path)
    config = momos.MosaicConfig(block_size=5, num_motifs=16)
    momos.compress(path, tmp_path / "a.momos", config)
    monkeypatch.setattr(reading, "PIECE", 7)
    momos.compress(path, tmp_path / "b.momos", config)
    left, right = (momos.load(tmp_path / name).mosaic for name in ("a.momos", "b.momos"))
    assert left is not None
    assert right is not None
    assert torch.equal(left.motifs, right.motifs)
    assert torch.equal(left.indices, right.indices)


def test_a_network_larger_than_the_pool_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(banks, "POOL", 64)
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
    with pytest.raises(ValueError, match=r"motifs must fit 16 bits .*got 100000"):
        momos.compress(path, tmp_path / "x.momos", replace(CONFIG, bits=16))
    vast = checkpoint(tmp_path, {"w": torch.full((64,), 1e300, dtype=torch.float64)})
    with pytest.raises(ValueError, match=r"of 8 bits must be multiples of a float32"):
        momos.compress(vast, tmp_path / "x.momos", replace(CONFIG, bits=8))
    mixed = {"a": torch.full((64,), 1e5), "b": torch.full((4,), 6e4, dtype=torch.float16)}
    only = momos.MosaicConfig(block_size=4, num_motifs=1, zero_motif=False)
    with pytest.raises(
        ValueError, match=r"motifs must fit the torch.float16 of tensor 'b'"
    ):
        momos.compress(checkpoint(tmp_path, mixed), tmp_path / "x.momos", only)


@pytest.mark.parametrize("options", [{"include": ("nope",)}, {"min_ndim": 5}], ids=str)
def test_a_config_that_chooses_nothing_is_refused(tmp_path, options):
    with pytest.raises(ValueError, match="must be chosen, got none for"):
        momos.compress(
            checkpoint(tmp_path), tmp_path / "x.momos", replace(CONFIG, **options)
        )


def test_a_momos_file_is_no_checkpoint(tmp_path):
    momos.compress(checkpoint(tmp_path), tmp_path / "y.safetensors", CONFIG)
    with pytest.raises(momos.FormatError, match=r"this is a \.momos file already"):
        momos.compress(tmp_path / "y.safetensors", tmp_path / "x.momos", CONFIG)


def test_a_checkpoint_is_not_overwritten_by_its_own_mosaic(tmp_path):
    path = checkpoint(tmp_path)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=f"must be written beside .* {path} is one of them"
    ):
        momos.compress(path, path, CONFIG)
    assert path.read_bytes() == before


def test_progress_ends_at_its_totals(tmp_path):
    seen: dict[str, tuple[int, int]] = {}

    def progress(doing: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        seen[doing] = done, total

    report: Callable[[str, int, int], None] = progress
    momos.compress(checkpoint(tmp_path), tmp_path / "x.momos", CONFIG, progress=report)
    for doing in ("assigning", "encoding", "packing"):
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


def quantized(dtype: torch.dtype, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {"w": torch.ones(shape).to(dtype), "w_scale": torch.rand(8, 1)}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.int32])
def test_scales_of_a_quantized_checkpoint_do_not_become_the_mosaic_in_silence(
    tmp_path, dtype
):
    path = checkpoint(tmp_path, quantized(dtype, (8, 8)))
    name = str(dtype).removeprefix("torch.")
    with pytest.warns(UserWarning, match="seems to be quantized") as warned:
        report = momos.compress(path, tmp_path / "x.momos", CONFIG)
    assert str(warned[0].message) == (
        f"{path} seems to be quantized: 64 values of {name} stay dense (w), and only 8 values "
        "become blocks (w_scale): dequantize the checkpoint to bfloat16 or float32 first"
    )
    assert warned[0].filename == __file__
    assert [(t.name, t.stored) for t in report.tensors] == [
        ("w_scale", "blocks"),
        ("w", "dense"),
    ]
    momos.compress(path, tmp_path / "x.momos", replace(CONFIG, exclude=("w",)))


def test_weights_among_integers_are_no_quantized_checkpoint(tmp_path):
    state = {"w": torch.randn(8, 8), "index": torch.zeros(1, 512, dtype=torch.int32)}
    state |= {"mask": torch.ones(16, 16, dtype=torch.bool), "ids": torch.arange(99)[None]}
    momos.compress(checkpoint(tmp_path, state), tmp_path / "x.momos", CONFIG)


def test_float8_alone_is_refused_with_what_to_do(tmp_path):
    path = checkpoint(tmp_path, {"w": torch.ones(8, 8).to(torch.float8_e5m2)})
    with pytest.raises(
        ValueError, match=r"64 values of float8_e5m2 stay dense \(w\): dequantize"
    ):
        momos.compress(path, tmp_path / "x.momos", CONFIG)


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_bools_that_are_not_1_are_stored_as_1(tmp_path, kind):
    mask = torch.tensor([2, 255, 0, 1], dtype=torch.uint8).view(torch.bool)
    path = tmp_path / f"x.{kind}"
    (torch.save if kind == "pt" else save_file)({"w": torch.randn(64), "m": mask}, path)
    momos.compress(path, tmp_path / "x.momos", CONFIG)
    found = momos.load(tmp_path / "x.momos").dense["m"]
    assert found.view(torch.uint8).tolist() == [1, 1, 0, 1]


def change(path: Path) -> None:
    """Another checkpoint of the same size in place of the one at `path`."""
    save_file(
        {name: -value for name, value in load_file(path).items()}, path.with_name("y")
    )
    path.with_name("y").replace(path)


def test_a_checkpoint_that_changes_while_it_is_read_is_refused(tmp_path):
    path = checkpoint(tmp_path, {"w": torch.randn(640), "e": torch.randn(9)})
    (tmp_path / "x.momos").write_bytes(b"old")

    def once(doing: str, done: int, total: int) -> None:
        if doing == "encoding" and done == total:
            change(path)

    config = replace(CONFIG, exclude=("e",))
    message = f"must stay as it is while it is read, but {path} has changed"
    with pytest.raises(ValueError, match=message):
        momos.compress(path, tmp_path / "x.momos", config, progress=once)
    assert (tmp_path / "x.momos").read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.momos", "x.safetensors"]


def test_a_checkpoint_that_vanishes_while_it_is_read_is_refused(tmp_path):
    path = checkpoint(tmp_path)
    momos.compress(path, tmp_path / "x.momos", CONFIG)
    check = watch([path])
    check()
    path.unlink()
    with pytest.raises(ValueError, match=f"{path} has changed"):
        check()


@pytest.mark.parametrize("name", ["model.safetensors", "link.momos"])
def test_the_checkpoint_is_not_written_over(tmp_path, name):
    save_file({"w": torch.randn(64)}, tmp_path / "model.safetensors")
    (tmp_path / "link.momos").symlink_to("model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="must be written beside the files that are read"):
        momos.compress(tmp_path, tmp_path / name, CONFIG)
    assert (tmp_path / "model.safetensors").read_bytes() == before
