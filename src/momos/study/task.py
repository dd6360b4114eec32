"""What a network is trained for: data in memory, a network per seed, a measure of success.

Samples that are held out are the same for every cell of a task, and never in a batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from momos.study.archives import Images
from momos.study.augmentation import crop_and_flip
from momos.study.evaluation import CONTEXT, accuracy, bits_per_character
from momos.study.optimization import Optimization

Batch = tuple[Tensor, Int[Tensor, "..."]]
TEST = 0.1  # the last share of a text
HELD_OUT_SEED = 0  # of the order whose first samples are held out


@dataclass(frozen=True, eq=False)
class Task:
    """One thing to learn.

    `network` gives the start that belongs to a seed. `batches` are those of one epoch, drawn by
    the generator: `steps_per_epoch` of them. `evaluate` is on samples that are never trained on,
    and by which nothing is chosen; `validate`, if it is there, on those `held_out`. `kind`,
    `inputs` (the shape of one sample) and `outputs` (how many classes) are what networks of any
    name are built by; those of text have a class for every place. `without` gives the task that
    has a share of its samples held out. Where `network` gives published weights, `untrained`
    gives a start such as they had.
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
    validate: Callable[[nn.Module], float] | None = None
    without: Callable[[float], "Task"] | None = None
    untrained: Callable[[int], nn.Module] | None = None

    def held_out(self, share: float) -> "Task":
        """This task with a share of the samples to train on kept for `validate`; 0 is all of it.

        Raises:
            ValueError: if the task cannot be split, or a part would have no sample.
        """
        if not share:
            return self
        if self.without is None:
            raise ValueError(
                f"validation must be 0 for the task {self.name!r}, whose samples cannot be "
                f"held out, got {share}"
            )
        return replace(self.without(share), untrained=self.untrained)


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

    def without(share: float) -> Task:
        held, rest = parted(name, train, share)
        part = image_task(
            *(name, rest, test, network, optimization),
            prepared=prepared,
            augmented=augmented,
        )
        return _validated(part, task, lambda network: accuracy(network, held, prepared))

    task = Task(
        name,
        network,
        batches,
        evaluate,
        -(-len(train) // optimization.batch_size),
        optimization,
        inputs=tuple(train.pixels.shape[1:]),
        outputs=int(train.labels.max()) + 1,
        without=without,
    )
    return task


def standardised(
    mean: tuple[float, ...], deviation: tuple[float, ...]
) -> Callable[[Tensor], Float[Tensor, "n c h w"]]:
    """Bytes to floats of about mean 0 and deviation 1; both are per channel, of 0..1."""
    means, deviations = (
        torch.tensor(values)[:, None, None] for values in (mean, deviation)
    )
    return lambda pixels: (pixels.float() / 255 - means) / deviations


def pair_task(
    name: str,
    train: Images,
    test: Images,
    network: Callable[[int], nn.Module],
    optimization: Optimization,
    *,
    modulus: int,
) -> Task:
    """Pairs of numbers below `modulus` and what they make; one batch holds all of them."""

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        yield train.pixels, train.labels

    def evaluate(network: nn.Module) -> float:
        return accuracy(network, test, torch.Tensor.long)

    def without(share: float) -> Task:
        held, rest = parted(name, train, share)
        part = pair_task(name, rest, test, network, optimization, modulus=modulus)
        return _validated(
            part, task, lambda network: accuracy(network, held, torch.Tensor.long)
        )

    task = Task(
        name,
        network,
        batches,
        evaluate,
        1,
        optimization,
        inputs=(2,),
        outputs=modulus,
        kind="pair",
        without=without,
    )
    return task


def text_task(
    name: str, text: str, network: Callable[[int], nn.Module], optimization: Optimization
) -> Task:
    """The next character, at random places of all but the text's end; bits per character.

    An epoch is as many characters as there are to train on. What is held out is the end of them.
    """
    characters = encoded(text)
    split = round(len(characters) * (1 - TEST))
    train, test = characters[:split], characters[split:]
    classes = len(set(text))
    return _characters(name, train, test, network, optimization, classes)


def _characters(
    name: str,
    train: Int[Tensor, " n"],
    test: Int[Tensor, " t"],
    network: Callable[[int], nn.Module],
    optimization: Optimization,
    classes: int,
) -> Task:
    steps = len(train) // (optimization.batch_size * CONTEXT)

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        for _ in range(steps):
            starts = torch.randint(
                len(train) - CONTEXT, (optimization.batch_size, 1), generator=generator
            )
            windows = train[starts + torch.arange(CONTEXT + 1)]
            yield windows[:, :-1], windows[:, 1:]

    def evaluate(network: nn.Module) -> float:
        return bits_per_character(network, test)

    def without(share: float) -> Task:
        count = round(len(train) * share)
        rest, held = train[: len(train) - count], train[len(train) - count :]
        if count <= CONTEXT or len(rest) < optimization.batch_size * CONTEXT:
            raise ValueError(
                f"validation must leave {name!r} more than {CONTEXT} characters held out "
                f"and a batch to train on, got {share} of {len(train)} characters"
            )
        part = _characters(name, rest, test, network, optimization, classes)
        return _validated(part, task, lambda network: bits_per_character(network, held))

    task = Task(
        name,
        network,
        batches,
        evaluate,
        steps,
        optimization,
        metric="bits per character",
        higher_is_better=False,
        inputs=(CONTEXT,),
        outputs=classes,
        kind="text",
        without=without,
    )
    return task


def encoded(text: str) -> Int[Tensor, " n"]:
    """Characters as their places in the alphabet of the text."""
    places = {character: place for place, character in enumerate(sorted(set(text)))}
    return torch.tensor([places[character] for character in text])


def parted(name: str, samples: Images, share: float) -> tuple[Images, Images]:
    """The samples held out and the rest, by a split that is always the same.

    What a smaller share holds out, a larger one does too.

    Raises:
        ValueError: if one part would be empty.
    """
    count = round(len(samples) * share)
    if not 0 < count < len(samples):
        raise ValueError(
            f"validation must leave {name!r} samples to train on and samples held out, got "
            f"{share} of {len(samples)}"
        )
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    order = torch.randperm(len(samples), generator=generator)
    held, rest = order[:count], order[count:].sort().values
    return (
        Images(samples.pixels[held], samples.labels[held]),
        Images(samples.pixels[rest], samples.labels[rest]),
    )


def _validated(part: Task, whole: Task, validate: Callable[[nn.Module], float]) -> Task:
    """A part of a task, which is not split further and has all classes of the whole."""
    return replace(part, outputs=whole.outputs, validate=validate, without=None)
