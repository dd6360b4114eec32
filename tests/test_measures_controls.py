"""What a measure is read against: shuffles of the same values, and the network's own start."""

import math
import re

import pytest
import torch
from torch import nn

import momos
from momos import Mosaic, MosaicConfig

ALL = ("default", "paper", "qubd")
BLIND = {"signs", "2-bit codes", "4-bit codes", "8-bit codes", "float fields"}


def weights(seed: int = 0, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (29, 31), "a.bias": (29,), "b.weight": (8, 3, 3, 3)}
    return {n: scale * torch.randn(s, generator=generator) for n, s in shapes.items()}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shuffled(measured: momos.Measurement) -> dict[str, tuple[float, float]]:
    return {
        row.name: (row.control.mean, row.control.deviation)
        for row in measured.rows
        if row.control
    }


# Shuffles


@pytest.mark.parametrize("shuffles", [2, 5])
def test_measures_that_see_order_have_controls_and_the_others_have_none(shuffles):
    for row in momos.measure(weights(), measures=ALL, controls=shuffles).rows:
        assert row.ordered == (row.name not in BLIND)
        assert (row.control is not None) == row.ordered
        if row.control:
            assert row.control.repeats == shuffles
            assert row.control.value == row.value


def test_without_shuffles_there_are_no_controls():
    rows = momos.measure(weights(), measures=ALL, controls=0).rows
    assert all(row.control is None and row.value is not None for row in rows)


def test_measures_that_are_blind_to_order_do_not_see_a_shuffle():
    order = torch.randperm(29 * 31, generator=generator(0))
    moved = weights() | {"a.weight": weights()["a.weight"].flatten()[order].view(29, 31)}
    names = tuple(sorted(BLIND))
    before, after = (momos.measure(x, measures=names) for x in (weights(), moved))
    assert [row.value for row in before.rows] == [row.value for row in after.rows]


def test_the_same_seed_gives_the_same_rows_and_seed_0_is_the_default():
    first, again, default = (
        momos.measure(weights(), measures=ALL, controls=3, generator=given)
        for given in (generator(0), generator(0), None)
    )
    assert first == again == default


def test_another_seed_gives_other_controls_and_the_same_values():
    first, other = (
        momos.measure(weights(), controls=3, generator=generator(seed)) for seed in (1, 2)
    )
    assert [row.value for row in first.rows] == [row.value for row in other.rows]
    for name in ("signs, order 4", "signs, ordered BDM", "signs, BDM"):
        assert shuffled(first)[name] != shuffled(other)[name]


def test_a_generator_that_is_used_again_gives_other_shuffles():
    given = generator(0)
    first, other = (
        momos.measure(weights(), measures="signs, BDM", controls=3, generator=given)
        for _ in range(2)
    )
    assert shuffled(first) != shuffled(other)


def test_the_weights_and_the_global_generator_are_left_as_they_were():
    tensors, before = weights(), torch.get_rng_state()
    momos.measure(tensors, measures=ALL, controls=2, init=tensors)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensors[name], kept) for name, kept in weights().items())


@pytest.mark.parametrize("threads", [2, 5])
def test_the_number_of_threads_changes_nothing(threads):
    options = {"measures": ("default", "gzip rate, float32", "qubd"), "controls": 3}
    alone = momos.measure(weights(), **options, per_tensor=True)
    torch.set_num_threads(threads)
    try:
        together = momos.measure(weights(), **options, per_tensor=True)
    finally:
        torch.set_num_threads(1)
    assert together == alone


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_are_as_their_shuffles_are(seed):
    weight = torch.randn(120, 100, generator=generator(seed))
    for row in momos.measure(weight, generator=generator(seed)).rows:
        if row.control and row.control.deviation:
            assert abs(row.control.z) < 5
        if row.control:
            assert row.value / row.control.mean == pytest.approx(1, abs=0.05)


def test_periodic_signs_are_far_below_their_shuffles():
    weight = torch.randn(6000, generator=generator(0)).abs()
    weight *= torch.tensor([1.0, 1, -1, 1, -1, -1]).repeat(1000)
    rows = momos.measure(weight).rows
    for row in rows:
        if row.ordered:
            assert row.control.z < -20
            assert row.value < 0.5 * row.control.mean


def test_shuffles_stay_within_their_tensor():
    """All signs of each tensor are alike: every shuffle is the tensor itself."""
    tensors = {"a": torch.rand(500), "b": -torch.rand(700), "c": torch.rand(31)}
    for row in momos.measure(tensors).rows:
        if row.control:
            assert (row.control.mean, row.control.deviation) == (row.value, 0)
            assert row.control.z == 0


# The start


def test_factors_multiply_to_the_ratio_to_the_start():
    rows = momos.measure(weights(), measures=ALL, controls=3, init=weights(1, 0.1)).rows
    start = momos.measure(weights(1, 0.1), measures=ALL, controls=0)
    for row in rows:
        factors = row.factors
        assert row.init_value == start[row.name].value
        assert factors.ratio == pytest.approx(row.value / row.init_value, rel=1e-9)
        product = factors.arrangement * factors.value_distribution
        assert product == pytest.approx(factors.ratio, rel=1e-9)
        middle = row.control.mean if row.ordered else row.value
        assert factors.arrangement == pytest.approx(row.value / middle, rel=1e-9)


