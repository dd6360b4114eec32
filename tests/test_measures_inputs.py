"""What cannot be measured is refused or left out by name: there is never a silent number."""

import math
import re
import weakref
from importlib import metadata

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import momos
from momos.complexity import ctm
from momos.complexity.bdm import block_lengths
from momos.errors import FormatError
from momos.measures.inputs import Inputs

ALL = ("default", "paper", "qubd")
EXTRA = 'momos.bdm needs the CTM tables of pybdm: pip install "mosaic-of-motifs[bdm]"'
FEW = "BDM needs at least 12 weights, got "


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def all_finite(measured: momos.Measurement) -> bool:
    """Whether each row has finite numbers, or none and a reason."""
    numbers = []
    for row in measured.rows:
        assert (row.value is None) == bool(row.unavailable)
        numbers += [row.value or 0.0, row.bits_per_weight or 0.0, row.init_value or 0.0]
        numbers += [row.control.mean, row.control.deviation] if row.control else []
        assert row.control is None or not math.isnan(row.control.z)
        if row.factors:
            numbers += [row.factors.arrangement, row.factors.value_distribution]
    return all(math.isfinite(number) for number in numbers)


# Values that are none


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_a_value_that_is_not_finite_is_refused_and_its_tensor_named(bad, dtype):
    weight = noise(40, dtype=dtype)
    weight[17] = bad
    with pytest.raises(ValueError, match="NaN or infinite values in tensor 'b'"):
        momos.measure({"a": noise(40), "b": weight})


