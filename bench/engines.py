"""The two CPU engines on motifs that lie nearer and nearer to a line, at s = 2.

The grid is meant for motifs spread over the plane; `cpu.MOST_CANDIDATES`, the number of motifs looked
at per block beyond which the k-d tree is taken, is read off here.

Below, motifs with a code length: the cells, prepared and queried, against the k-d tree on padded blocks, by the
number of blocks, at s = 1 and 2. `cpu.FEWEST_FOR_CELLS` is read off there.
"""

import torch
from measure import milliseconds, seconds, table

from momos.vq import cpu
from momos.vq.nearest import code_lengths, longer_motifs

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


def rated(
    num_blocks: int, block_size: int, num_motifs: int, rate_weight: float
) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(num_blocks, block_size, generator=generator)
    motifs = blocks[torch.randperm(num_blocks, generator=generator)[:num_motifs]]
    usage = torch.bincount(
        torch.randint(num_motifs, (10 * num_motifs,), generator=generator),
        minlength=num_motifs,
    )
    longer = longer_motifs(motifs, rate_weight * code_lengths(usage))
    padded = torch.nn.functional.pad(blocks, (0, 1))

    def by_cells() -> object:
        return cpu.build(longer, wide=False, kind="cells", num_blocks=num_blocks)

    kept = cpu.native().candidates(by_cells())
    cells, flat = seconds(
        lambda: cpu.query(by_cells(), blocks, wide=False),
        lambda: cpu.query(cpu.build(longer, wide=False, kind="flat"), padded, wide=False),
    )
    return [
        *(str(number) for number in (num_blocks, block_size, num_motifs, rate_weight)),
        f"{kept:.1f}",
        milliseconds(cells),
        milliseconds(flat),
        f"{flat / cells:.2f}",
    ]


if __name__ == "__main__":
    rows = [
        compare(k, width)
        for k in (4096, 65536)
        for width in (1, 0.3, 0.1, 0.03, 0.01, 0.001)
    ]
    table(["k", "width", "candidates", "grid", "flat", "flat ÷ grid"], rows)
    print()
    rows = [
        rated(num_blocks, size, num_motifs, rate_weight)
        for size in (1, 2)
        for num_blocks in (1 << 10, 1 << 12, 1 << 14, 1 << 19)
        for num_motifs in (64, 1024)
        for rate_weight in (0.02, 0.5)
        if num_motifs <= num_blocks
    ]
    head = [
        "blocks",
        "s",
        "k",
        "rate weight",
        "kept a cell",
        "cells",
        "flat",
        "flat ÷ cells",
    ]
    table(head, rows)
