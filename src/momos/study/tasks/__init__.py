"""The tasks by name: which data, which network, how it is optimized."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from momos.study.tasks.architectures import (
    VIT_SIZE,
    CharacterTransformer,
    PairNetwork,
    Resized,
    lenet5,
    lenet300,
    mlp,
    resnet20,
    vit_tiny,
)
from momos.study.tasks.archives import (
    MODULUS,
    Images,
    additions,
    cifar10,
    digits,
    fashion_mnist,
    file,
    load_weights,
    mnist,
    shakespeare,
)
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

MLP = Optimization(
    learning_rate=1e-3, weight_decay=1e-2, batch_size=128, epochs=15, warmup=0.02
)
LENET = replace(MLP, batch_size=200, epochs=20)
PAPER = Optimization(  # of MLP and ViT (Bakhtiarifard et al. 2026)
    learning_rate=3e-4, weight_decay=1e-2, batch_size=128, epochs=200
)
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
    network = seeded(lambda: mlp((64, 256, 256, 256, 256, 10)))
    plan = Optimization(learning_rate=4e-3, batch_size=32, epochs=40)
    return image_task("digits", *digits(), network, plan, prepared=lambda pixels: pixels)


def _grey(
    name: str, data: Callable[[], tuple[Images, Images]], mean: float, deviation: float
) -> Task:
    network = seeded(lambda: mlp((784, 256, 256, 256, 256, 10)))
    prepared = standardised((mean,), (deviation,))
    return image_task(name, *data(), network, MLP, prepared=prepared)


def _lenet(name: str, build: Callable[[], nn.Module]) -> Task:
    prepared = standardised((0.1307,), (0.3081,))
    return image_task(name, *mnist(), seeded(build), LENET, prepared=prepared)


def _cifar(name: str, build: Callable[[], nn.Module], plan: Optimization) -> Task:
    prepared = standardised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    data = cifar10()
    return image_task(name, *data, seeded(build), plan, prepared=prepared, augmented=True)


def _resnet20() -> Task:
    weights = load_weights(file("weights/resnet20_cifar10.safetensors"))

    def published() -> nn.Module:
        built = resnet20()
        built.load_state_dict(weights)
        return built

    return replace(_cifar("resnet20", published, TUNED), untrained=seeded(resnet20))


def _mod97() -> Task:
    network = seeded(lambda: PairNetwork(256))
    return pair_task("mod97", *additions(), network, GROKKING, modulus=MODULUS)


def _shakespeare() -> Task:
    text = shakespeare()
    network = seeded(lambda: CharacterTransformer(len(set(text)), context=CONTEXT))
    return text_task("shakespeare", text, network, CHARACTERS)


TASKS: dict[str, Callable[[], Task]] = {
    "digits": _digits,
    "mnist": lambda: _grey("mnist", mnist, 0.1307, 0.3081),
    "fashion": lambda: _grey("fashion", fashion_mnist, 0.2860, 0.3530),
    "lenet300": lambda: _lenet("lenet300", lenet300),
    "lenet5": lambda: _lenet("lenet5", lenet5),
    "resnet20": _resnet20,
    "resnet20-scratch": lambda: _cifar("resnet20-scratch", resnet20, RESNET),
    "cifar10-mlp": lambda: _cifar("cifar10-mlp", mlp, PAPER),
    "cifar10-vit": lambda: _cifar(
        "cifar10-vit", lambda: Resized(vit_tiny(), VIT_SIZE), PAPER
    ),
    "shakespeare": _shakespeare,
    "mod97": _mod97,
}
