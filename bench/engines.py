"""The two CPU engines on motifs that lie nearer and nearer to a line, at s = 2.

The grid is meant for motifs spread over the plane; `cpu.MOST_CANDIDATES`, the number of motifs looked
at per block beyond which the k-d tree is taken, is read off here.
"""

import torch
from measure import milliseconds, seconds, table

from momos.assign import cpu

NUM_BLOCKS = 200_000


def compare(num_motifs: int, width: float) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, NUM_BLOCKS, generator=generator)
    blocks = torch.stack([first, first + width * second], 1)
    motifs = blocks[torch.randperm(NUM_BLOCKS, generator=generator)[:num_motifs]]
    grid, flat = (cpu.build(motifs, wide=False, kind=kind) for kind in ("grid", "flat"))
    by_grid, by_flat = seconds(
        lambda: cpu.query(grid, blocks, wide=False),
        lambda: cpu.query(flat, blocks, wide=False),
    )
    return [
        str(num_motifs),
        str(width),
        f"{cpu.native().candidates(grid):.0f}",
        milliseconds(by_grid),
        milliseconds(by_flat),
        f"{by_flat / by_grid:.2f}",
    ]


if __name__ == "__main__":
    rows = [
        compare(k, width)
        for k in (4096, 65536)
        for width in (1, 0.3, 0.1, 0.03, 0.01, 0.001)
    ]
    table(["k", "width", "candidates", "grid", "flat", "flat ÷ grid"], rows)
