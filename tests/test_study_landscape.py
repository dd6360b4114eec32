"""The plane goes through its three networks, and keeps distances."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from momos.study.plane import Plane
from momos.study.training.landscape import Span, plane

seeds = st.integers(0, 1000)
NAMES = ("start", "dense", "mosaic")


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).to(dtype)


def normalized(seed: int) -> nn.Module:
    """With BatchNorm, whose statistics differ from seed to seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
        for _ in range(seed + 1):
            found(torch.randn(8, 5))
    return found


def states(networks: dict[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    return {name: each.state_dict() for name, each in networks.items()}


def three(seed: int, build=network) -> dict[str, nn.Module]:
    return {name: build(3 * seed + i) for i, name in enumerate(NAMES)}


def flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in state.values()])


def vector(*values: float) -> nn.Module:
    """A network of as many weights and no others."""
    found = nn.Linear(len(values), 1, bias=False)
    found.weight.data = torch.tensor([values], dtype=torch.float32)
    return found


# The plane


@given(seeds, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
@settings(max_examples=25)
def test_it_goes_through_its_networks_exactly(seed, dtype):
    networks = three(seed, lambda number: network(number, dtype))
    span = Span.of(network(0, dtype), states(networks))
    for name, (x, y) in span.points.items():
        state = span.state_at(x, y)
        for tensor, value in networks[name].state_dict().items():
            assert torch.equal(state[tensor], value)


@given(seeds, st.tuples(*[st.floats(-2, 2)] * 4))
@settings(max_examples=25)
def test_distances_in_it_are_those_of_parameters(seed, places):
    build = three(seed, lambda number: network(number, torch.float64))
    span = Span.of(network(0, torch.float64), states(build))
    (a, b), (c, d) = places[:2], places[2:]
    apart = flat(span.state_at(a, b)) - flat(span.state_at(c, d))
    assert float(apart.norm()) == pytest.approx(math.hypot(a - c, b - d), abs=1e-9)


def test_the_first_is_the_origin_and_the_second_on_the_x_axis():
    networks = {"a": vector(1, 1, 0), "b": vector(4, 1, 0), "c": vector(2, 5, 0)}
    span = Span.of(vector(0, 0, 0), states(networks))
    assert span.points == {"a": (0.0, 0.0), "b": (3.0, 0.0), "c": (1.0, 4.0)}
    assert flat(span.state_at(-1.0, 2.0)).tolist() == [0.0, 3.0, 0.0]


def test_tied_parameters_count_once():
    def tied(seed: int) -> nn.Module:
        found = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        torch.nn.init.normal_(
            found[0].weight, generator=torch.Generator().manual_seed(seed)
        )
        found[1].weight = found[0].weight
        return found

    networks = three(0, tied)
    start, dense = (networks[name][0].weight.detach() for name in ("start", "dense"))
    length = (dense - start).norm()
    assert Span.of(tied(9), states(networks)).points["dense"][0] == pytest.approx(
        float(length)
    )


# Buffers


def test_buffers_go_along_and_never_beyond_the_three():
    networks = three(0, normalized)
    span = Span.of(normalized(0), states(networks))
    (x, _), (far, up) = span.points["dense"], span.points["mosaic"]
    middle = span.state_at(x / 2, 0.0)["1.running_var"]
    ends = [networks[name].state_dict()["1.running_var"] for name in NAMES]
    assert torch.allclose(middle, (ends[0] + ends[1]) / 2)
    beyond = span.state_at(-50 * x + far, 60 * up)["1.running_var"]
    least, most = torch.stack(ends).amin(0), torch.stack(ends).amax(0)
    assert bool(((least <= beyond) & (beyond <= most)).all())
    assert bool((beyond > 0).all())


def test_counts_are_those_of_the_first():
    span = Span.of(normalized(0), states(three(0, normalized)))
    assert int(span.state_at(1.0, 1.0)["1.num_batches_tracked"]) == 1


def test_buffers_do_not_move_the_networks():
    networks = three(0, normalized)
    points = Span.of(normalized(0), states(networks)).points
    for each in networks.values():
        each[1].running_mean.add_(torch.rand(4))
    assert Span.of(normalized(0), states(networks)).points == points


# Losses


def test_losses_are_rows_of_y_and_the_network_stays_as_it_is():
    networks = {"a": vector(0, 0), "b": vector(2, 0), "c": vector(0, 1)}
    own = vector(7, 7)
    found = plane(
        lambda one: float(one.weight.detach() @ torch.tensor([1.0, 10.0])),
        own,
        states(networks),
        size=3,
        title="a plane",
    )
    assert found.x == (-0.5, 1.0, 2.5)
    assert found.y == (-0.25, 0.5, 1.25)
    for y, row in zip(found.y, found.loss, strict=True):
        assert row == pytest.approx([x + 10 * y for x in found.x])
    assert own.weight.tolist() == [[7.0, 7.0]]
    assert own.training
    assert list(found.lines) == [("a", "b"), ("a", "c"), ("b", "c")]
    tenths = [number / 10 for number in range(11)]
    assert found.lines["a", "b"] == pytest.approx([2 * share for share in tenths])
    assert found.lines["b", "c"] == pytest.approx([2 + 8 * share for share in tenths])


@given(st.integers(2, 6))
@settings(max_examples=25)
def test_the_grid_holds_all_three(size):
    networks = {"a": vector(0, 0), "b": vector(2, 0), "c": vector(-3, 1)}
    found = plane(lambda one: 0.0, vector(0, 0), states(networks), size=size, title="a")
    assert len(found.x) == len(found.y) == len(found.loss) == size
    for x, y in found.points.values():
        assert found.x[0] <= x <= found.x[-1]
        assert found.y[0] <= y <= found.y[-1]


def test_it_is_written_as_json_with_null_for_what_is_not_finite(tmp_path):
    points = {"a": (0.0, 0.0), "b": (1.0, 0.0), "c": (0.0, 1.0)}
    losses = ((0.5, math.nan), (math.inf, 2.0))
    lines = {("a", "b"): (0.5, math.nan, 1.0)}
    path = tmp_path / "plane.json"
    Plane("Digits", (0.0, 1.0), (0.0, 2.0), losses, points, lines, "nats").write(path)

    def refused(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refused) == {
        "title": "Digits",
        "x": [0.0, 1.0],
        "y": [0.0, 2.0],
        "loss": [[0.5, None], [None, 2.0]],
        "lines": [{"from": "a", "to": "b", "loss": [0.5, None, 1.0]}],
        "points": {"a": [0.0, 0.0], "b": [1.0, 0.0], "c": [0.0, 1.0]},
        "unit": "nats",
    }


# What spans no plane


@given(seeds, st.floats(-3, 3))
@settings(max_examples=25)
def test_networks_on_a_line_are_refused(seed, share):
    first, second = network(2 * seed), network(2 * seed + 1)
    third = network()
    for own, a, b in zip(
        third.parameters(), first.parameters(), second.parameters(), strict=True
    ):
        own.data = a.data + share * (b.data - a.data)
    with pytest.raises(ValueError, match="must span a plane, but a, b, c are on one line"):
        Span.of(network(), states({"a": first, "b": second, "c": third}))


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        ({"a": vector(1, 1), "b": vector(1, 2)}, "networks must be three, got a, b"),
        ({}, "networks must be three, got none"),
        (
            {"a": vector(1, 1), "b": vector(1, 1), "c": vector(1, 2)},
            "networks must differ, but a and b are equal",
        ),
        (
            {"a": vector(1, 1), "b": vector(1, 2), "c": vector(1, 1)},
            "are on one line",
        ),
        (
            {"a": vector(1, 1), "b": vector(1, 2, 3), "c": vector(2, 1)},
            r"b must have the shapes of the network, got \(1, 3\) and \(1, 2\) for tensor "
            "'weight'",
        ),
        (
            {"a": vector(1, 1), "b": vector(1, 2), "c": nn.Linear(2, 1)},
            "c must have the tensors of the network, got others or lacks some: bias",
        ),
        (
            {"a": vector(1, 1), "b": vector(1, math.nan), "c": vector(2, 1)},
            "b must be finite, but tensor 'weight' is not",
        ),
    ],
)
def test_what_spans_no_plane(networks, words):
    with pytest.raises(ValueError, match=words):
        Span.of(vector(0, 0), states(networks))


