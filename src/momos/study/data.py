"""scikit-learn's handwritten digits in one fixed split, and batches taken from memory."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

TEST_SIZE = 360  # a fifth of the 1797 digits
SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class Samples:
    """Images, flat, and their classes."""

    images: Float[Tensor, "n pixels"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Split:
    name: str
    train: Samples
    test: Samples

    def __str__(self) -> str:
        return f"{self.name}, {len(self.train)} to train on and {len(self.test)} to test on"


def digits() -> Split:
    """1437 digits to train on and 360 to test on, the classes in equal shares.

    One mean and one deviation, of the training pixels, standardise all pixels: some pixels are
    always blank, so a deviation per pixel would be zero.
    """
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images, labels, test_size=TEST_SIZE, stratify=labels, random_state=SPLIT_SEED
    )
    train, test, train_labels, test_labels = map(torch.from_numpy, parts)
    mean, deviation = train.mean(), train.std()

    def samples(pixels: Tensor, classes: Tensor) -> Samples:
        return Samples(((pixels - mean) / deviation).float(), classes.long())

    return Split(
        "scikit-learn's digits", samples(train, train_labels), samples(test, test_labels)
    )
