"""Small trained networks, and starts, for the gallery: `python tools/gallery_networks.py FOLDER`.

Each becomes two checkpoints, NAME.safetensors and NAME.start.safetensors. All data comes with
scikit-learn and Python itself.
"""

import argparse
import copy
import pydoc_data.topics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from momos.study.tasks.architectures import CharacterTransformer, mlp


class Patches(nn.Module):
    """A vision transformer of digits: sixteen patches of 2 × 2 pixels."""

    def __init__(self, width: int = 96, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.places = nn.Parameter(0.02 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, depth)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        patches = images.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        return self.head(self.body(self.embed(patches) + self.places).mean(1))


class Rows(nn.Module):
    """A recurrent network that reads the eight rows of a digit."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, width, 2, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.lstm(images.view(-1, 8, 8))[0][:, -1])


class Convolutions(nn.Module):
    """A small convolutional network of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(64 * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images.view(-1, 1, 8, 8)).flatten(1))


@dataclass(frozen=True)
class Trained:
    """A network by name: how it is made, and in how many passes it learns."""

    build: Callable[[], nn.Module]
    epochs: int


DIGITS = {
    "digits-mlp": Trained(lambda: mlp((64, 256, 256, 10)), 30),
    "digits-cnn": Trained(Convolutions, 8),
    "digits-vit": Trained(Patches, 30),
    "digits-lstm": Trained(Rows, 15),
}
CONTEXT, STEPS = 64, 250  # of the network that reads text


def digits(name: str, seed: int = 0) -> tuple[nn.Module, nn.Module, float]:
    """Start and trained network, and the accuracy on the last 297 digits, in percent."""
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    pixels, wanted = torch.tensor(images / 8 - 1).float(), torch.tensor(labels)
    start = DIGITS[name].build()
    model = copy.deepcopy(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(DIGITS[name].epochs):
        for rows in torch.randperm(1500).split(64):
            cross_entropy(model(pixels[rows]), wanted[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
    right = model.eval()(pixels[1500:]).argmax(1) == wanted[1500:]
    return start, model, 100 * float(right.float().mean())


def text(seed: int = 0) -> tuple[nn.Module, nn.Module, float]:
    """A transformer that reads Python's help topics; bits a character of the last tenth."""
    torch.manual_seed(seed)
    read = "".join(pydoc_data.topics.topics.values()).encode("ascii", "replace")
    symbols = torch.tensor(list(read)) % 128
    train, test = symbols[: -len(symbols) // 10], symbols[-len(symbols) // 10 :]
    start = CharacterTransformer(128, context=CONTEXT, depth=2, width=96)
    model = copy.deepcopy(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(STEPS):
        places = torch.randint(len(train) - CONTEXT - 1, (16, 1)) + torch.arange(
            CONTEXT + 1
        )
        _loss(model, train[places]).backward()
        optimizer.step()
        optimizer.zero_grad()
    places = torch.arange(0, len(test) - CONTEXT - 1, 4 * CONTEXT)[:, None]
    with torch.no_grad():
        nats = _loss(model.eval(), test[places + torch.arange(CONTEXT + 1)])
    return start, model, float(nats) / 0.6931471805599453


def _loss(model: nn.Module, passages: Tensor) -> Tensor:
    outputs = model(passages[:, :-1])
    return cross_entropy(outputs.reshape(-1, 128), passages[:, 1:].reshape(-1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="all without any")
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in given.names or (*DIGITS, "text-transformer"):
        start, model, quality = digits(name) if name in DIGITS else text()
        for stem, network in ((f"{name}.start", start), (name, model)):
            state = {k: v.contiguous() for k, v in network.state_dict().items()}
            save_file(state, folder / f"{stem}.safetensors")
        print(f"{name}: {quality:.2f}", flush=True)


if __name__ == "__main__":
    main()
