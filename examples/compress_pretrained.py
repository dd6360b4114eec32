"""A pretrained network to a file at least 15 times smaller, in a plain training loop.

Run it: `python examples/compress_pretrained.py` (scikit-learn is needed for its digits). For your
own, put your network in place of `pretrain`'s and your data in place of `digits`.
"""

import copy

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import momos


def digits() -> list[Tensor]:
    """Images to train on and to test on, then the labels of both."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images / 8 - 1).astype("float32")
    return [*map(torch.tensor, train_test_split(pixels, labels, random_state=0))]


def network() -> nn.Module:
    layers = []
    for before, after in ((64, 256), (256, 256), (256, 256)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, 10))


def pretrain(inputs: Tensor, labels: Tensor) -> nn.Module:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(10):
        for rows in torch.randperm(len(inputs)).split(64):
            cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step(), optimizer.zero_grad()
    return model


def compress_(model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """Trains on through a mosaic, towards what the dense network says."""
    teacher = copy.deepcopy(model).eval()
    momos.fold_scales_(model, inputs[:1])  # channels of one size need fewer motifs
    few = zip(inputs[:256].split(8), labels[:256].split(8), strict=True)
    importance = momos.sensitivities(model, few, lambda b: cross_entropy(model(b[0]), b[1]))
    config = momos.MosaicConfig.learned(rate_weight=0.4)  # more makes the file smaller
    momos.parametrize_(model.train(), config, learn="weights", importance=importance)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = momos.Reassign(model, total_steps=20 * -(-len(inputs) // 64))
    for _ in range(20):
        for rows in torch.randperm(len(inputs)).split(64):
            wanted = (teacher(inputs[rows]).detach() / 3).softmax(1)  # softened, tells more
            cross_entropy(model(inputs[rows]) / 3, wanted).backward()
            optimizer.step(), optimizer.zero_grad(), schedule.step()
    momos.freeze_(model)


def accuracy(net: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return float((net.eval()(inputs).argmax(1) == labels).float().mean())


def main(path: str = "digits.momos") -> tuple[float, float, float]:
    torch.manual_seed(0)
    train, test, train_labels, test_labels = digits()
    model = pretrain(train, train_labels)
    before = accuracy(model, test, test_labels)
    compress_(model, train, train_labels)
    report = momos.save(model, path)
    momos.load_(loaded := network(), path)
    after = accuracy(loaded, test, test_labels)
    print(f"{before:.1%} right, {after:.1%} at {report.factor:.1f} times smaller: {path}")
    return before, after, report.factor


if __name__ == "__main__":
    main()
