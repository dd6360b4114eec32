"""What networks are trained for: data in memory, a network per seed, a measure of success."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from momos.study.archives import Images, cifar10, fashion_mnist, file, mnist, shakespeare
from momos.study.archives import load_weights as load_weights
from momos.study.arithmetic import MODULUS, PairNetwork, additions
from momos.study.augmentation import crop_and_flip
from momos.study.data import digits
from momos.study.evaluation import CONTEXT as CONTEXT
from momos.study.evaluation import accuracy
from momos.study.evaluation import bits_per_character as bits_per_character
from momos.study.models import (
    VIT_SIZE,
    CharacterTransformer,
    Resized,
    mlp,
    resnet20,
    vit_tiny,
)
from momos.study.optimization import Optimization, Steady

Batch = tuple[Tensor, Int[Tensor, "..."]]
VALIDATION = 0.1  # the last share of the text
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


@dataclass(frozen=True, eq=False)
class Task:
    """One thing to learn.

    `network` gives the start that belongs to a seed. `batches` are those of one epoch, drawn by
    the generator: `steps_per_epoch` of them. `evaluate` is on samples that are never trained on.
    `kind`, `inputs` (the shape of one sample) and `outputs` (how many classes) are what networks
    of any name are built by; those of text have a class for every place. Where `network` gives
    published weights, `untrained` gives a start such as they had.
    """

    name: str
    network: Callable[[int], nn.Module]
    batches: Callable[[torch.Generator], Iterator[Batch]]
    evaluate: Callable[[nn.Module], float]
    steps_per_epoch: int
    optimization: Optimization
    metric: str = "accuracy"
    higher_is_better: bool = True
    inputs: tuple[int, ...] = ()
    outputs: int = 0
    kind: Literal["image", "text", "pair"] = "image"
    untrained: Callable[[int], nn.Module] | None = None


def seeded(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """`build` as a function of a seed, which leaves torch's own generator as it was."""

    def network(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build()

    return network


def image_task(
    name: str,
    train: Images,
    test: Images,
    network: Callable[[int], nn.Module],
    optimization: Optimization,
    *,
    prepared: Callable[[Tensor], Tensor],
    augmented: bool = False,
) -> Task:
    """Images and their classes; `prepared` makes pixels what the network takes."""

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(len(train), generator=generator)
        for rows in order.split(optimization.batch_size):
            pixels = train.pixels[rows]
            if augmented:
                pixels = crop_and_flip(pixels, generator=generator)
            yield prepared(pixels), train.labels[rows]

    def evaluate(network: nn.Module) -> float:
        return accuracy(network, test, prepared)

    return Task(
        name,
        network,
        batches,
        evaluate,
        -(-len(train) // optimization.batch_size),
        optimization,
        inputs=tuple(train.pixels.shape[1:]),
        outputs=int(train.labels.max()) + 1,
    )


def standardised(
    mean: tuple[float, ...], deviation: tuple[float, ...]
) -> Callable[[Tensor], Float[Tensor, "n c h w"]]:
    """Bytes to floats of about mean 0 and deviation 1; both are per channel, of 0..1."""
    means, deviations = (
        torch.tensor(values)[:, None, None] for values in (mean, deviation)
    )
    return lambda pixels: (pixels.float() / 255 - means) / deviations


def text_task(
    name: str, text: str, network: Callable[[int], nn.Module], optimization: Optimization
) -> Task:
    """The next character, at random places of all but the text's end; bits per character.

    An epoch is as many characters as there are to train on.
    """
    characters = encoded(text)
    split = round(len(characters) * (1 - VALIDATION))
    train, test = characters[:split], characters[split:]
    steps = split // (optimization.batch_size * CONTEXT)

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        for _ in range(steps):
            starts = torch.randint(
                len(train) - CONTEXT, (optimization.batch_size, 1), generator=generator
            )
            windows = train[starts + torch.arange(CONTEXT + 1)]
            yield windows[:, :-1], windows[:, 1:]

    def evaluate(network: nn.Module) -> float:
        return bits_per_character(network, test)

    return Task(
        name,
        network,
        batches,
        evaluate,
        steps,
        optimization,
        metric="bits per character",
        higher_is_better=False,
        inputs=(CONTEXT,),
        outputs=len(set(text)),
        kind="text",
    )


def encoded(text: str) -> Int[Tensor, " n"]:
    """Characters as their places in the alphabet of the text."""
    places = {character: place for place, character in enumerate(sorted(set(text)))}
    return torch.tensor([places[character] for character in text])


def _digits() -> Task:
    split = digits()
    return image_task(
        "digits",
        Images(split.train.images, split.train.labels),
        Images(split.test.images, split.test.labels),
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
    train, test = additions()

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        yield train.pixels, train.labels

    def evaluate(network: nn.Module) -> float:
        return accuracy(network, test, lambda pairs: pairs)

    return Task(
        "mod97",
        seeded(lambda: PairNetwork(256)),
        batches,
        evaluate,
        1,
        GROKKING,
        inputs=(2,),
        outputs=MODULUS,
        kind="pair",
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