def test_what_is_no_grid():
    with pytest.raises(ValueError, match="size must be at least 2, got 1"):
        plane(lambda one: 0.0, network(), states(three(0)), size=1, title="a plane")


def test_a_plane_of_too_many_bytes_is_not_read(tmp_path):
    path = tmp_path / "plane.json"
    with path.open("wb") as file:
        file.truncate(2**26 + 1)
    words = (
        "plane.json is damaged: plane.json must have at most 67108864 bytes, got 67108865"
    )
    with pytest.raises(ValueError, match=words):
        Plane.read(path)


def test_a_plane_is_read_as_it_was_written(tmp_path):
    points = {"a": (0.0, 0.0), "b": (1.0, 0.0), "c": (0.0, 1.0)}
    lines = {("a", "b"): (0.5, 0.7, 1.0)}
    axis, path = (0.0, 1.0), tmp_path / "plane.json"
    found = Plane("Digits", axis, axis, ((0.5, 1.0), (2.0, 3.0)), points, lines, "nats")
    found.write(path)
    assert Plane.read(path) == found
    stored = json.loads(path.read_text())
    del stored["lines"]  # of files that have none
    path.write_text(json.dumps(stored))
    assert Plane.read(path).lines == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"title": 3}, "title must be text, got 3"),
        ({"loss": [[1.0]]}, "loss must be at each of 2 × 2 places, .* got 1 rows of"),
        ({"loss": [[None] * 2] * 2}, "loss must be finite somewhere"),
        ({"x": [1.0, 0.0]}, "places on x and y must rise"),
        ({"y": [0.0, math.inf]}, "places must be finite"),
        (
            {"lines": [{"from": "a", "to": "z", "loss": [1.0]}]},
            "that of 'a' to 'z' has not",
        ),
    ],
)
def test_a_plane_that_is_damaged_says_how(change, words, tmp_path):
    points = {"a": (0.0, 0.0), "b": (1.0, 0.0)}
    axis, path = (0.0, 1.0), tmp_path / "plane.json"
    Plane("Digits", axis, axis, ((0.5, 1.0), (2.0, 3.0)), points, {}, "nats").write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"plane.json is damaged: .*{words}"):
        Plane.read(path)
