"""A mosaic is a value, and a model that is one can be told from a model that is not."""

import io
import pickle
from copy import deepcopy
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from momos import (
    Layout,
    Mosaic,
    MosaicConfig,
    description_length,
    discovery,
    freeze_,
    mosaic,
    parametrize_,
    project_,
)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# The largest number of motifs that each integer type holds, and one more.
INDEX_DTYPES = [
    (1, torch.uint8),
    (256, torch.uint8),
    (257, torch.int16),
    (32_768, torch.int16),
    (32_769, torch.uint16),
    (65_536, torch.uint16),
    (65_537, torch.int32),
]


def layout(weights: int, block_size: int = 1) -> Layout:
    return Layout.of(nn.ParameterDict({"a": torch.zeros(weights)}), block_size=block_size)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.LayerNorm(7), nn.Linear(7, 3))


def projected(**settings) -> nn.Module:
    model = network()
    project_(model, MosaicConfig(**{"num_motifs": 9} | settings))
    return model


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(
        a.view(BITS[a.itemsize]), b.view(BITS[b.itemsize])
    )


# The value


@pytest.mark.parametrize(("k", "dtype"), INDEX_DTYPES)
@pytest.mark.parametrize("given_as", [torch.int32, torch.int64])
def test_indices_take_the_smallest_type_that_holds_the_number_of_motifs(k, dtype, given_as):
    motifs, last = torch.arange(float(k))[:, None], k - 1
    value = Mosaic(
        motifs, torch.tensor([0, last, last // 2, last], dtype=given_as), layout(4)
    )
    assert value.indices.dtype == dtype
    assert value.indices.long().tolist() == [0, last, last // 2, last]
    assert value.dense()["a"].tolist() == [0, last, last // 2, last]
    assert value.usage()[last] >= 2
    assert value.num_motifs == k


@given(
    indices=st.lists(st.integers(0, 11), min_size=1, max_size=300),
    unused=st.integers(0, 300),
)
def test_usage_counts_the_blocks_of_each_motif(indices, unused):
    k = 12 + unused
    value = Mosaic(torch.zeros(k, 1), torch.tensor(indices), layout(len(indices)))
    assert value.usage().tolist() == [indices.count(j) for j in range(k)]
    assert value.usage().sum() == len(indices)


def test_a_mosaic_does_not_change_with_the_tensors_it_was_made_of():
    motifs, indices = (
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([0, 1, 1], dtype=torch.uint8),
    )
    value = Mosaic(motifs, indices, layout(3))
    motifs.zero_()
    indices.zero_()
    assert value.dense()["a"].tolist() == [1, 2, 2]


@pytest.mark.parametrize("shape", [(3, 4), (0, 2), (6,), (3, 2, 1), ()])
def test_motifs_have_the_block_size_of_the_layout(shape):
    message = r"motifs must have shape \(k, 2\) with k at least 1, got \("
    with pytest.raises(ValueError, match=message):
        Mosaic(torch.zeros(shape), torch.zeros(5).int(), layout(10, 2))


@pytest.mark.parametrize("shape", [(4,), (6,), (5, 1), ()])
def test_there_is_one_index_for_each_block(shape):
    with pytest.raises(ValueError, match=r"indices must have shape \(5,\), got \("):
        Mosaic(torch.zeros(3, 2), torch.zeros(shape).int(), layout(10, 2))


@pytest.mark.parametrize("index", [-1, 3, 255, 2**31, 2**32, -(2**32)])
def test_an_index_that_names_no_motif_is_refused(index):
    indices = torch.tensor([0, index, 2])
    message = rf"indices must be 0 to 2, got {min(index, 0)} to {max(index, 2)}"
    with pytest.raises(ValueError, match=message):
        Mosaic(torch.zeros(3, 1), indices, layout(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_indices_are_integers(dtype):
    with pytest.raises(TypeError, match=f"indices must be integers, got {dtype}"):
        Mosaic(torch.zeros(3, 1), torch.ones(3, dtype=dtype), layout(3))


# The weights


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_dense_weights_are_those_of_the_model_bit_for_bit(dtype, memory_format):
    model = network().to(dtype)
    model[0].to(memory_format=memory_format)
    value = project_(model, MosaicConfig(num_motifs=40, block_size=4)).mosaic
    dense = value.dense()
    assert list(dense) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert same_bits(dense[name], parameter.detach())
        assert not dense[name].requires_grad


@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3
    ),
    block_size=st.integers(1, 5),
    piece=st.integers(1, 4),
    transposed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_weights_written_are_the_motifs_named(
    shapes, block_size, piece, transposed, seed
):
    generator = torch.Generator().manual_seed(seed)
    parameters = [torch.zeros(shape[::-1]).T for shape in shapes]
    if not transposed:
        parameters = [parameter.contiguous() for parameter in parameters]
    model = nn.ParameterDict({f"p{i}": parameter for i, parameter in enumerate(parameters)})
    own = Layout.of(model, block_size=block_size)
    motifs = torch.randn(6, block_size, generator=generator)
    indices = torch.randint(6, (own.num_blocks,), generator=generator)
    value = Mosaic(motifs, indices, own)
    with patch.object(mosaic, "PIECE", piece):
        value.write_(model)
        assert Mosaic.of(model) is value
        dense = value.dense()
    for placement, parameter in zip(own.placements, model.parameters(), strict=True):
        flat = motifs[indices[placement.start : placement.stop]].flatten()
        expected = flat[: parameter.numel()].view_as(parameter)
        assert torch.equal(parameter, expected)
        assert torch.equal(dense[placement.name], expected)


def test_writing_into_another_model_says_why_not_and_writes_nothing():
    value = Mosaic.of(projected())
    other = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.Flatten(), nn.LayerNorm(8), nn.Linear(7, 3)
    )
    before = deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"'2\.weight' must have shape \(7,\), got \(8,\)"):
        value.write_(other)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, before[name])
    with pytest.raises(ValueError, match="never projected"):
        Mosaic.of(other)


def test_a_mosaic_can_be_written_into_a_model_of_the_same_shape():
    source, target = projected(), network()
    Mosaic.of(source).write_(target)
    assert Mosaic.of(target) is Mosaic.of(source)
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(a, b)


# The mosaic of a model


def test_a_projected_model_is_the_mosaic_of_its_projection():
    model = network()
    projection = project_(model, MosaicConfig(num_motifs=9))
    assert Mosaic.of(model) is projection.mosaic


def test_a_model_that_was_never_projected_says_so():
    with pytest.raises(ValueError, match="a mosaic, but Sequential was never projected"):
        Mosaic.of(network())


def test_after_a_step_of_the_optimizer_a_model_is_a_mosaic_no_more_and_says_where():
    model = projected()
    optimizer = torch.optim.SGD(model[3:].parameters(), lr=0.1)
    model[3](torch.randn(2, 7)).square().sum().backward()
    optimizer.step()
    message = r"parameter '3\.weight' differs from its motifs in 21 weights \(first in its block 0"
    with pytest.raises(ValueError, match=message):
        Mosaic.of(model)


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_every_weight_that_changed_is_counted(piece):
    model = projected(block_size=2)
    with torch.no_grad():
        model[0].weight.view(-1)[[13, 14, 99, 134]] += 1
    message = r"'0\.weight' differs from its motifs in 4 weights \(first in its block 6\)"
    with patch.object(mosaic, "PIECE", piece), pytest.raises(ValueError, match=message):
        Mosaic.of(model)


def test_a_weight_that_is_not_a_number_is_a_change():
    model = projected()
    with torch.no_grad():
        model[3].bias[2] = torch.nan
    message = r"'3\.bias' differs from its motifs in 1 weights \(first in its block 1\)"
    with pytest.raises(ValueError, match=message):
        Mosaic.of(model)


def test_a_model_of_another_dtype_is_not_the_mosaic_it_was():
    model = projected().double()  # equal values, but not bit for bit
    with pytest.raises(ValueError, match=r"'0\.weight' must have dtype torch\.float32"):
        Mosaic.of(model)


def test_weights_left_out_may_change():
    model = projected(exclude=("2.*",))
    with torch.no_grad():
        model[2].weight += 1
    Mosaic.of(model)


def test_a_weight_put_back_makes_the_model_a_mosaic_again():
    model = projected()
    dense = Mosaic.of(model).dense()
    with torch.no_grad():
        model[3].bias += 1
        model[3].bias.copy_(dense["3.bias"])
    Mosaic.of(model)


def test_a_copy_of_a_projected_model_is_a_mosaic_of_its_own():
    model = projected()
    copy = deepcopy(model)
    assert torch.equal(Mosaic.of(copy).indices, Mosaic.of(model).indices)
    assert torch.equal(Mosaic.of(copy).motifs, Mosaic.of(model).motifs)
    assert Mosaic.of(copy).layout == Mosaic.of(model).layout
    with torch.no_grad():
        copy[3].bias += 1
    with pytest.raises(ValueError, match=r"'3\.bias' differs"):
        Mosaic.of(copy)
    Mosaic.of(model)


def loaded(model: nn.Module, **settings) -> nn.Module:
    """Another object with the weights of `model`, as in another process."""
    other = network().to(next(model.parameters()).dtype)
    other.load_state_dict(model.state_dict())
    return other


def test_weights_that_were_loaded_are_a_mosaic_by_the_config_that_made_them():
    config = MosaicConfig(num_motifs=9)
    other = loaded(projected())
    with pytest.raises(
        ValueError, match=r"never projected .* momos\.Mosaic\.of\(model, config"
    ):
        Mosaic.of(other)
    found = Mosaic.of(other, config)
    for name, values in found.dense().items():
        assert same_bits(values, other.get_parameter(name).detach())
    assert found.config == config
    assert found.num_motifs <= 9
    assert not found.motifs[0].any()
    assert Mosaic.of(other) is found  # from now on


def test_a_config_that_allows_fewer_motifs_finds_none():
    settings = {"selection": "distinct", "min_ndim": 1}
    other = loaded(projected(num_motifs=40, **settings))
    with pytest.raises(
        ValueError,
        match=r"must be a mosaic as config says, but Sequential is not: weights must be at "
        r"most 39 distinct blocks, got more",
    ):
        Mosaic.of(other, MosaicConfig(num_motifs=39, **settings))
    assert Mosaic.of(other, MosaicConfig(num_motifs=40, **settings)).num_motifs == 40


def test_weights_of_another_epoch_are_found_by_the_config_remembered():
    model, best = network(), None
    config = MosaicConfig(num_motifs=9)
    for epoch in range(2):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(5, 3, 3, 3))
        mosaic = project_(model, config, generator=torch.Generator().manual_seed(epoch))
        best = best or (deepcopy(model.state_dict()), mosaic.mosaic)
    model.load_state_dict(best[0])
    found = Mosaic.of(model)
    assert found is not best[1]
    assert found.config == config
    for name, values in best[1].dense().items():
        assert same_bits(found.dense()[name], values)


def test_a_capacity_allows_motifs_for_the_blocks_there_are():
    settings = {"num_motifs": None, "capacity": 0.2, "block_size": 3}
    other = loaded(projected(**settings))
    found = Mosaic.of(other, MosaicConfig(block_size=3, capacity=0.2))
    assert found.num_motifs <= found.layout.num_blocks * 0.2
    assert found.layout == Mosaic.of(projected(**settings)).layout


def test_what_is_left_out_is_left_out_of_what_is_found():
    exclude = ("2.*", "3.bias")
    other = loaded(projected(exclude=exclude))
    found = Mosaic.of(other, MosaicConfig(num_motifs=9, exclude=exclude))
    names = [place.name for place in found.layout.placements]
    assert names == ["0.weight", "0.bias", "3.weight"]


def test_biases_that_stayed_dense_are_left_out_unless_the_config_says_so():
    """As they are where motifs are learned."""
    other = loaded(projected(min_ndim=2))
    found = Mosaic.of(other, MosaicConfig(num_motifs=9))
    assert [place.name for place in found.layout.placements] == ["0.weight", "3.weight"]
    with pytest.raises(ValueError, match="at most 9 distinct blocks"):
        Mosaic.of(other, MosaicConfig(num_motifs=9, min_ndim=1))


@given(
    shapes=st.lists(
        st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4
    ),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=4, max_size=4),
    block_size=st.integers(1, 6),
    num_motifs=st.integers(1, 9),
    zero_motif=st.booleans(),
    zeros=st.booleans(),
    piece=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_a_mosaic_is_found_again_bit_for_bit(
    shapes, dtypes, block_size, num_motifs, zero_motif, zeros, piece, seed
):
    draw = torch.Generator().manual_seed(seed)
    kinds = {torch.float32, *dtypes[: len(shapes)]}
    one = torch.float16 in kinds and torch.bfloat16 in kinds  # a motif rounds to both
    model = nn.ParameterDict(
        {
            f"p{i}": torch.randn(shape, generator=draw).to(dtypes[0] if one else dtypes[i])
            for i, shape in enumerate(shapes)
        }
    )
    own = Layout.of(model, block_size=block_size)
    motifs = torch.randn(num_motifs, block_size, generator=draw, dtype=own.dtype)
    if zeros:
        motifs = motifs * (torch.rand(motifs.shape, generator=draw) > 0.5)  # of both signs
    if zero_motif:
        motifs[0] = 0.0
    indices = torch.randint(num_motifs, (own.num_blocks,), generator=draw)
    Mosaic(motifs, indices, own).write_(model)
    other = deepcopy(model)
    del other.__dict__["_momos_mosaic"]
    config = MosaicConfig(
        block_size=block_size,
        num_motifs=num_motifs + num_motifs * len(kinds),
        zero_motif=zero_motif,
    )
    with patch.object(discovery, "PIECE", piece):
        found = Mosaic.of(other, config)
    assert Mosaic.of(other) is found
    for name, parameter in model.items():
        assert same_bits(found.dense()[name], parameter.detach())
    rows = {tuple(row) for row in found.motifs.double().tolist()}
    assert not zero_motif or not found.motifs[0].any()
    if len({p.dtype for p in model.values()}) == 1:
        assert found.num_motifs <= num_motifs
    assert found.num_motifs >= len(rows)


def test_zeros_of_both_signs_are_two_motifs():
    model = nn.ParameterDict({"a": torch.tensor([0.0, -0.0, -0.0, 0.0])})
    found = Mosaic.of(model, MosaicConfig(block_size=1, num_motifs=2))
    assert found.motifs.signbit().tolist() == [[False], [True]]
    with pytest.raises(ValueError, match="at most 1 distinct blocks"):
        Mosaic.of(deepcopy(model), MosaicConfig(block_size=1, num_motifs=1))


def test_a_last_block_is_a_motif_that_begins_so():
    model = nn.ParameterDict({"a": torch.arange(6.0), "b": torch.arange(8.0)[:4]})
    model["c"] = torch.tensor([7.0, 7.0, 7.0, 3.0, 4.0])
    config = MosaicConfig(block_size=3, num_motifs=3, zero_motif=False)
    found = Mosaic.of(model, config)
    assert sorted(found.motifs.tolist()) == [[0, 1, 2], [3, 4, 5], [7, 7, 7]]
    places = found.layout.placements
    assert found.indices[places[1].stop - 1] == found.indices[places[0].stop - 1]


def test_weights_that_are_not_finite_are_no_mosaic():
    model = nn.ParameterDict({"a": torch.tensor([1.0, torch.nan])})
    with pytest.raises(
        ValueError, match="finite, got 1 of 2 NaN or infinite in parameter 'a'"
    ):
        Mosaic.of(model, MosaicConfig(num_motifs=9))


LEARNED = [
    {"num_motifs": 24},
    {"num_motifs": 24, "scales": "none"},
    {"num_motifs": 24, "scales": "channel", "bits": 7},
    {"num_motifs": 6, "bits": 3, "block_size": 3},
    {"num_motifs": 20, "groups": (("3.*",),), "bits": 6},
    {"num_motifs": 24, "scales": "none", "bits": 16},
    {"num_motifs": 24, "scales": "none", "bits": 32, "zero_motif": False},
]


@pytest.mark.parametrize("settings", LEARNED)
def test_learned_motifs_and_their_scales_are_found_again(settings):
    config, model = MosaicConfig.learned(**settings), network()
    parametrize_(model, config, learn="weights")
    mosaic = freeze_(model)
    other = loaded(model)
    found = Mosaic.of(other, config)
    for name, values in mosaic.dense().items():
        assert same_bits(found.dense()[name], values)
    assert found.layout == mosaic.layout
    assert found.motifs.dtype == mosaic.motifs.dtype
    assert found.num_motifs <= mosaic.num_motifs
    assert (found.scales is None) == (mosaic.scales is None)
    with torch.no_grad():
        other[0].weight.add_(torch.randn(5, 3, 3, 3))
    with pytest.raises(ValueError, match=r"'0\.weight'"):
        Mosaic.of(other)
    with pytest.raises(
        ValueError, match="must be a mosaic as config says, but Sequential is"
    ):
        Mosaic.of(loaded(other), config)


def test_scales_of_wide_motifs_cannot_be_found():
    config, model = MosaicConfig.learned(num_motifs=24, bits=16), network()
    parametrize_(model, config, learn="weights")
    freeze_(model)
    with pytest.raises(ValueError, match=r"at most 8 bits .* scales, got bits=16 \(pickle"):
        Mosaic.of(loaded(model), config)


def test_tensors_whose_steps_have_a_common_factor_share_motifs_all_the_same():
    """The second's are twice as large as they were, since all its values are even."""
    rows = torch.tensor([[1, 5], [2, -4], [6, 8], [0, 0]], dtype=torch.int8)
    model = nn.ParameterDict({"a": torch.zeros(10, 2), "b": torch.zeros(3, 2)})
    indices = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 1])
    scales = (torch.tensor([0.3]), torch.tensor([0.7]))
    scales = tuple(scale.bfloat16().float() for scale in scales)
    Mosaic(rows, indices, Layout.of(model, block_size=2), scales).write_(model)
    twin = nn.ParameterDict({name: weight.detach() for name, weight in model.items()})
    config = MosaicConfig.learned(num_motifs=4)
    found = Mosaic.of(nn.ParameterDict(dict(twin)), config)
    assert found.num_motifs == 4
    assert [scale.item() for scale in found.scales] == [scale.item() for scale in scales]


