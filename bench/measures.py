"""What the measures say of trained networks against initializations of the same networks.

The demo's networks against their own starts, pretrained ResNets against a seeded start. A cell is
trained / start = arrangement · value distribution, where arrangement is trained over the mean of ten
shuffles of the trained weights; z is how many deviations of the shuffles that is. Below, the time
for 10⁷ Gaussian float32 weights.
"""

import time
from collections.abc import Iterator

import torch
from measure import table
from torch import nn

import momos
from momos.study.tasks import TASKS
from momos.study.tasks.architectures import ResNet
from networks import RESNETS, resnets, trained_demo


def networks() -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Name, trained network, start."""
    for name, network in trained_demo():
        yield f"demo, {name}", network, TASKS["digits"]().network(0)
    for (name, model), depth in zip(resnets(), RESNETS, strict=True):
        torch.manual_seed(0)
        yield name, model, ResNet(depth)


def cell(row: momos.Row) -> str:
    if row.value is None:
        return row.unavailable
    if row.factors is None:
        return f"{row.value:.0f}"
    f = row.factors
    text = f"{f.ratio:.3f} = {f.arrangement:.3f} · {f.value_distribution:.3f}"
    return text if row.control is None else f"{text} (z {row.control.z:+.0f})"


def main() -> None:
    found = list(networks())
    names = [name for name, _, _ in found]
    for measures in ("default", "paper", "qubd"):
        columns = [
            momos.measure(weights(model), measures=measures, init=weights(start))
            for _, model, start in found
        ]
        rows = [
            [row.name, row.kind, *(cell(column[row.name]) for column in columns)]
            for row in columns[0].rows
            if "plane" not in row.name
        ]
        print(f"measures={measures!r}\n")
        table(["measure", "kind", *names], rows)
        print()
    x = torch.randn(2500, 4000, generator=torch.Generator().manual_seed(0))
    rows = []
    for measures, shuffles in (("default", 10), ("qubd", 0)):
        start = time.perf_counter()
        momos.measure(x, measures=measures, controls=shuffles)
        rows.append([measures, f"{shuffles}", f"{time.perf_counter() - start:.1f} s"])
    table(["set, on 10⁷ weights", "shuffles", "time"], rows)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


if __name__ == "__main__":
    main()
