"""How compressing tensors that do not lie row-major grows with their size.

Matrices of n×n and kernels of as many weights, saved by torch.save row-major, transposed and
channels-last, in turn; each is the least CPU time of three. Linear time keeps the ratios level.
"""

import tempfile
import time
from pathlib import Path

import torch
from measure import table
from torch import Tensor

import momos

SIZES = (512, 1024, 2048)
CONFIG = momos.MosaicConfig(block_size=2, num_motifs=64)


def ways(size: int) -> dict[str, Tensor]:
    """The same number of weights, lying in memory in different ways."""
    weight = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    kernel = weight.view(size // 16, size // 16, 16, 16)
    return {
        "row-major": weight,
        "transposed": weight.T,
        "channels-last": kernel.contiguous(memory_format=torch.channels_last),
    }


def seconds(weight: Tensor, folder: Path) -> float:
    torch.save({"w": weight}, folder / "x.pt")
    start = time.process_time()
    momos.compress(folder / "x.pt", folder / "x.momos", CONFIG)
    return time.process_time() - start


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            runs = [
                {way: seconds(weight, Path(folder)) for way, weight in ways(size).items()}
                for _ in range(3)
            ]
            least = {way: min(run[way] for run in runs) for way in runs[0]}
            plain = least["row-major"]
            ratios = [f"{least[way] / plain:.2f}" for way in least if way != "row-major"]
            rows.append([f"{size:,}×{size:,}", f"{plain:.2f} s", *ratios])
    table(
        ["weights", "row-major", "transposed ÷ row-major", "channels-last ÷ row-major"],
        rows,
    )


if __name__ == "__main__":
    main()
