"""Blocks are the weights in order, padded per parameter; reading and writing are inverses."""

from math import prod
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from momos import Layout, blocks
from momos.blocks import DTYPES, grouped

SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)
ARRANGEMENTS = ["contiguous", "transposed", "strided", "channels_last"]


def arranged(
    shape: tuple[int, ...], dtype: torch.dtype, how: str, seed: int
) -> nn.Parameter:
    """A parameter of random values that lie in memory as `how` says."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if how == "transposed":
        backwards = tuple(reversed(range(values.ndim)))
        values = values.permute(backwards).contiguous().permute(backwards)
    elif how == "strided":
        values = torch.stack([values, torch.zeros_like(values)], -1)[..., 0]
    elif how == "channels_last" and values.ndim == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(values)


@st.composite
def models(draw) -> nn.Module:
    kinds = st.tuples(SHAPES, st.sampled_from(DTYPES), st.sampled_from(ARRANGEMENTS))
    return nn.ParameterDict(
        {
            f"p{number}": arranged(*kind, seed=number)
            for number, kind in enumerate(draw(st.lists(kinds, min_size=1, max_size=4)))
        }
    )


def cut(model: nn.Module, block_size: int, dtype: torch.dtype) -> Tensor:
    """The definition of `read`, value by value."""
    rows = []
    for parameter in model.parameters():
        values = parameter.detach().to(dtype).flatten().tolist()
        values += [0.0] * (-len(values) % block_size)
        rows += [values[i : i + block_size] for i in range(0, len(values), block_size)]
    return torch.tensor(rows, dtype=dtype)


def of(model: nn.Module, block_size: int = 2, **patterns) -> Layout:
    return Layout.of(model, block_size=block_size, **patterns)


def names(layout: Layout) -> list[str]:
    return [placement.name for placement in layout.placements]


class Shared(nn.Module):
    """Two names for one parameter, and a bias."""

    def __init__(self, first: nn.Parameter, second: nn.Parameter) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.embedding.weight = first
        self.head = nn.Linear(3, 4)
        self.head.weight = second


# Reading and writing


@given(model=models(), block_size=st.integers(1, 9), piece=st.integers(1, 7))
def test_blocks_are_row_major_weights_padded_with_zeros(model, block_size, piece):
    layout = of(model, block_size)
    with patch.object(blocks, "PIECE", piece):
        read = layout.read(model)
    assert read.dtype == layout.dtype
    assert torch.equal(read, cut(model, block_size, layout.dtype))


@given(model=models(), block_size=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_what_was_written_is_read_back(model, block_size, seed):
    layout = of(model, block_size)
    written = torch.randn(
        layout.num_blocks, block_size, generator=torch.Generator().manual_seed(seed)
    ).bfloat16()  # 8 bits of mantissa,
    written = (
        (written * 2**4).round().div(2**4).clamp(-15, 15).to(layout.dtype)
    )  # in any dtype
    layout.write_(model, written)
    for placement in layout.placements:
        own = written[placement.start : placement.stop].view(-1)
        own[placement.num_weights :] = 0  # the padding is never stored
    assert torch.equal(layout.read(model), written)


@given(model=models(), block_size=st.integers(1, 9))
def test_writing_what_was_read_changes_nothing(model, block_size):
    before = [parameter.detach().clone() for parameter in model.parameters()]
    layout = of(model, block_size)
    layout.write_(model, layout.read(model))
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


@given(model=models(), block_size=st.integers(1, 5), piece=st.integers(1, 7))
def test_pieces_are_the_blocks_in_order_and_no_larger_than_allowed(
    model, block_size, piece
):
    layout = of(model, block_size)
    with patch.object(blocks, "PIECE", piece):
        pieces = list(layout.pieces(model))
    assert all(1 <= len(rows) <= piece for _, rows in pieces)
    assert all(rows.dtype == layout.dtype for _, rows in pieces)
    read, expected = layout.read(model), 0
    for start, rows in pieces:
        assert start == expected
        assert torch.equal(rows, read[start : start + len(rows)])
        expected += len(rows)
    assert expected == layout.num_blocks


@given(model=models(), block_size=st.integers(1, 9), data=st.data())
def test_taking_rows_is_indexing_what_is_read(model, block_size, data):
    layout = of(model, block_size)
    row = st.integers(0, layout.num_blocks - 1)
    rows = torch.tensor(data.draw(st.lists(row, max_size=30)), dtype=torch.int64)
    taken = layout.take(model, rows)
    assert taken.dtype == layout.dtype
    assert torch.equal(taken, layout.read(model)[rows])


def test_taking_pads_with_zeros_beside_an_infinite_weight():
    model = nn.ParameterDict({"a": torch.tensor([1.0, -torch.inf, torch.inf])})
    layout = of(model)
    assert torch.equal(layout.take(model, torch.arange(2)), layout.read(model))


@pytest.mark.parametrize("row", [-1, 8, 100])
def test_taking_a_row_that_is_not_there_is_refused(row):
    model = nn.Linear(4, 3)
    with pytest.raises(ValueError, match=f"rows must be 0 to 7, got {row}"):
        of(model).take(model, torch.tensor([0, row]))


def test_what_is_read_shares_no_memory_with_the_model():
    model = nn.ParameterDict({"a": torch.ones(6)})
    read = of(model).read(model)
    read.zero_()
    assert torch.equal(model["a"], torch.ones(6))


def test_what_is_read_carries_no_gradient():
    model = nn.Linear(4, 3)
    assert not of(model).read(model).requires_grad
    assert not of(model).take(model, torch.tensor([0])).requires_grad


@pytest.mark.parametrize("how", ARRANGEMENTS)
def test_writing_keeps_the_parameter_its_memory_and_its_gradient(how):
    parameter = arranged((2, 3, 4, 5), torch.float32, how, seed=0)
    parameter.grad = torch.ones_like(parameter)
    model = nn.ParameterDict({"a": parameter})
    place, strides = parameter.data_ptr(), parameter.stride()
    layout = of(model, 7)
    layout.write_(model, torch.zeros(layout.num_blocks, 7))
    assert model["a"] is parameter
    assert (parameter.data_ptr(), parameter.stride()) == (place, strides)
    assert not parameter.any()
    assert torch.equal(parameter.grad, torch.ones_like(parameter))
    assert parameter.requires_grad


# Which weights


def test_a_scalar_and_a_short_tensor_are_one_padded_block_each():
    model = nn.ParameterDict(
        {"scalar": torch.tensor(2.0), "short": torch.tensor([3.0, 4.0])}
    )
    layout = of(model, 4)
    assert layout.read(model).tolist() == [[2, 0, 0, 0], [3, 4, 0, 0]]
    assert (layout.num_blocks, layout.num_weights) == (2, 3)
    assert [(p.shape, p.start, p.stop) for p in layout.placements] == [
        ((), 0, 1),
        ((2,), 1, 2),
    ]


@given(model=models(), block_size=st.integers(1, 9))
def test_the_layout_counts_the_weights_and_the_blocks(model, block_size):
    layout = of(model, block_size)
    sizes = [prod(parameter.shape) for parameter in model.parameters()]
    assert layout.num_weights == sum(sizes)
    assert layout.num_blocks == sum(-(-size // block_size) for size in sizes)
    stops = [placement.stop for placement in layout.placements]
    assert [placement.start for placement in layout.placements] == [0, *stops[:-1]]


@pytest.mark.parametrize("in_memory_only", [False, True])
def test_tied_parameters_are_taken_once_under_their_first_name(in_memory_only):
    weight = nn.Parameter(torch.randn(4, 3))
    other = nn.Parameter(weight.detach()) if in_memory_only else weight
    layout = of(Shared(weight, other))
    assert names(layout) == ["embedding.weight", "head.bias"]
    assert layout.num_weights == 16


@pytest.mark.parametrize("in_memory_only", [False, True])
@pytest.mark.parametrize("alias", ["embedding.weight", "head.weight"])
def test_a_tied_parameter_is_left_out_under_either_name(in_memory_only, alias):
    weight = nn.Parameter(torch.randn(4, 3))
    other = nn.Parameter(weight.detach()) if in_memory_only else weight
    assert names(of(Shared(weight, other), exclude=(alias,))) == ["head.bias"]


@pytest.mark.parametrize("alias", ["embedding.*", "head.weight"])
def test_a_tied_parameter_is_taken_under_either_name(alias):
    weight = nn.Parameter(torch.randn(4, 3))
    assert names(of(Shared(weight, weight), include=(alias,))) == ["embedding.weight"]


def test_weights_that_are_frozen_under_another_name_are_left_out():
    weight = nn.Parameter(torch.randn(4, 3))
    frozen = nn.Parameter(weight.detach(), requires_grad=False)
    assert names(of(Shared(weight, frozen))) == ["head.bias"]


@pytest.mark.parametrize(
    "view", [Tensor.t, lambda weight: weight[:2], lambda weight: weight.view(-1)]
)
def test_parameters_that_overlap_without_being_one_are_refused(view):
    weight = torch.randn(4, 3)
    model = nn.ParameterDict({"a": weight, "b": nn.Parameter(view(weight))})
    model["a"] = nn.Parameter(weight)
    assert model["a"].data_ptr() == model["b"].data_ptr()
    with pytest.raises(ValueError, match=r"'a'.*'b'.*share memory"):
        of(model)


def test_a_parameter_whose_weights_share_memory_is_refused():
    wide = nn.Parameter(torch.ones(1, 3).expand(4, 3))
    model = nn.ParameterDict({"a": torch.ones(3), "wide": wide})
    with pytest.raises(ValueError, match=r"'wide'.*share memory"):
        of(model)


def test_frozen_and_empty_parameters_are_left_out():
    model = nn.ParameterDict(
        {
            "frozen": nn.Parameter(torch.ones(3), requires_grad=False),
            "empty": torch.ones(0, 3),
            "trained": torch.ones(3),
        }
    )
    model.register_buffer("counted", torch.ones(3))
    assert names(of(model)) == ["trained"]


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        (("*",), (), ["0.weight", "0.bias", "1.weight", "1.bias"]),
        (("*.weight",), (), ["0.weight", "1.weight"]),
        (("*",), ("*.bias", "1.*"), ["0.weight"]),
        (("1.*", "0.bias"), (), ["0.bias", "1.weight", "1.bias"]),
        (("[01].bias",), ("0*",), ["1.bias"]),
    ],
)
def test_patterns_choose_by_name(include, exclude, chosen):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    assert names(of(model, include=include, exclude=exclude)) == chosen


def test_patterns_see_the_case_of_letters():
    model = nn.ParameterDict({"w": torch.ones(2), "W": torch.ones(2)})
    assert names(of(model, include=("W",))) == ["W"]


def test_choosing_nothing_is_an_error_that_names_the_patterns():
    message = r"got none for include=\('conv\*',\), exclude=\('\*bias',\) among 2 trainable"
    with pytest.raises(ValueError, match=message):
        of(nn.Linear(3, 2), include=("conv*",), exclude=("*bias",))


def test_a_model_without_parameters_is_an_error():
    with pytest.raises(ValueError, match="at least one trainable parameter must be chosen"):
        of(nn.ReLU())


@pytest.mark.parametrize("name", ["include", "exclude"])
def test_one_string_is_not_a_sequence_of_patterns(name):
    with pytest.raises(TypeError, match=f"{name} must be a sequence of patterns.*'wei"):
        of(nn.Linear(3, 2), **{name: "weight"})


@pytest.mark.parametrize("block_size", [0, -1])
def test_a_block_holds_at_least_one_weight(block_size):
    with pytest.raises(
        ValueError, match=f"block_size must be at least 1, got {block_size}"
    ):
        of(nn.Linear(3, 2), block_size)


@pytest.mark.parametrize("block_size", [2.0, True, "2"])
def test_a_block_size_is_an_int(block_size):
    with pytest.raises(TypeError, match=f"block_size must be an int, got {block_size!r}"):
        of(nn.Linear(3, 2), block_size)


# What cannot be cut


def test_a_model_on_two_devices_is_refused_with_a_parameter_of_each():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, device="meta"))
    message = r"on one device, got cpu \('0\..*'\) and meta \('1\..*'\)"
    with pytest.raises(ValueError, match=message):
        of(model)
    assert names(of(model, exclude=("1.*",))) == ["0.weight", "0.bias"]


def test_a_lazy_parameter_is_refused_unless_it_is_left_out():
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    with pytest.raises(
        ValueError, match=r"'0\.weight' must be initialised \(run one forward"
    ):
        of(model)
    assert names(of(model, exclude=("0.*",))) == ["1.weight", "1.bias"]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_other_dtypes_are_refused_unless_they_are_left_out(dtype):
    model = nn.ParameterDict({"a": torch.ones(3), "odd": torch.ones(3).to(dtype)})
    message = f"float16, bfloat16, float32, float64, got {dtype} for parameter 'odd'"
    with pytest.raises(ValueError, match=message):
        of(model)
    assert names(of(model, exclude=("odd",))) == ["a"]


def test_a_model_without_values_has_a_layout_but_cannot_be_read():
    make = nn.Linear(3, 2), nn.Linear(3, 2, device="meta")
    layout = of(make[1])
    assert layout == of(make[0])
    with pytest.raises(ValueError, match="parameter 'weight' must hold values, got a meta"):
        layout.read(make[1])


def test_tied_parameters_without_values_are_taken_once():
    weight = nn.Parameter(torch.empty(4, 3, device="meta"))
    model = Shared(weight, weight).to("meta")
    model.head.weight = model.embedding.weight
    assert names(of(model)) == ["embedding.weight", "head.bias"]


@pytest.mark.parametrize(
    ("dtypes", "widest"),
    [
        ((torch.float16, torch.float16), torch.float16),
        ((torch.bfloat16, torch.bfloat16), torch.bfloat16),
        ((torch.float16, torch.bfloat16), torch.float32),
        ((torch.bfloat16, torch.float32), torch.float32),
        ((torch.float32, torch.float64), torch.float64),
    ],
)
def test_the_dtype_of_the_blocks_holds_every_parameter(dtypes, widest):
    model = nn.ParameterDict({f"p{i}": torch.ones(3).to(t) for i, t in enumerate(dtypes)})
    assert of(model).dtype == widest


# A layout of another model


@pytest.mark.parametrize("shape", [(8, 3), (7, 2), (16,), (8, 2, 1)])
def test_blocks_of_another_shape_are_not_written(shape):
    model = nn.ParameterDict({"a": torch.ones(15)})
    with pytest.raises(ValueError, match=r"blocks must have shape \(8, 2\), got"):
        of(model).write_(model, torch.zeros(shape))
    assert torch.equal(model["a"], torch.ones(15))


def test_a_layout_of_another_model_says_what_is_missing_and_writes_nothing():
    layout = of(nn.ParameterDict({"a": torch.ones(4), "b": torch.ones(4)}))
    model = nn.ParameterDict({"a": torch.ones(4)})
    with pytest.raises(ValueError, match="model must have the parameter 'b' of the layout"):
        layout.write_(model, torch.zeros(4, 2))
    assert torch.equal(model["a"], torch.ones(4))


def test_a_layout_of_another_shape_says_which_and_writes_nothing():
    layout = of(nn.ParameterDict({"a": torch.ones(4), "b": torch.ones(4)}))
    model = nn.ParameterDict({"a": torch.ones(4), "b": torch.ones(2, 2)})
    with pytest.raises(ValueError, match=r"'b' must have shape \(4,\), got \(2, 2\)"):
        layout.write_(model, torch.zeros(4, 2))
    with pytest.raises(ValueError, match="'b' must have shape"):
        layout.read(model)
    assert torch.equal(model["a"], torch.ones(4))


def test_a_layout_of_another_dtype_says_which_and_rounds_nothing():
    layout = of(nn.ParameterDict({"a": torch.ones(4)}))
    model = nn.ParameterDict({"a": torch.ones(4).double() / 3})
    with pytest.raises(
        ValueError, match=r"'a' must have dtype torch\.float32, got torch\.float64"
    ):
        layout.read(model)
    with pytest.raises(ValueError, match="'a' must have dtype"):
        layout.write_(model, torch.zeros(2, 2))


PATTERNS = st.lists(st.sampled_from(["a*", "*a", "b", "?c", "*", "none"]), max_size=3)


@given(names=st.sets(st.text("abc", min_size=1, max_size=3)), groups=st.lists(PATTERNS))
def test_groups_are_a_partition(names, groups):
    places = Layout.cut(2, ((name, (3,), torch.float32) for name in names)).placements
    found = list(grouped(places, tuple(map(tuple, groups))))
    assert all(found)
    assert sorted(p.name for members in found for p in members) == sorted(names)
    for members in found:
        assert members == sorted(members, key=lambda place: place.start)


def test_the_first_group_that_matches_counts_and_the_rest_comes_last():
    names = ("head.w", "body.w", "body.b", "tail.w")
    places = Layout.cut(2, ((name, (3,), torch.float32) for name in names)).placements
    found = list(grouped(places, (("*.b",), ("absent",), ("body*", "tail*"))))
    assert [[place.name for place in members] for members in found] == [
        ["body.b"],
        ["body.w", "tail.w"],
        ["head.w"],
    ]