def test_without_a_start_there_are_no_factors():
    rows = momos.measure(weights(), controls=2).rows
    assert all(row.factors is None and row.init_value is None for row in rows)


def test_a_start_of_other_tensors_is_refused_and_they_are_named():
    start = weights() | {"more": torch.ones(3)}
    del start["a.bias"]
    with pytest.raises(ValueError, match=re.escape("lacks some: a.bias, more")):
        momos.measure(weights(), init=start)


def test_a_start_of_other_shapes_is_refused_and_the_tensor_named():
    start = weights() | {"a.weight": torch.randn(5, 5)}
    with pytest.raises(ValueError, match=re.escape("a.weight")):
        momos.measure(weights(), init=start, controls=0)


# Tensors one by one


def test_each_tensor_has_its_rows_after_those_of_all():
    names = ("signs", "signs, BDM")
    found = momos.measure(weights(), measures=names, controls=2, per_tensor=True)
    order = [(row.tensor, row.name) for row in found.rows]
    assert order == [(tensor, name) for tensor in ("", *weights()) for name in names]
    for row in found.rows[2:]:
        alone = momos.measure(weights()[row.tensor], measures=row.name, controls=0)
        assert row.value == alone[row.name].value
        assert row.num_weights == weights()[row.tensor].numel()
    assert found["signs"].tensor == ""


def test_the_rows_of_an_only_tensor_are_those_of_the_network():
    found = momos.measure({"x": weights()["a.weight"]}, controls=3, per_tensor=True).rows
    half = len(found) // 2
    for whole, own in zip(found[:half], found[half:], strict=True):
        assert (whole.value, whole.control) == (own.value, own.control)
        assert own.tensor == "x"


# A mosaic's own lengths


def mosaic_network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 10))
    momos.project_(model, MosaicConfig(block_size=4, num_motifs=20, include=("0.weight",)))
    return model


def test_a_mosaic_has_its_own_lengths_first(path):
    model = mosaic_network()
    mosaic = Mosaic.of(model)
    momos.save(model, path)
    lengths = momos.description_length(mosaic)
    own = ["mosaic, bound", "mosaic, entropy", "mosaic, two-part"]
    for x in (model, mosaic, momos.load(path), path, str(path)):
        found = momos.measure(x, measures="signs", controls=0)
        names = [row.name for row in found.rows]
        file = ["mosaic, file"] if x in (path, str(path)) else []
        assert names == [*own, *file, "signs"]
        assert found["mosaic, bound"].value == lengths.bound
        assert found["mosaic, entropy"].value == lengths.entropy
        two_part = momos.complexity.two_part_code(
            mosaic.motifs, mosaic.indices, num_motifs=mosaic.num_motifs
        )
        assert found["mosaic, two-part"].value == two_part.total
        if file:
            assert found["mosaic, file"].value == 8 * path.stat().st_size


def test_whole_motifs_have_lengths_too(path):
    model = mosaic_network()
    own = Mosaic.of(model)
    motifs = torch.randint(-7, 8, own.motifs.shape, dtype=torch.int8)
    scales = (torch.rand(20).bfloat16().float() + 1,)
    mosaic = Mosaic(motifs, own.indices, own.layout, scales)
    momos.save(mosaic, path)
    lengths = momos.description_length(mosaic)
    two_part = momos.complexity.two_part_code(motifs, mosaic.indices, num_motifs=20)
    for x in (mosaic, momos.load(path), path):
        found = momos.measure(x, measures="signs", controls=0)
        assert found["mosaic, bound"].value == lengths.bound
        assert found["mosaic, two-part"].value == two_part.total + 20 * 32


def test_the_bits_per_weight_of_a_file_are_over_all_weights_in_it(path):
    momos.save(mosaic_network(), path)
    row = momos.measure(path, measures="signs", controls=0)["mosaic, file"]
    assert row.num_weights == 30 * 20 + 20 + 20 * 10 + 10
    assert row.bits_per_weight == 8 * path.stat().st_size / row.num_weights


def test_what_is_no_mosaic_has_no_lengths_of_one():
    for x in (nn.Linear(9, 9), weights()):
        rows = momos.measure(x, controls=0).rows
        assert not any(row.name.startswith("mosaic") for row in rows)


def test_a_module_that_changed_since_it_was_projected_is_refused():
    model = mosaic_network()
    with torch.no_grad():
        model[0].weight[0, 0] += 1
    with pytest.raises(ValueError, match=r"'0\.weight' differs .* changed since"):
        momos.measure(model)


def test_an_infinite_z_is_null_in_json():
    control = momos.complexity.Control.of(1.0, [2.0, 2.0])
    assert control.z == -math.inf
    row = momos.measure(weights(), measures="signs, BDM", controls=2).rows[0]
    object.__setattr__(row, "control", control)
    flat = momos.Measurement((row,)).to_dict()["rows"][0]
    assert flat["shuffled_z"] is None
    assert (flat["shuffled_mean"], flat["shuffled_deviation"]) == (2.0, 0.0)
