"""A linear layer of 4096 × 4096 weights from packed indices, against the dense layer.

Times are processor time of one thread, the least of 7 in turn, so that they say the same on a busy machine.
The last two columns are how many times as fast the compact layer is as the dense one in float32 and in
bfloat16. `operators.MOST_BY_TABLE` and `MOST_BY_ROW` are chosen by such tables.
"""

import time
from collections.abc import Callable

import torch
from measure import milliseconds, table
from torch.nn.functional import linear

from momos.compact import operators
from momos.compact.bitpack import index_bits, pack

SIZE = 4096


def least(*actions: Callable[[], object], repeat: int = 7) -> list[float]:
    """Processor time of each action, in turn."""
    taken: list[list[float]] = [[] for _ in actions]
    for _ in range(repeat):
        for action, times in zip(actions, taken, strict=True):
            start = time.process_time()
            action()
            times.append(time.process_time() - start)
    return [min(times) for times in taken]


def packed_weight(block_size: int, num_motifs: int) -> tuple[torch.Tensor, tuple]:
    generator = torch.Generator().manual_seed(0)
    motifs = torch.randn(num_motifs, block_size, generator=generator)
    count = SIZE * SIZE // block_size
    indices = torch.randint(num_motifs, (count,), generator=generator)
    bits = index_bits(num_motifs)
    dense = motifs[indices].view(SIZE, SIZE)
    dtypes = torch.float32, torch.float32
    return dense, (motifs, pack(indices, bits), None, bits, [SIZE, SIZE], 0, *dtypes)


def compare(block_size: int, num_motifs: int, num_inputs: int) -> list[str]:
    dense, packed = packed_weight(block_size, num_motifs)
    half, inputs = dense.bfloat16(), torch.randn(num_inputs, SIZE)
    short = inputs.bfloat16()
    compact, single, double = least(
        lambda: operators.linear(inputs, None, *packed, False),
        lambda: linear(inputs, dense),
        lambda: linear(short, half),
    )
    return [
        *map(str, (block_size, num_motifs, num_inputs)),
        *map(milliseconds, (compact, single, double)),
        f"{single / compact:.2f}",
        f"{double / compact:.2f}",
    ]


def main() -> None:
    torch.set_num_threads(1)
    kinds = [(4, 256), (8, 256), (4, 16), (1, 256), (1, 1000)]
    rows = [compare(*kind, number) for kind in kinds for number in (1, 8, 64, 256)]
    head = "block size", "motifs", "inputs", "compact, ms", "float32, ms", "bfloat16, ms"
    table([*head, "× float32", "× bfloat16"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
