"""One network in many forms measures the same, and as the plain functions say."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import momos
from momos import complexity

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ALL = ("default", "paper", "qubd")
ONCE = (  # the measures whose value depends on the order of the tensors
    *("signs, ordered BDM", "signs, lzma", "signs, BDM", "gzip rate, float32"),
    *("bz2 rate, float32", "lzma rate, float32", "gzip rate, sign bytes"),
    *("bz2 rate, sign bytes", "lzma rate, sign bytes"),
)


def network() -> nn.Module:
    """No tensor of it has a multiple of 12 weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.Linear(11, 5))


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def parts(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"a": (13,), "b": (7, 5), "c": (1,), "d": (3, 2, 11), "e": (), "f": (2,)}
    return {
        name: torch.randn(size, generator=generator).to(dtype)
        for name, size in sizes.items()
    }


def values(x, *, without: tuple[str, ...] = (), **options) -> dict[str, float | None]:
    measured = momos.measure(x, measures=ALL, controls=0, **options)
    return {
        row.name: row.value
        for row in measured.rows
        if not row.name.startswith("mosaic, ") and row.name not in without
    }


def value(x, name: str) -> float:
    found = momos.measure(x, measures=(name,), controls=0)[name].value
    assert found is not None
    return found


def lzma(cells: torch.Tensor) -> int:
    return complexity.compressed_bits(complexity.packed(cells), "lzma")


# The forms


@pytest.fixture
def forms(tmp_path):
    model = network()
    momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=40))
    state = model.state_dict()
    save_file(state, tmp_path / "net.safetensors")
    (tmp_path / "folder").mkdir()
    save_file(state, tmp_path / "folder/model.safetensors")
    torch.save(state, tmp_path / "net.pt")
    momos.save(model, tmp_path / "net.momos")
    return {
        "module": model,
        "state dict": state,
        "checkpoint": momos.load(tmp_path / "net.momos"),
        "safetensors": tmp_path / "net.safetensors",
        "folder": tmp_path / "folder",
        "pt": tmp_path / "net.pt",
        "momos": tmp_path / "net.momos",
        "path as string": str(tmp_path / "net.pt"),
    }


@pytest.mark.parametrize(
    "form", ["state dict", "checkpoint", "pt", "momos", "path as string"]
)
def test_a_network_measures_the_same_in_every_form_that_keeps_its_order(forms, form):
    assert values(forms[form]) == values(forms["module"])


@pytest.mark.parametrize("form", ["safetensors", "folder"])
def test_a_network_measures_the_same_from_safetensors_but_for_the_order_of_tensors(
    forms, form
):
    """safetensors sorts tensors by name; codes of each tensor cannot see that."""
    expected = values(forms["module"], without=ONCE)
    assert values(forms[form], without=ONCE) == pytest.approx(expected, rel=1e-12)


def test_a_mosaic_measures_as_the_module_that_it_is():
    model = network()
    momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=9, include=("*",)))
    mosaic = momos.Mosaic.of(model)
    names = [placement.name for placement in mosaic.layout.placements]
    assert names == [name for name, _ in model.named_parameters()]
    assert values(mosaic) == values(model)


def test_a_tensor_measures_as_a_dictionary_of_it():
    weight = parts()["d"]
    assert values(weight) == values({"tensor": weight})


def test_a_tensor_shared_by_two_names_is_measured_once_in_every_form(tmp_path):
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    model[1].weight = model[0].weight
    momos.project_(model, momos.MosaicConfig(block_size=4, num_motifs=20))
    torch.save(model.state_dict(), tmp_path / "net.pt")
    momos.save(model, tmp_path / "net.momos")
    forms = {
        "module": model,
        "pt": tmp_path / "net.pt",
        "momos": tmp_path / "net.momos",
        "state dict": model.state_dict(),
    }
    found = {
        form: momos.measure(x, measures="signs", controls=0)["signs"].num_weights
        for form, x in forms.items()
    }
    assert found == dict.fromkeys(forms, 81 + 9 + 9)


def test_frozen_parameters_buffers_and_statistics_are_left_out_and_named():
    model = network()
    model[0].bias.requires_grad_(False)
    found = momos.measure(model, controls=0).left_out
    assert found == {
        "0.bias": "frozen",
        "1.running_mean": "buffer",
        "1.running_var": "buffer",
        "1.num_batches_tracked": "buffer",
    }
    assert momos.measure(network().state_dict(), controls=0).left_out == {
        "1.running_mean": "running statistics",
        "1.running_var": "running statistics",
        "1.num_batches_tracked": "not floating but int64",
    }


def test_a_transposed_view_measures_as_its_copy():
    weight = torch.randn(9, 13, generator=torch.Generator().manual_seed(0)).T
    assert values(weight) == values(weight.contiguous())


def test_a_lazily_negated_view_measures_as_its_copy():
    weight = torch._neg_view(parts()["d"])
    assert values(weight) == values(weight.resolve_neg())


# The values


@pytest.mark.parametrize("seed", range(3))
def test_signs_over_tensors_of_any_size_measure_as_those_of_all_in_a_row(seed):
    tensors = parts(seed)
    cells = torch.cat([tensor.flatten() for tensor in tensors.values()]) > 0
    assert value(tensors, "signs, BDM") == complexity.bdm(cells)
    assert value(tensors, "signs, ordered BDM") == pytest.approx(
        complexity.ordered_bdm(cells), rel=1e-12
    )
    assert value(tensors, "signs, lzma") == lzma(cells)


