"""How a projection's time and memory grow from 10⁶ to 10⁸ weights.

Each point is a process of its own, so that its peak of resident memory is its own. Memory is
what making the weights and projecting them adds to a process that has projected a small network:
the weights are the first 1 of each ratio. At 10⁶ it is scratch memory of a fixed few MB.
"""

import json
import math
import subprocess
import sys
import time

import torch
from measure import milliseconds, peak_bytes, table

import momos

SIZES = (10**6, 10**7, 10**8)


def measure(num_weights: int, block_size: int, capacity: float | None) -> dict[str, float]:
    warm_up = torch.nn.ParameterDict({"weight": torch.randn(100_000)})
    momos.project_(warm_up, momos.MosaicConfig(block_size=block_size, num_motifs=64))
    before = peak_bytes()
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.empty(num_weights))
    with torch.no_grad():
        weight.normal_(0, 0.05, generator=generator)
    model = torch.nn.ParameterDict({"weight": weight})
    config = momos.MosaicConfig(
        block_size=block_size,
        capacity=capacity,
        num_motifs=None if capacity else 4096,
    )
    start = time.perf_counter()
    momos.project_(model, config)
    taken = time.perf_counter() - start
    return {"seconds": taken, "memory": (peak_bytes() - before) / (4 * num_weights)}


def point(num_weights: int, block_size: int, capacity: float | None) -> dict[str, float]:
    command = [sys.executable, __file__, json.dumps([num_weights, block_size, capacity])]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    return min(runs, key=lambda run: run["seconds"])


def main() -> None:
    rows = []
    for block_size in (2, 4):
        for capacity in (None, 0.01):
            points = [point(size, block_size, capacity) for size in SIZES]
            growth = math.log(points[-1]["seconds"] / points[0]["seconds"])
            exponent = growth / math.log(SIZES[-1] / SIZES[0])
            rows.append(
                [
                    str(block_size),
                    "c = 1 %" if capacity else "k = 4096",
                    *(milliseconds(run["seconds"]) for run in points),
                    f"{exponent:.2f}",
                    *(f"{run['memory']:.2f}" for run in points),
                ]
            )
    times = [f"time, n = 10^{round(math.log10(size))}" for size in SIZES]
    memory = [f"memory ÷ weights, 10^{round(math.log10(size))}" for size in SIZES]
    table(["s", "motifs", *times, "growth exponent", *memory], rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
    else:
        main()
