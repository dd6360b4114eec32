"""What a network is trained for: data in memory, a network per seed, a measure of success.

Samples that are held out are the same for every cell of a task, and never in a batch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from momos.study import schema
from momos.study.cell import Share
from momos.study.execution import ranks
from momos.study.schema import value
from momos.study.tasks.archives import Images

Batch = tuple[Tensor, Int[Tensor, "..."]]
Samples = TypeVar("Samples", Images, Tensor)
T = TypeVar("T")
CONTEXT = 128  # characters that the transformer sees
PIECE = 500  # samples evaluated at once
PADDING = 4  # pixels that crops move images by
TEST = 0.1  # the last share of a text
HELD_OUT_SEED = 0  # of the order whose first samples are held out


@value
class Optimization:
    """AdamW or SGD with momentum; the rate rises linearly, then falls on a cosine to zero.

    Weight decay is on parameters of two dimensions or more: biases, norms and learned scales
    have none.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: schema.Positive
    weight_decay: schema.Number = 1e-2
    momentum: float = 0.9
    beta2: float = 0.999
    batch_size: schema.Size
    epochs: schema.Size
    warmup: Share = 0.0  # of the steps
    clip: float | None = None  # norm of the gradient

    def optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        small = [weight for weight in trained if weight.ndim < 2]
        groups = [
            {"params": [weight for weight in trained if weight.ndim >= 2]},
            {"params": small, "weight_decay": 0.0},
        ]
        about: Any = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=self.momentum, nesterov=True, **about)
        return torch.optim.AdamW(
            groups, betas=(self.momentum, self.beta2), fused=True, **about
        )

    def rate_at(self, step: int, total_steps: int) -> float:
        """Share of the learning rate at a step, counted from 0."""
        rising = round(self.warmup * total_steps)
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(1, total_steps - rising)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@value
class Steady(Optimization):
    """The rate stays where the warm-up leaves it: what is understood late is learned at it."""

    def rate_at(self, step: int, total_steps: int) -> float:
        rising = round(self.warmup * total_steps)
        return min(1.0, (step + 1) / rising) if rising else 1.0


def crop_and_flip(
    pixels: UInt8[Tensor, "n c h w"], *, generator: torch.Generator
) -> UInt8[Tensor, "n c h w"]:
    """Each image moved by up to 4 pixels, black moving in, and half of them mirrored."""
    total, _, height, width = pixels.shape
    down, right = torch.randint(2 * PADDING + 1, (2, total, 1), generator=generator).to(
        pixels.device
    )
    mirrored = (torch.rand(total, 1, generator=generator) < 0.5).to(pixels.device)
    rows = torch.arange(height, device=pixels.device) + down  # n h
    columns = torch.arange(width, device=pixels.device).expand(total, -1)
    columns = torch.where(mirrored, columns.flip(1), columns) + right  # n w
    padded = pad(pixels, (PADDING,) * 4)
    each = torch.arange(total, device=pixels.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None]].permute(
        0, 3, 1, 2
    )


def accuracy(
    network: nn.Module, images: Images, prepared: Callable[[Tensor], Tensor]
) -> float:
    """Share of images whose class gets the highest output, from 0 to 1."""
    place = device_of(network)

    def right(rows: slice) -> Tensor:
        pixels, labels = images.pixels[rows].to(place), images.labels[rows].to(place)
        return (network(prepared(pixels)).argmax(1) == labels).sum()

    pieces = [slice(n, n + PIECE) for n in range(0, len(images), PIECE)]
    return _total(network, pieces, right) / len(images)