# What a module remembers


class Unpickler(pickle.Unpickler):
    """As on a machine without momos."""

    def find_class(self, module: str, name: str):
        assert not module.startswith("momos"), f"{module}.{name}"
        return super().find_class(module, name)


def test_a_pickled_model_needs_no_momos():
    model = projected()
    twin = Unpickler(io.BytesIO(pickle.dumps(model))).load()
    inputs = torch.randn(2, 3, 3, 3)
    with patch.object(nn.Conv2d, "__call__", nn.Conv2d.__call__):
        assert torch.equal(twin[0](inputs), model[0](inputs))
    for parameter, own in zip(twin.parameters(), model.parameters(), strict=True):
        assert torch.equal(parameter, own)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_pickled_model_is_the_same_mosaic_where_momos_is(scaled):
    model = projected()
    if scaled:
        mosaic = Mosaic.of(model)
        scales = tuple(torch.rand(1) + 0.5 for _ in mosaic.layout.placements)
        Mosaic(mosaic.motifs, mosaic.indices, mosaic.layout, scales).write_(model)
    twin, mosaic = pickle.loads(pickle.dumps(model)), Mosaic.of(model)
    found = Mosaic.of(twin)
    assert Mosaic.of(twin) is found
    assert same_bits(found.motifs, mosaic.motifs)
    assert torch.equal(found.indices, mosaic.indices)
    assert (found.layout, found.config) == (mosaic.layout, mosaic.config)
    for scale, own in zip(found.scales or (), mosaic.scales or (), strict=True):
        assert torch.equal(scale, own)
    with torch.no_grad():
        twin[3].bias.add_(torch.randn(3))
        twin[3].weight.add_(torch.randn(3, 7))
    with pytest.raises(ValueError, match=r"'3\.weight' differs"):
        Mosaic.of(twin)


