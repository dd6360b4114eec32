"""How a projection's time grows with the number of parameters, each of which is small.

Twice as many parameters should take twice as long, whether their last blocks are whole or not,
and whether motifs grow in number with them (capacity) or not.
"""

import time
from itertools import pairwise

import torch
from measure import table

import momos

COUNTS = (100, 400, 1600)


def seconds(count: int, width: int, config: momos.MosaicConfig) -> float:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(count, width, generator=generator)
    model = torch.nn.ParameterDict(
        {f"p{i}": weight.clone() for i, weight in enumerate(weights)}
    )
    start = time.perf_counter()
    momos.project_(model, config)
    momos.Mosaic.of(model)
    return time.perf_counter() - start


def main() -> None:
    rows = []
    for last, width in (("whole", 1024), ("cut short", 1023)):
        for motifs, config in (
            ("64", momos.MosaicConfig(block_size=2, num_motifs=64)),
            ("0.01 m", momos.MosaicConfig(block_size=2, capacity=0.01)),
        ):
            seconds(COUNTS[0], width, config)  # warm
            taken = [
                min(seconds(count, width, config) for _ in range(3)) for count in COUNTS
            ]
            growth = [f"{after / before:.1f}" for before, after in pairwise(taken)]
            rows.append([last, motifs, *(f"{1e3 * one:.0f} ms" for one in taken), *growth])
    head = [f"{count} parameters" for count in COUNTS]
    growth = [f"{after} / {before}" for before, after in pairwise(COUNTS)]
    table(["last block", "motifs", *head, *growth], rows)


if __name__ == "__main__":
    main()
