"""Accuracy against bytes without data: `momos compress`, a bank of motifs, integers + xz, NNCodec.

Published CIFAR-10 ResNets, from MOMOS_DATA; accuracy on the 10 000 test images. Integers have a scale
for each output channel, chosen by the largest weight; what has fewer than two dimensions is bfloat16
in all rows. NNCodec (ISO/IEC 15938-17) needs an environment of its own: NNCODEC_PYTHON is its
interpreter, and rows are left out without it. `python bench/compress.py resnet20` runs one network.
"""

import lzma
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from measure import table
from safetensors.torch import save_file
from torch import Tensor, nn

import momos
from momos.study.tasks.archives import cifar10
from networks import resnets

STEPS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
BANK = momos.MosaicConfig(
    block_size=2,
    num_motifs=256,
    selection="kmeans",
    min_ndim=2,
    scales="tensor",
    rate_weight=0.02,
    bits=8,
    dense_dtype="bfloat16",
)
QUALITIES = (-32, -28, -26, -24, -22)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the networks' training
# What NNCodec imports and does not need here.
NNCODEC = """
import sys, time
from unittest.mock import MagicMock
for name in ("torchvision", "torchvision.datasets", "torchvision.transforms",
             "torchvision.models", "torchvision.models.segmentation",
             "torchvision.transforms.functional", "flwr", "wandb", "ray"):
    sys.modules[name] = MagicMock(__spec__=None, __path__=[])
import torch
torch.set_num_threads(1)
from nncodec import nn
state, quality, folder = torch.load(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
start = time.perf_counter()
stream = nn.encode({name: value.numpy() for name, value in state.items()},
                   {"qp": quality, "verbose": False, "results": folder})
seconds = time.perf_counter() - start
found = {name: torch.as_tensor(value) for name, value in nn.decode(stream).items()}
torch.save((found, len(stream), seconds), folder + "/found.pt")
"""

Row = tuple[str, int, dict[str, Tensor], float]  # name, bytes, weights, seconds


def main() -> None:
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or ["resnet20", "resnet56"]
    for name, network in resnets():
        if name.endswith("untrained"):
            print(f"{name}: MOMOS_DATA must hold its published weights")
        elif name.split(",")[0] in wanted:
            print(f"\n{name}\n")
            measure(network)


def measure(network: nn.Module) -> None:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    dense = sum(value.nbytes for value in state.values() if value.is_floating_point())
    rows = [["dense", f"{dense:,}", "1.0", f"{accuracy(network):.2f}", ""]]
    with tempfile.TemporaryDirectory() as folder:
        for title, size, found, seconds in compressed(state, Path(folder)):
            network.load_state_dict(state | found)
            cells = f"{size:,}", f"{dense / size:.1f}", f"{accuracy(network):.2f}"
            rows.append([title, *cells, f"{seconds:.2f}"])
    table(["how", "bytes", "times smaller", "accuracy, %", "seconds, one thread"], rows)


def compressed(state: dict[str, Tensor], folder: Path) -> Iterator[Row]:
    source, path = folder / "x.safetensors", folder / "x.momos"
    save_file(state, source)
    for step in STEPS:
        yield by_momos(f"momos, step {step}", source, path, momos.LatticeConfig(step=step))
    yield by_momos("momos, bank of 256 pairs", source, path, BANK)
    for bits in (8, 6, 5, 4):
        yield by_integers(bits, state)
    if python := os.environ.get("NNCODEC_PYTHON"):
        kept = {n: v for n, v in state.items() if v.is_floating_point()}
        torch.save(kept, folder / "x.pt")
        for quality in QUALITIES:
            yield by_nncodec(python, quality, folder)


def by_momos(
    title: str,
    source: Path,
    path: Path,
    config: momos.MosaicConfig | momos.LatticeConfig,
) -> Row:
    start = time.perf_counter()
    report = momos.compress(source, path, config)
    seconds = time.perf_counter() - start
    return title, report.num_bytes, momos.load(path).state_dict(), seconds


def by_integers(bits: int, state: dict[str, Tensor]) -> Row:
    start, found, parts = time.perf_counter(), {}, []
    for name, value in state.items():
        if value.ndim < 2:
            rounded = value.bfloat16() if value.is_floating_point() else value
            found[name] = rounded.to(value.dtype)
            parts.append(rounded.reshape(-1).view(torch.uint8).numpy().tobytes())
            continue
        rows = value.flatten(1)
        scale = (rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)).clamp(min=1e-12)
        whole = (rows / scale).round()
        found[name] = (whole * scale).view_as(value)
        parts.append(whole.to(torch.int8).numpy().tobytes())
        parts.append(scale.view(torch.uint8).numpy().tobytes())
    size = len(lzma.compress(b"".join(parts), preset=9))
    return f"int{bits} per channel + xz", size, found, time.perf_counter() - start


def by_nncodec(python: str, quality: int, folder: Path) -> Row:
    command = [python, "-c", NNCODEC, str(folder / "x.pt"), str(quality), str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found, size, seconds = torch.load(folder / "found.pt")
    return f"NNCodec, qp {quality}", size, found, seconds


@torch.inference_mode()
def accuracy(network: nn.Module) -> float:
    images = cifar10()[1]
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
    network.eval()
    right = 0
    for pixels, labels in zip(
        images.pixels.split(500), images.labels.split(500), strict=True
    ):
        shown = (pixels.float() / 255 - mean) / deviation
        right += int((network(shown).argmax(1) == labels).sum())
    return 100 * right / len(images.labels)


if __name__ == "__main__":
    main()