class OptimizedModule(nn.Module):
    """Like that of torch.compile, which takes seconds to load."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model


def test_a_model_that_is_compiled_or_run_in_parallel_says_which_module_is_the_mosaic():
    model = projected()
    for wrapper, name in (
        (OptimizedModule(model), "_orig_mod"),
        (nn.DataParallel(model), "module"),
        (nn.Sequential(nn.ReLU(), model), "1"),
    ):
        kind = type(wrapper).__name__
        message = (
            f"but {kind} was never projected; its submodule '{name}' was: pass that one"
        )
        with pytest.raises(ValueError, match=message):
            Mosaic.of(wrapper)


def test_what_is_projected_as_a_wrapper_is_remembered_inside_too():
    model = network()
    mosaic = project_(
        OptimizedModule(nn.DataParallel(model)), MosaicConfig(num_motifs=9)
    ).mosaic
    found = Mosaic.of(model)
    assert torch.equal(found.indices, mosaic.indices)
    assert found.layout == Layout.of(model, block_size=2, min_ndim=1)


def test_the_state_of_a_projected_model_is_that_of_any_model():
    assert list(projected().state_dict()) == list(network().state_dict())
    network().load_state_dict(projected().state_dict())


def test_a_model_projected_again_is_the_last_mosaic():
    model = projected()
    second = project_(model, MosaicConfig(num_motifs=3, seed=1)).mosaic
    assert Mosaic.of(model) is second


def test_a_submodule_is_a_part_of_its_mosaic():
    model = nn.Sequential(nn.Linear(5, 7), nn.Sequential(nn.Linear(7, 3), nn.Linear(3, 3)))
    mosaic = project_(model, MosaicConfig(block_size=4, num_motifs=8)).mosaic
    part = mosaic.within("1")
    assert [place.name for place in part.layout.placements] == [
        *("0.weight", "0.bias", "1.weight", "1.bias")
    ]
    assert torch.equal(part.motifs, mosaic.motifs)
    assert part.config == mosaic.config
    part.remember_(model[1])
    assert Mosaic.of(model[1]) is part
    with pytest.raises(ValueError, match="a parameter of the mosaic must be below '2'"):
        mosaic.within("2")


def test_scales_multiply_the_motifs_of_their_parameter():
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    mosaic = project_(model, MosaicConfig(block_size=4, num_motifs=8)).mosaic
    scales = tuple(torch.tensor([scale]) for scale in (0.5, 2.0, 3.0, 1.1))
    scaled = Mosaic(mosaic.motifs, mosaic.indices, mosaic.layout, scales)
    plain = mosaic.dense()
    for scale, (name, values) in zip(scales, scaled.dense().items(), strict=True):
        assert torch.equal(values, plain[name] * scale)
    assert torch.equal(torch.cat(scaled.within("1").scales), torch.cat(scales[2:]))
    length = description_length(scaled)
    assert length.bank == description_length(mosaic).bank + 4 * 32
    scaled.write_(model)
    assert Mosaic.of(model) is scaled


@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    block_size=st.integers(1, 9),
    whole=st.booleans(),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_scales_multiply_the_motifs_of_their_channel(shape, block_size, whole, dtype, seed):
    draw = torch.Generator().manual_seed(seed)
    layout = Layout.cut(block_size, [("a", shape, dtype)])
    motifs = torch.randn(5, block_size, generator=draw).mul(40)
    motifs = motifs.to(torch.int8) if whole else motifs
    indices = torch.randint(5, (layout.num_blocks,), generator=draw)
    scale = torch.rand(shape[0], generator=draw) + 0.01
    found = Mosaic(motifs, indices, layout, (scale,)).dense()["a"]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    flat = motifs[indices].to(wide).view(-1)[: found.numel()]
    expected = flat.view(shape[0], -1) * scale.to(wide)[:, None]
    assert torch.equal(found, expected.to(dtype).view(shape))


def test_pieces_that_begin_within_a_channel_have_its_scale(monkeypatch):
    layout = Layout.cut(3, [("a", (4, 11), torch.float32)])
    motifs = torch.randn(5, 3)
    indices = torch.arange(layout.num_blocks) % 5
    mosaic = Mosaic(motifs, indices, layout, (torch.tensor([0.5, 3.0, 0.7, 2.0]),))
    expected = mosaic.dense()["a"]
    monkeypatch.setattr("momos.mosaic.PIECE", 2)
    assert len(list(mosaic.rebuilt(layout.placements[0]))) > 4
    assert torch.equal(mosaic.dense()["a"], expected)


def test_motifs_of_int8_must_have_scales():
    layout = Layout.cut(2, [("a", (4,), torch.float32)])
    motifs, indices = torch.ones(3, 2, dtype=torch.int8), torch.zeros(2).int()
    with pytest.raises(ValueError, match="motifs of int8 must have scales, got none"):
        Mosaic(motifs, indices, layout)
    with pytest.raises(TypeError, match=r"must be floating or int8, got torch\.int32"):
        Mosaic(motifs.int(), indices, layout)
    mosaic = Mosaic(motifs, indices, layout, (torch.ones(1),))
    assert mosaic.motifs.dtype == torch.int8


def test_a_mosaic_of_whole_motifs_is_written_and_found_again():
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    layout = Layout.of(model, block_size=4)
    indices = torch.arange(layout.num_blocks) % 6
    motifs = torch.randint(-7, 8, (6, 4), dtype=torch.int8)
    scales = tuple(torch.rand(p.shape[0]) + 0.1 for p in layout.placements)
    mosaic = Mosaic(motifs, indices, layout, scales)
    mosaic.write_(model)
    assert Mosaic.of(model) is mosaic
    part = mosaic.within("1")
    assert torch.equal(part.dense()["weight"], model[1].weight)


@pytest.mark.parametrize(
    ("scales", "error", "message"),
    [
        (torch.ones(4), TypeError, "must be a tuple of tensors, one for each parameter"),
        ((torch.ones(1),) * 3, ValueError, "must be 4 tensors, one for each parameter"),
        (
            (*[torch.ones(1)] * 3, torch.ones(1).double()),
            ValueError,
            r"of parameter '1\.bias' must be 1 or 3 float32 values, got torch\.float64",
        ),
        ((torch.ones(5), *[torch.ones(1)] * 3), ValueError, r"'0\.weight' must be 1 or 7"),
        ((torch.ones(0), *[torch.ones(1)] * 3), ValueError, r"'0\.weight' must be 1 or 7"),
        ((torch.ones(()), *[torch.ones(1)] * 3), ValueError, r"must be 1 or 7 .* \(\)"),
        *(
            (
                (torch.ones(1), torch.tensor([value]), *[torch.ones(1)] * 2),
                ValueError,
                r"must be finite and above 0, got others for parameter '0\.bias'",
            )
            for value in (0.0, -1.0, torch.inf, torch.nan)
        ),
    ],
)
def test_scales_that_are_none_are_refused(scales, error, message):
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    mosaic = project_(model, MosaicConfig(block_size=4, num_motifs=8)).mosaic
    with pytest.raises(error, match=message):
        Mosaic(mosaic.motifs, mosaic.indices, mosaic.layout, scales)


def test_motifs_that_are_not_finite_are_refused():
    mosaic = project_(nn.Linear(5, 7), MosaicConfig(block_size=4, num_motifs=8)).mosaic
    with pytest.raises(ValueError, match="motifs must be finite"):
        Mosaic(mosaic.motifs * torch.nan, mosaic.indices, mosaic.layout)


def test_a_weight_whose_zero_changed_its_sign_is_no_mosaic():
    model = nn.Linear(5, 7)
    project_(model, MosaicConfig(block_size=4, num_motifs=1))
    with torch.no_grad():
        model.weight.neg_()
    with pytest.raises(ValueError, match="differs from its motifs in 35 weights"):
        Mosaic.of(model)