def bits_per_character(network: nn.Module, characters: Int[Tensor, " n"]) -> float:
    """Mean of −log2 of what the network gives each character, in windows that do not overlap."""
    count = (len(characters) - 1) // CONTEXT
    inputs = characters[: count * CONTEXT].view(count, CONTEXT)
    targets = characters[1 : count * CONTEXT + 1].view(count, CONTEXT)
    place = device_of(network)

    def nats(rows: Tensor) -> Tensor:
        outputs = network(inputs[rows].to(place)).flatten(0, 1)
        return cross_entropy(outputs, targets[rows].flatten().to(place), reduction="sum")

    pieces = torch.arange(count, device=characters.device).split(PIECE // 4)
    return _total(network, pieces, nats) / math.log(2) / (count * CONTEXT)


def _total(
    network: nn.Module, pieces: Sequence[T], value: Callable[[T], Float[Tensor, ""]]
) -> float:
    """The values of all pieces, added in order; ranks that train together share the pieces."""
    found = torch.zeros(len(pieces), dtype=torch.float64, device=device_of(network))
    with torch.inference_mode(), evaluating(network):
        for number in range(ranks.rank(), len(pieces), ranks.count()):
            found[number] = value(pieces[number])
    return sum(ranks.sum_(found).tolist())


def device_of(network: nn.Module) -> torch.device:
    """Where the weights of a network are; the CPU if it has none."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A network in evaluation mode for a while."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@dataclass(frozen=True, eq=False)
class Task:
    """One thing to learn.

    `network` gives the start that belongs to a seed, or published weights, and then `untrained`
    such a start. `batches` are those of one epoch, drawn by the generator: `steps_per_epoch` of
    them. `evaluate` is on samples that are never trained on, `validate` on those `held_out`.
    Networks of any name are built by `kind`, `inputs` (the shape of one sample) and `outputs`
    (how many classes). `without` gives the task that has a share of its samples held out, and
    `placed` that with its `data` on a device.
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
    data: tuple[Tensor, ...] = ()
    placed: Callable[[torch.device], "Task"] | None = None

    def on(self, device: torch.device, fits: Callable[[list[Tensor]], bool]) -> "Task":
        """This task with its samples on a device, where batches are then made, if they fit.

        Else they stay, and batches move. What is drawn does not depend on it.
        """
        if self.placed is None or not fits(list(self.data)):
            return self
        return replace(self.placed(device), untrained=self.untrained)

    def held_out(self, share: float) -> "Task":
        """This task with a share of the samples to train on kept for `validate`."""
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


def standardised(
    mean: tuple[float, ...], deviation: tuple[float, ...]
) -> Callable[[Tensor], Float[Tensor, "n c h w"]]:
    """Bytes to floats of about mean 0 and deviation 1; both are per channel, of 0..1."""
    means, deviations = (
        torch.tensor(values)[:, None, None] for values in (mean, deviation)
    )

    def prepared(pixels: Tensor) -> Tensor:
        on = pixels.device
        return (pixels.float() / 255 - means.to(on)) / deviations.to(on)

    return prepared


def _task(
    name: str,
    train: Samples,
    test: Samples,
    network: Callable[[int], nn.Module],
    optimization: Optimization,
    *,
    batches: Callable[[Samples, torch.Generator], Iterator[Batch]],
    score: Callable[[nn.Module, Samples], float],
    parted: Callable[[str, Samples, float], tuple[Samples, Samples]],
    steps: Callable[[Samples], int],
    **about: Any,
) -> Task:
    def of(train: Samples, test: Samples, held: Samples | None = None) -> Task:
        parts = [part for part in (train, test, held) if part is not None]
        return Task(
            name=name,
            network=network,
            batches=lambda generator: batches(train, generator),
            evaluate=lambda network: score(network, test),
            steps_per_epoch=steps(train),
            optimization=optimization,
            validate=None if held is None else lambda network: score(network, held),
            without=without if held is None else None,
            data=tuple(tensor for part in parts for tensor in tensors_of(part)),
            placed=lambda device: of(*(part.to(device) for part in parts)),
            **about,
        )

    def without(share: float) -> Task:
        rest, held = parted(name, train, share)
        return of(rest, test, held)

    return of(train, test)


def tensors_of(samples: Images | Tensor) -> tuple[Tensor, ...]:
    return (samples,) if isinstance(samples, Tensor) else (samples.pixels, samples.labels)


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
    """Images and their classes, in another order every epoch.

    `prepared` makes pixels what the network takes.
    """

    def batches(images: Images, generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(len(images), generator=generator).to(images.pixels.device)
        for rows in order.split(optimization.batch_size):
            pixels = images.pixels[rows]
            if augmented:
                pixels = crop_and_flip(pixels, generator=generator)
            yield prepared(pixels), images.labels[rows]

    return _task(
        *(name, train, test, network, optimization),
        batches=batches,
        score=lambda network, images: accuracy(network, images, prepared),
        parted=parted,
        steps=lambda images: -(-len(images) // optimization.batch_size),
        inputs=tuple(train.pixels.shape[1:]),
        outputs=int(train.labels.max()) + 1,
    )


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
    return _task(
        *(name, train, test, network, optimization),
        batches=lambda pairs, generator: iter([(pairs.pixels, pairs.labels)]),
        score=lambda network, pairs: accuracy(network, pairs, torch.Tensor.long),
        parted=parted,
        steps=lambda pairs: 1,
        inputs=(2,),
        outputs=modulus,
        kind="pair",
    )


def text_task(
    name: str, text: str, network: Callable[[int], nn.Module], optimization: Optimization
) -> Task:
    """The next character, at random places of all but the text's end; bits per character.

    An epoch is as many characters as there are to train on. What is held out is the end of them.
    """

    def steps(characters: Tensor) -> int:
        return len(characters) // (optimization.batch_size * CONTEXT)

    def batches(characters: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        last, shape = len(characters) - CONTEXT, (optimization.batch_size, 1)
        for _ in range(steps(characters)):
            starts = torch.randint(last, shape, generator=generator)
            windows = characters[(starts + torch.arange(CONTEXT + 1)).to(characters.device)]
            yield windows[:, :-1], windows[:, 1:]

    def end_parted(name: str, characters: Tensor, share: float) -> tuple[Tensor, Tensor]:
        count = round(len(characters) * share)
        rest, held = characters.tensor_split([len(characters) - count])
        if count <= CONTEXT or not steps(rest):
            raise ValueError(
                f"validation must leave {name!r} more than {CONTEXT} characters held out "
                f"and a batch to train on, got {share} of {len(characters)} characters"
            )
        return rest, held

    characters = encoded(text)
    train, test = characters.tensor_split([round(len(characters) * (1 - TEST))])
    return _task(
        *(name, train, test, network, optimization),
        batches=batches,
        score=bits_per_character,
        parted=end_parted,
        steps=steps,
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


def parted(name: str, samples: Images, share: float) -> tuple[Images, Images]:
    """The rest and the samples held out, by a split that is always the same.

    What a smaller share holds out, a larger one does too.
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
        Images(samples.pixels[rest], samples.labels[rest]),
        Images(samples.pixels[held], samples.labels[held]),
    )
