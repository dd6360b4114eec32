"""The loss on a plane through three networks (Garipov et al. 2018, arXiv 1802.10026, §3).

Axes are orthonormal in the space of parameters: x runs from the first network to the second, y at
a right angle to it, on the side of the third. Distances in the picture are Euclidean distances
of parameters, all of them, tied ones once.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor, nn

from momos.study.store import write_json

FILE = "plane.json"
FLAT = (
    1e-5  # below which share of its length the third network is on the line of the others
)

BETWEEN = 11  # places on a straight line, its ends among them

State = Mapping[str, Tensor]
Place = tuple[float, float]


Losses = tuple[float, ...]


@dataclass(frozen=True)
class Plane:
    """Loss at the crossings of `x` and `y`, a row for each y; and where the networks are.

    `lines` has the loss on the straight line from one network to another, at `BETWEEN` places.
    """

    title: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    loss: tuple[Losses, ...]
    points: Mapping[str, Place]
    lines: Mapping[tuple[str, str], Losses]
    unit: str

    def to_json(self, path: Path) -> None:
        """Writes it as a file, at once; losses that are not finite are null there."""
        lines = [
            {"from": first, "to": second, "loss": _finite(losses)}
            for (first, second), losses in self.lines.items()
        ]
        value = {
            "title": self.title,
            "x": self.x,
            "y": self.y,
            "loss": [_finite(row) for row in self.loss],
            "points": dict(self.points),
            "lines": lines,
            "unit": self.unit,
        }
        write_json(path, value)


def _finite(losses: Losses) -> list[float | None]:
    return [loss if math.isfinite(loss) else None for loss in losses]


@dataclass(frozen=True, eq=False)
class Span:
    """The plane that three networks span: where they are on it, and what network is anywhere."""

    points: Mapping[str, Place]
    _states: tuple[State, State, State]
    _parameters: frozenset[str]

    @classmethod
    def of(cls, network: nn.Module, states: Mapping[str, State | nn.Module]) -> "Span":
        """Of three networks, by name, that have the tensors of `network`.

        Raises:
            ValueError: if there are not three, one has other tensors or shapes or parameters
                that are not finite (names the tensor), or all are on one line.
        """
        if len(states) != 3:
            raise ValueError(f"networks must be three, got {', '.join(states) or 'none'}")
        found = {
            name: state.state_dict() if isinstance(state, nn.Module) else state
            for name, state in states.items()
        }
        parameters = frozenset(
            name
            for name, weight in network.named_parameters()
            if weight.is_floating_point()
        )
        for name, state in found.items():
            _check(name, state, network.state_dict(), parameters)
        first, second, third = found.values()
        places = _places(first, second, third, sorted(parameters), list(found))
        points = dict(zip(found, places, strict=True))
        return cls(points, (first, second, third), parameters)

    def state_at(self, x: float, y: float) -> dict[str, Tensor]:
        """The network at a place: that combination of the three whose parts sum to 1.

        Reckoned in float64, and exact where one of the three is. Buffers of floats, such as
        running statistics, are combined likewise, and kept between the least and the greatest
        of the three: beyond them a variance would fall below 0. Others are those of the first.
        """
        (_, _), (along, _), (across, up) = self.points.values()
        third = y / up
        second = (x - third * across) / along
        parts = (1 - second - third, second, third)
        return {name: self._at(name, parts) for name in self._states[0]}

    def _at(self, name: str, parts: tuple[float, float, float]) -> Tensor:
        tensors = [state[name] for state in self._states]
        if not tensors[0].is_floating_point():
            return tensors[0]
        three = torch.stack([tensor.detach().double() for tensor in tensors])
        mixed = torch.tensordot(three.new_tensor(parts), three, 1)
        if name not in self._parameters:
            mixed = mixed.clamp(three.amin(0), three.amax(0))
        return mixed.to(tensors[0].dtype)


def plane(
    loss: Callable[[nn.Module], float],
    network: nn.Module,
    states: Mapping[str, State | nn.Module],
    *,
    size: int = 21,
    margin: float = 0.25,
    refresh: Callable[[nn.Module], None] | None = None,
    title: str = "Loss plane",
    unit: str = "nats",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plane:
    """`loss` at size × size places around three networks of the shape of `network`, and on the
    straight lines between them.

    `states` are state dicts or networks, by name; `margin` is how far the picture goes beyond
    them, as a share of its extent. `network` is copied and stays as it is; the copy is in
    evaluation mode. Buffers are as `Span.state_at` says, or whatever `refresh` makes of them,
    which gets every network before its loss is taken: a pass over the training data, as a rule,
    without which losses between networks with BatchNorm say little.

    Raises:
        ValueError: if `size` is below 2 or `margin` negative, or the networks span no plane.
    """
    span = Span.of(network, states)
    x, y = (
        _axis(places, size, margin) for places in zip(*span.points.values(), strict=True)
    )
    pairs = {
        (first, second): _line(span.points[first], span.points[second])
        for first, second in combinations(span.points, 2)
    }
    places = [(along, up) for up in y for along in x]
    places += [place for line in pairs.values() for place in line]
    losses = []
    for value in _losses(loss, copy.deepcopy(network), span, places, refresh):
        losses.append(value)
        progress(len(losses), len(places))
    grid, between = losses[: size * size], losses[size * size :]
    return Plane(
        title,
        x,
        y,
        _rows(grid, size),
        span.points,
        dict(zip(pairs, _rows(between, BETWEEN), strict=True)),
        unit,
    )


def _losses(
    loss: Callable[[nn.Module], float],
    network: nn.Module,
    span: Span,
    places: Sequence[Place],
    refresh: Callable[[nn.Module], None] | None,
) -> Iterator[float]:
    for along, up in places:
        network.load_state_dict(span.state_at(along, up))
        if refresh is not None:
            refresh(network)
        yield float(loss(network.eval()))


def _rows(losses: list[float], length: int) -> tuple[Losses, ...]:
    starts = range(0, len(losses), length)
    return tuple(tuple(losses[start : start + length]) for start in starts)


def _line(first: Place, second: Place) -> list[Place]:
    shares = [number / (BETWEEN - 1) for number in range(BETWEEN)]
    (x, y), (along, up) = first, second
    return [(x + share * (along - x), y + share * (up - y)) for share in shares]


def _check(name: str, state: State, wanted: State, parameters: frozenset[str]) -> None:
    if others := sorted(state.keys() ^ wanted.keys()):
        raise ValueError(
            f"{name} must have the tensors of the network, got others or lacks some: "
            f"{', '.join(others)}"
        )
    for tensor, value in state.items():
        if value.shape != wanted[tensor].shape:
            raise ValueError(
                f"{name} must have the shapes of the network, got {tuple(value.shape)} and "
                f"{tuple(wanted[tensor].shape)} for tensor {tensor!r}"
            )
        if tensor in parameters and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must be finite, but tensor {tensor!r} is not")


def _places(
    first: State, second: State, third: State, parameters: list[str], names: list[str]
) -> tuple[Place, Place, Place]:
    """Where three networks are on their plane, by Gram and Schmidt."""

    def to(state: State) -> list[Tensor]:
        return [state[name].double() - first[name].double() for name in parameters]

    one, other = to(second), to(third)
    along, length = _norm(one), _norm(other)
    if not along:
        raise ValueError(f"networks must differ, but {names[0]} and {names[1]} are equal")
    axis = [part / along for part in one]
    across = math.fsum(float((a * b).sum()) for a, b in zip(axis, other, strict=True))
    up = _norm([b - across * a for a, b in zip(axis, other, strict=True)])
    if up <= FLAT * max(along, length):
        raise ValueError(
            f"networks must span a plane, but {', '.join(names)} are on one line"
        )
    return (0.0, 0.0), (along, 0.0), (across, up)


def _norm(parts: list[Tensor]) -> float:
    return math.sqrt(math.fsum(float(part.square().sum()) for part in parts))


def _axis(places: tuple[float, ...], size: int, margin: float) -> tuple[float, ...]:
    if size < 2:
        raise ValueError(f"size must be at least 2, got {size}")
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be at least 0, got {margin}")
    low, high = min(places), max(places)
    beyond = margin * (high - low)
    ends = (low - beyond, high + beyond)
    return tuple(torch.linspace(*ends, size, dtype=torch.float64).tolist())