def test_a_file_with_nan_is_refused_and_its_tensor_named(tmp_path):
    save_file({"a": noise(9), "b": torch.full((9,), math.nan)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="NaN or infinite values in tensor 'b'"):
        momos.measure(tmp_path / "x.safetensors")


def test_a_start_that_is_not_finite_is_told_from_what_is_measured():
    start = {"a": torch.full((40,), math.nan)}
    with pytest.raises(ValueError, match=r"\binit\b.*'a'"):
        momos.measure({"a": noise(40)}, measures="signs", init=start)


def test_a_tensor_without_values_is_refused_by_name():
    with pytest.raises(ValueError, match="got a meta tensor 'x'"):
        momos.measure({"x": torch.ones(5, device="meta")})
    with pytest.raises(ValueError, match="got a meta tensor 'weight'"):
        momos.measure(nn.Linear(3, 4, device="meta"))


def test_a_parameter_that_is_not_yet_initialized_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'0\.weight'"):
        momos.measure(nn.Sequential(nn.LazyLinear(4)))


def test_a_sparse_tensor_is_left_out_by_name():
    state = {"dense": noise(40), "thin": noise(5, 5).to_sparse()}
    assert "sparse" in momos.measure(state, measures="signs").left_out["thin"]


def test_numbers_beyond_float32_give_no_rates_of_float32_bytes():
    state = {"x.weight": 1e300 * noise(40, 40, dtype=torch.float64)}
    found = momos.measure(state, measures=ALL, controls=2)
    assert all_finite(found)
    assert found["float fields"].value is not None
    for name in ("gzip", "bz2", "lzma"):
        assert "float32" in found[f"{name} rate, float32"].unavailable


def test_the_range_beyond_float64_is_told_with_the_name_of_its_tensor():
    weight = torch.tensor([1e308, -1e308] * 20, dtype=torch.float64)
    row = momos.measure({"a": noise(40), "b": weight}, measures="8-bit codes").rows[0]
    assert row.value is None
    assert "range of weight must be finite" in row.unavailable
    assert "'b'" in row.unavailable


# Nothing, and little


@pytest.mark.parametrize("empty", [{}, nn.ReLU(), torch.zeros(0), {"a": torch.arange(9)}])
def test_nothing_to_measure_is_refused(empty):
    with pytest.raises(ValueError, match="at least one floating tensor must be there"):
        momos.measure(empty)


@pytest.mark.parametrize("x", [3, None, [torch.ones(3)], noise(3).numpy()])
def test_what_is_no_network_is_refused(x):
    with pytest.raises(TypeError, match="a module, state dict, tensor, mosaic or path"):
        momos.measure(x)


@pytest.mark.parametrize("shape", [(), (1,), (11,)])
def test_fewer_than_twelve_weights_have_no_bdm_and_the_row_says_why(shape):
    weight = noise(*shape)
    found = momos.measure(weight, measures=ALL, controls=2, init=weight)
    assert all_finite(found)
    assert found["signs, BDM"].unavailable == f"{FEW}{weight.numel()}"
    missing = {row.name for row in found.rows if row.value is None}
    assert missing == {"signs, BDM", "QuBD", *(f"QuBD, plane {p}" for p in range(8))}


def test_without_a_matrix_there_is_no_qubd_and_the_row_says_why():
    row = momos.measure({"x.weight": noise(3, 50)}, measures="QuBD").rows[0]
    assert row.value is None
    assert row.unavailable == "QuBD needs a matrix named weight of at least 4×4, got none"


@pytest.mark.parametrize("constant", [0.0, -0.0, 1.0, -3.5])
def test_constant_weights_give_numbers_never_nan(constant):
    weight = torch.full((20, 30), constant)
    found = momos.measure(weight, measures=ALL, controls=3, init=weight, per_tensor=True)
    assert all_finite(found)
    for row in found.rows:
        assert row.value is not None
        assert row.factors is not None
        assert row.factors.ratio == 1
        assert row.control is None or row.control.z == 0


def test_tensors_that_are_not_floating_are_left_out_with_why():
    state = {
        "whole": torch.arange(9),
        "flags": torch.ones(9, dtype=torch.bool),
        "complex": torch.ones(9, dtype=torch.complex64),
        "none": torch.ones(0),
        "epoch": 3,
        "kept": noise(30),
    }
    found = momos.measure(state, measures="signs")
    assert found["signs"].num_weights == 30
    assert found.left_out == {
        "whole": "not floating but int64",
        "flags": "not floating but bool",
        "complex": "not floating but complex64",
        "none": "empty",
        "epoch": "int",
    }


# Arguments and files


@pytest.mark.parametrize("shuffles", [1, -1, True, 2.5, "3", None])
def test_shuffles_are_none_or_at_least_two(shuffles):
    with pytest.raises((ValueError, TypeError), match=r"controls must be .*, got "):
        momos.measure(noise(20), controls=shuffles)


@pytest.mark.parametrize("measures", ["x", ("signs", "x"), ["default", "x"]])
def test_an_unknown_measure_is_refused_with_those_there_are(measures):
    known = r"measures must be among default; paper; qubd; compressors; split; .*, got 'x'"
    with pytest.raises(ValueError, match=known):
        momos.measure(noise(20), measures=measures)


def test_no_measure_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one measure must be asked for"):
        momos.measure(noise(20), measures=())


@pytest.mark.parametrize("name", ["x.safetensors", "x.momos", "x.pt"])
def test_a_file_that_is_no_checkpoint_is_refused_by_its_path(name, tmp_path):
    (tmp_path / name).write_bytes(b"not a checkpoint" * 100)
    with pytest.raises(FormatError, match=re.escape(str(tmp_path / name))):
        momos.measure(tmp_path / name)


@pytest.mark.parametrize("name", ["x.safetensors", "x.momos", "x.pt"])
def test_a_file_that_is_not_there_is_an_os_error(name, tmp_path):
    with pytest.raises(FileNotFoundError):
        momos.measure(tmp_path / name)


# Without pybdm


@pytest.fixture
def without_pybdm(monkeypatch):
    caches = (ctm.sequence_table, ctm.square_table, block_lengths)

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(metadata, "distribution", missing)
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("without_pybdm")
def test_without_pybdm_rows_that_need_it_name_the_extra_and_the_others_are_there():
    state = {"x.weight": noise(20, 30)}
    found = momos.measure(state, measures=ALL, controls=2, init=state)
    assert all_finite(found)
    for row in found.rows:
        needs = "BDM" in row.name or "QuBD" in row.name
        assert row.unavailable == (EXTRA if needs else "")
        assert (row.value is None) == needs


# Memory


def test_few_tensors_are_held_at_once(tmp_path, monkeypatch):
    save_file({f"{n}.weight": noise(16, 16) for n in range(30)}, tmp_path / "x.safetensors")
    live: set[int] = set()
    most = reads = 0

    def counted(read):
        def read_and_count():
            nonlocal most, reads
            tensor = read()
            live.add(reads)
            weakref.finalize(tensor, live.discard, reads)
            reads += 1
            most = max(most, len(live))
            return tensor

        return read_and_count

    of = Inputs.of

    def watched(x, key=""):
        found = of(x, key)
        found.tensors.update({name: counted(read) for name, read in found.tensors.items()})
        return found

    monkeypatch.setattr(Inputs, "of", watched)
    momos.measure(tmp_path / "x.safetensors", measures=("default", "qubd"), controls=2)
    assert reads == 30
    assert most <= 2


def test_a_momos_file_is_not_expanded_as_a_whole(path):
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(30))

    torch.manual_seed(0)
    model = Stack()
    momos.project_(model, momos.MosaicConfig(block_size=8, num_motifs=16))
    momos.save(model, path)
    found = Inputs.of(path)
    for read in found.tensors.values():
        one, another = read(), read()
        assert (
            one.data_ptr() != another.data_ptr()
        )  # made when it is asked for, and not kept
