"""The tasks by name: which data, which network, how it is optimized."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from torch import nn

from momos.study.tasks import architectures as nets
from momos.study.tasks import archives
from momos.study.tasks.task import (
    CONTEXT,
    Optimization,
    Steady,
    Task,
    image_task,
    pair_task,
    seeded,
    standardised,
    text_task,
)

MLP = Optimization(learning_rate=1e-3, batch_size=128, epochs=15, warmup=0.02)
LENET = replace(MLP, batch_size=200, epochs=20)
PAPER = Optimization(learning_rate=3e-4, batch_size=128, epochs=200)  # of MLP and ViT
RESNET = Optimization(  # of ResNets (He et al. 2015, §4.2)
    optimizer="sgd", learning_rate=0.1, weight_decay=1e-4, batch_size=128, epochs=200
)
TUNED = replace(RESNET, learning_rate=0.02, epochs=8)
CHARACTERS = Optimization(
    learning_rate=5e-3,  # after 300 steps, in bits per character: 3.21, and 3.28 at 2e-3
    weight_decay=0.1,
    beta2=0.98,
    batch_size=8,
    epochs=2,
    warmup=0.05,
    clip=1.0,
)
# At width 256 nearly all pairs are right after 2000 steps; complexity falls for 2500 more.
GROKKING = Steady(learning_rate=1e-3, weight_decay=1.0, batch_size=4704, epochs=6000)


def _digits() -> Task:
    network = seeded(lambda: nets.mlp((64, 256, 256, 256, 256, 10)))
    plan = Optimization(learning_rate=4e-3, batch_size=32, epochs=40)
    return image_task(
        "digits", *archives.digits(), network, plan, prepared=lambda pixels: pixels
    )


def _grey(
    name: str,
    data: Callable[[], tuple[archives.Images, archives.Images]],
    mean: float,
    deviation: float,
) -> Task:
    network = seeded(lambda: nets.mlp((784, 256, 256, 256, 256, 10)))
    prepared = standardised((mean,), (deviation,))
    return image_task(name, *data(), network, MLP, prepared=prepared)


def _lenet(name: str, build: Callable[[], nn.Module]) -> Task:
    prepared = standardised((0.1307,), (0.3081,))
    return image_task(name, *archives.mnist(), seeded(build), LENET, prepared=prepared)


def _cifar(name: str, build: Callable[[], nn.Module], plan: Optimization) -> Task:
    prepared = standardised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    data = archives.cifar10()
    return image_task(name, *data, seeded(build), plan, prepared=prepared, augmented=True)


def _resnet20() -> Task:
    archives.file(
        "weights/resnet20_cifar10.safetensors"
    )  # is missed before anything is trained

    def published() -> nn.Module:
        return archives.published_resnet(20, nets.resnet20())

    return replace(_cifar("resnet20", published, TUNED), untrained=seeded(nets.resnet20))


def _mod97() -> Task:
    network = seeded(lambda: nets.PairNetwork(256))
    return pair_task(
        "mod97", *archives.additions(), network, GROKKING, modulus=archives.MODULUS
    )


def _shakespeare() -> Task:
    text = archives.shakespeare()
    network = seeded(lambda: nets.CharacterTransformer(len(set(text)), context=CONTEXT))
    return text_task("shakespeare", text, network, CHARACTERS)


TASKS: dict[str, Callable[[], Task]] = {
    "digits": _digits,
    "mnist": lambda: _grey("mnist", archives.mnist, 0.1307, 0.3081),
    "fashion": lambda: _grey("fashion", archives.fashion_mnist, 0.2860, 0.3530),
    "lenet300": lambda: _lenet("lenet300", nets.lenet300),
    "lenet5": lambda: _lenet("lenet5", nets.lenet5),
    "resnet20": _resnet20,
    "resnet20-scratch": lambda: _cifar("resnet20-scratch", nets.resnet20, RESNET),
    "resnet20-wide": lambda: _cifar("resnet20-wide", nets.resnet20_wide, RESNET),
    "cifar10-mlp": lambda: _cifar("cifar10-mlp", nets.mlp, PAPER),
    "cifar10-vit": lambda: _cifar(
        "cifar10-vit",
        lambda: nets.Resized(nets.vit_tiny(), nets.VIT_SIZE),
        PAPER,
    ),
    "shakespeare": _shakespeare,
    "mod97": _mod97,
}


def task_named(name: str) -> Task:
    """The task of that name, one of `TASKS`; its data are loaded once."""
    return _loaded(TASKS[name])


@cache
def _loaded(load: Callable[[], Task]) -> Task:
    return load()
