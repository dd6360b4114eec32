"""The tasks by name: which data, which network, how it is optimized."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from momos.study.tasks.architectures import (
    VIT_SIZE,
    CharacterTransformer,
    PairNetwork,
    Resized,
    mlp,
    resnet20,
    vit_tiny,
)
from momos.study.tasks.archives import (
    MODULUS,
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

MLP_WIDTHS = (784, 256, 256, 256, 256, 10)
MLP_OPTIMIZATION = Optimization(
    learning_rate=1e-3, weight_decay=1e-2, batch_size=128, epochs=15, warmup=0.02
)
# After 300 steps on a cosine, in bits per character: rate 2e-3 3.28, 5e-3 3.21.
CHARACTERS = Optimization(
    learning_rate=5e-3,
    weight_decay=0.1,
    beta2=0.98,
    batch_size=8,
    epochs=2,
    warmup=0.05,
    clip=1.0,
)
PAPER = Optimization(  # of MLP and ViT (Bakhtiarifard et al. 2026)
    learning_rate=3e-4, weight_decay=1e-2, batch_size=128, epochs=200
)
# At width 256 nearly all pairs are right after 2000 steps; complexity falls for 2500 more.
GROKKING = Steady(learning_rate=1e-3, weight_decay=1.0, batch_size=4704, epochs=6000)


def _digits() -> Task:
    return image_task(
        "digits",
        *digits(),
        seeded(lambda: mlp((64, 256, 256, 256, 256, 10))),
        Optimization(learning_rate=4e-3, batch_size=32, epochs=40),
        prepared=lambda pixels: pixels,
    )


def _mnist() -> Task:
    return image_task(
        "mnist",
        *mnist(),
        seeded(lambda: mlp(MLP_WIDTHS)),
        MLP_OPTIMIZATION,
        prepared=standardised((0.1307,), (0.3081,)),
    )


def _fashion() -> Task:
    return image_task(
        "fashion",
        *fashion_mnist(),
        seeded(lambda: mlp(MLP_WIDTHS)),
        MLP_OPTIMIZATION,
        prepared=standardised((0.2860,), (0.3530,)),
    )


def _cifar(
    name: str, network: Callable[[int], nn.Module], optimization: Optimization
) -> Task:
    return image_task(
        name,
        *cifar10(),
        network,
        optimization,
        prepared=standardised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        augmented=True,
    )


def _resnet20() -> Task:
    weights = file("weights/resnet20_cifar10.safetensors")

    def network(seed: int) -> nn.Module:
        built = seeded(resnet20)(seed)
        built.load_state_dict(load_weights(weights))
        return built

    tuned = Optimization(
        optimizer="sgd", learning_rate=0.02, weight_decay=1e-4, batch_size=128, epochs=8
    )
    return replace(_cifar("resnet20", network, tuned), untrained=seeded(resnet20))


def _resnet20_scratch() -> Task:
    published = Optimization(
        optimizer="sgd", learning_rate=0.1, weight_decay=1e-4, batch_size=128, epochs=200
    )
    return _cifar("resnet20-scratch", seeded(resnet20), published)


def _cifar_mlp() -> Task:
    return _cifar("cifar10-mlp", seeded(mlp), PAPER)


def _cifar_vit() -> Task:
    return _cifar("cifar10-vit", seeded(lambda: Resized(vit_tiny(), VIT_SIZE)), PAPER)


def _mod97() -> Task:
    return pair_task(
        "mod97", *additions(), seeded(lambda: PairNetwork(256)), GROKKING, modulus=MODULUS
    )


def _shakespeare() -> Task:
    text = shakespeare()
    return text_task(
        "shakespeare",
        text,
        seeded(lambda: CharacterTransformer(len(set(text)), context=CONTEXT)),
        CHARACTERS,
    )


TASKS: dict[str, Callable[[], Task]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion": _fashion,
    "resnet20": _resnet20,
    "resnet20-scratch": _resnet20_scratch,
    "cifar10-mlp": _cifar_mlp,
    "cifar10-vit": _cifar_vit,
    "shakespeare": _shakespeare,
    "mod97": _mod97,
}
