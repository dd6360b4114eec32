"""The networks that the scripts about files measure.

Pretrained ResNets lie where MOMOS_DATA points (`weights/resnet20_cifar10.safetensors`, …); where
they do not, seeded initializations take their place and are named so.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import nn

import momos
from momos.cli.demo import titled
from momos.study.recipes.questions import Demo
from momos.study.tasks import TASKS
from momos.study.tasks.architectures import ResNet, vit_tiny
from momos.study.training.run import run

RESNETS = (20, 56)  # depths
SETTINGS = (
    momos.MosaicConfig(block_size=2, capacity=0.05),
    momos.MosaicConfig(block_size=4, num_motifs=256, selection="kmeans"),
    momos.MosaicConfig(block_size=8, num_motifs=256, selection="kmeans"),
)


def demo_networks() -> Iterator[tuple[str, nn.Module]]:
    """The mosaics that `momos demo` trains, from its first seed."""
    yield from ((f"demo, {name}", net) for name, net in trained_demo() if name != "dense")


def trained_demo() -> Iterator[tuple[str, nn.Module]]:
    """All networks of the demo, from its first seed."""
    with TemporaryDirectory() as folder:
        for cell in Demo(seeds=1).runs():
            found = run(cell, Path(folder))
            network = TASKS[cell.task]().network(cell.seed)
            if found.file.endswith(".momos"):
                momos.load_(network, found.folder / found.file)
            else:
                network.load_state_dict(load_file(found.weights))
            yield titled(cell), network


def resnets() -> Iterator[tuple[str, nn.Module]]:
    """ResNet-20 and ResNet-56, pretrained where there are weights."""
    folder = os.environ.get("MOMOS_DATA")
    for depth in RESNETS:
        torch.manual_seed(0)
        name, model = f"resnet{depth}", ResNet(depth)
        weights = Path(folder or "") / "weights" / f"{name}_cifar10.safetensors"
        if folder and weights.exists():
            model.load_state_dict(load_file(weights), strict=False)
            yield f"{name}, pretrained", model
        else:
            yield f"{name}, untrained", model


def vit() -> nn.Module:
    """A network of ViT-Tiny's size, untrained."""
    torch.manual_seed(0)
    return vit_tiny()


def described(config: momos.MosaicConfig) -> str:
    motifs = f"k={config.num_motifs}" if config.num_motifs else f"c={config.capacity:.0%}"
    return f"s={config.block_size}, {motifs}"