def test_zero_counts_as_not_above_zero_and_as_a_third_sign():
    weight = torch.tensor([0.0, -0.0, 1.0, -1.0] * 9)
    assert value(weight, "signs, BDM") == complexity.bdm(weight > 0)
    symbols = torch.tensor([1, 1, 2, 0] * 9)
    assert value(weight, "signs") == pytest.approx(complexity.kt_code(symbols, alphabet=3))


def test_signs_are_coded_by_their_counts_over_all_tensors():
    tensors = parts()
    symbols = torch.cat([complexity.ternary(t).flatten() for t in tensors.values()])
    expected = complexity.kt_code(symbols, alphabet=3)
    assert value(tensors, "signs") == pytest.approx(expected, rel=1e-12)


def test_contexts_of_four_signs_do_not_reach_over_the_ends_of_tensors():
    tensors = parts()
    symbols = [complexity.ternary(tensor).flatten() for tensor in tensors.values()]
    counts = sum(complexity.count_symbols(one, alphabet=3, order=4) for one in symbols)
    raw = sum(min(4, len(one)) for one in symbols) * np.log2(3)
    expected = complexity.kt_from_counts(counts) + raw
    assert value(tensors, "signs, order 4") == pytest.approx(expected, rel=1e-12)
    one = complexity.kt_code(symbols[0], alphabet=3, order=4)
    assert value(tensors["a"], "signs, order 4") == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_of_each_tensor_are_coded_for_themselves_with_both_extremes(bits, dtype):
    tensors = parts(dtype=dtype)
    expected = sum(
        complexity.kt_code(complexity.uniform_codes(one, bits=bits), alphabet=1 << bits)
        + 2 * 8 * one.itemsize
        for one in tensors.values()
    )
    assert value(tensors, f"{bits}-bit codes") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_float_fields_are_those_of_the_dtype_itself(dtype):
    tensors = parts(dtype=dtype)
    together = torch.cat([one.flatten() for one in tensors.values()])
    row = momos.measure(tensors, controls=0)["float fields"]
    assert row.value == pytest.approx(complexity.float_code(together), rel=1e-12)
    assert row.raw_bits == together.numel() * together.itemsize * 8


def test_float_fields_of_several_dtypes_add_up():
    tensors = {str(dtype): parts(dtype=dtype)["d"] for dtype in DTYPES}
    expected = sum(complexity.float_code(one) for one in tensors.values())
    assert value(tensors, "float fields") == pytest.approx(expected, rel=1e-12)


def test_the_paper_set_is_the_published_measures_of_all_trainable_parameters():
    model = network()
    weights = flat(model)
    found = momos.measure(model, measures="paper", controls=0)
    assert found["signs, BDM"].value == complexity.bdm(weights > 0)
    for what, payload in (
        ("float32", complexity.raw_bytes(weights)),
        ("sign bytes", complexity.raw_bytes(weights > 0)),
    ):
        rates = complexity.published_rates(payload)
        for name in ("gzip", "bz2", "lzma"):
            assert found[f"{name} rate, {what}"].value == getattr(rates, name)
    assert len(found.rows) == 7


def test_the_qubd_set_is_the_sum_over_matrices_named_weight():
    model = network()
    found = momos.measure(model, measures="qubd", controls=0)
    matrices = [
        complexity.qubd(model[0].weight.flatten(1)),
        complexity.qubd(model[2].weight),
    ]
    assert found["QuBD"].value == pytest.approx(sum(one.total for one in matrices))
    planes = [found[f"QuBD, plane {plane}"].value for plane in range(8)]
    assert planes == pytest.approx(
        [sum(p) for p in zip(*(m.planes for m in matrices), strict=True)]
    )
    assert sum(planes) == pytest.approx(found["QuBD"].value, rel=1e-12)


@pytest.mark.parametrize("other", ["y.other", "y.weights", "y.tensor"])
def test_matrices_of_other_names_do_not_count_for_qubd(other):
    generator = torch.Generator().manual_seed(0)
    state = {"x.weight": torch.randn(8, 8, generator=generator)}
    alone = value(state, "QuBD")
    state |= {"x.bias": torch.randn(9, generator=generator)}
    state |= {other: torch.randn(8, 8, generator=generator)}
    assert value(state, "QuBD") == alone


def test_compressors_see_packed_signs_and_byte_planes():
    found = momos.measure(network(), measures="compressors", controls=0)
    weights = [p.detach().view(-1) for p in network().parameters()]
    planes = complexity.raw_bytes(complexity.byte_planes(torch.cat(weights)))
    signs = complexity.packed(torch.cat(weights) > 0)
    for name in ("gzip", "bz2", "lzma", "zstd", "brotli"):
        assert found[f"floats, {name}"].value == complexity.compressed_bits(planes, name)
        assert found[f"signs, {name}"].value == complexity.compressed_bits(signs, name)
    expected = sum(complexity.pcodec_bits(weight) for weight in weights)
    assert found["floats, pcodec"].value == expected


def test_the_split_set_adds_up_and_places_count_what_is_not_zero():
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    weight[weight.abs() < 1] = 0
    found = momos.measure(weight, measures="split", controls=3)
    parts = [found[f"4-bit split, {part}"].value for part in ("model", "residual")]
    assert found["4-bit split"].value == pytest.approx(sum(parts))
    assert found["places"].value == complexity.place_code(weight)
    assert found["places"].control is None
    assert found["4-bit split, model"].kind == "score"
    assert found["4-bit split"].control.repeats == 3
