"""Computes the loss on a plane through three networks (Garipov et al. 2018, arXiv 1802.10026, §3).

Axes are orthonormal in the space of parameters, tied ones counted once: x runs from the first
network to the second, y at a right angle to it, on the side of the third.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from momos.study.plane import Losses, Place, Plane, Wanted
from momos.study.store import WEIGHTS
from momos.study.tasks.zoo import network as network_of
from momos.study.training.learner import loss_of
from momos.study.training.preparation import prepared

FLAT = (
    1e-5  # share of its length below which the third network is on the line of the others
)
BETWEEN = 11  # places on a straight line, its ends among them
MARGIN = 0.25  # how far the picture goes beyond the networks, as a share of its extent

State = Mapping[str, Tensor]


def write_plane(wanted: Wanted, root: Path) -> Path:
    """Computes a plane from finished runs under `root`, unless it is there; where it is."""
    path, start = wanted.path(root), next(iter(wanted.cells.values()))
    if path.exists():
        return path
    task = prepared(start).task
    data = list(islice(task.batches(torch.Generator().manual_seed(0)), wanted.batches))

    @torch.no_grad()
    def loss(network: nn.Module) -> float:
        return sum(float(loss_of(network, *batch)) for batch in data) / len(data)

    states = {n: load_file(root / c.folder / WEIGHTS) for n, c in wanted.cells.items()}
    network = network_of(start.network, task, start.seed)
    which = f"{start.task}, {start.network}" if start.network else start.task
    title = f"{which}, seed {start.seed}: training loss around dense network and mosaic"
    path.parent.mkdir(parents=True, exist_ok=True)
    plane(loss, network, states, size=wanted.size, title=title).write(path)
    return path


def plane(
    loss: Callable[[nn.Module], float],
    network: nn.Module,
    states: Mapping[str, State],
    *,
    size: int,
    title: str,
) -> Plane:
    """`loss`, in nats, at size × size places around three networks of the shape of `network`, and
    on the straight lines between them.

    `network` is copied and stays as it is; the copy is in evaluation mode.
    """
    if size < 2:
        raise ValueError(f"size must be at least 2, got {size}")
    span = Span.of(network, states)
    x, y = (_axis(ends, size) for ends in zip(*span.points.values(), strict=True))
    network = copy.deepcopy(network)

    def losses(places: Sequence[Place]) -> Losses:
        found = []
        for place in places:
            network.load_state_dict(span.state_at(*place))
            found.append(float(loss(network.eval())))
        return tuple(found)

    grid = tuple(losses([(along, up) for along in x]) for up in y)
    lines = {
        (first, second): losses(_line(span.points[first], span.points[second]))
        for first, second in combinations(span.points, 2)
    }
    return Plane(title, x, y, grid, span.points, lines, unit="nats")


@dataclass(frozen=True, eq=False)
class Span:
    """The plane that three networks span: where they are on it, and what network is anywhere."""

    points: Mapping[str, Place]
    states: tuple[State, ...]
    parameters: frozenset[str]

    @classmethod
    def of(cls, network: nn.Module, states: Mapping[str, State]) -> "Span":
        """Of the states of three networks, by name, that have the tensors of `network`."""
        if len(states) != 3:
            raise ValueError(f"networks must be three, got {', '.join(states) or 'none'}")
        named = network.named_parameters()
        parameters = frozenset(n for n, weight in named if weight.is_floating_point())
        for name, state in states.items():
            _check(name, state, network.state_dict(), parameters)
        return cls(_places(states, sorted(parameters)), (*states.values(),), parameters)

    def state_at(self, x: float, y: float) -> dict[str, Tensor]:
        """The network at a place: the combination of the three whose parts sum to 1.

        Computed in float64, and exact where one of the three is. Buffers of floats are kept
        between the least and the greatest of the three, since beyond them a variance would fall
        below 0. Other buffers are those of the first.
        """
        (_, _), (along, _), (across, up) = self.points.values()
        third = y / up
        second = (x - third * across) / along
        parts = torch.tensor((1 - second - third, second, third), dtype=torch.float64)
        return {name: self._mixed(name, parts) for name in self.states[0]}

    def _mixed(self, name: str, parts: Tensor) -> Tensor:
        first, *_ = tensors = [state[name] for state in self.states]
        if not first.is_floating_point():
            return first
        three = torch.stack([tensor.detach().double() for tensor in tensors])
        mixed = torch.tensordot(parts, three, 1)
        if name not in self.parameters:
            mixed = mixed.clamp(three.amin(0), three.amax(0))
        return mixed.to(first.dtype)


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


def _places(states: Mapping[str, State], parameters: list[str]) -> dict[str, Place]:
    """Where three networks are on their plane, by Gram and Schmidt."""
    first, second, third = (
        torch.cat([state[name].double().flatten() for name in parameters])
        for state in states.values()
    )
    one, other = second - first, third - first
    along, length, names = float(one.norm()), float(other.norm()), list(states)
    if not along:
        raise ValueError(f"networks must differ, but {names[0]} and {names[1]} are equal")
    across = float(one @ other) / along
    up = float((other - across / along * one).norm())
    if up <= FLAT * max(along, length):
        raise ValueError(
            f"networks must span a plane, but {', '.join(names)} are on one line"
        )
    return dict(zip(names, [(0.0, 0.0), (along, 0.0), (across, up)], strict=True))


def _axis(ends: tuple[float, ...], size: int) -> tuple[float, ...]:
    beyond = MARGIN * (max(ends) - min(ends))
    low, high = min(ends) - beyond, max(ends) + beyond
    return tuple(torch.linspace(low, high, size, dtype=torch.float64).tolist())


def _line(first: Place, second: Place) -> list[Place]:
    shares = [number / (BETWEEN - 1) for number in range(BETWEEN)]
    (x, y), (along, up) = first, second
    return [(x + share * (along - x), y + share * (up - y)) for share in shares]
