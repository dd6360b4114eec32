"""A pretrained network to a file at least 15 times smaller, with Lightning.

Run it: `python examples/compress_with_lightning.py` (scikit-learn is needed for its digits). For
your own, put your module in place of `Classifier` and your data in place of `digits`.
"""

import lightning.pytorch as L
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import momos
from momos.integrations.lightning import LearnedMosaicCallback


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


class Classifier(L.LightningModule):
    softness = 1.0  # a teacher tells more if outputs are softened

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(self.net(batch[0]) / self.softness, batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def fit_(module: Classifier, *data: Tensor, epochs: int, callbacks: list) -> None:
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = L.Trainer(max_epochs=epochs, callbacks=callbacks, **options)
    trainer.fit(module.train(), DataLoader(TensorDataset(*data), 64, shuffle=True))


def accuracy(net: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return float((net.eval()(inputs).argmax(1) == labels).float().mean())


def main(path: str = "digits.momos") -> tuple[float, float, float]:
    torch.manual_seed(0)
    train, test, train_labels, test_labels = digits()
    module = Classifier()
    fit_(module, train, train_labels, epochs=10, callbacks=[])  # your pretrained network
    before = accuracy(module.net, test, test_labels)
    momos.fold_scales_(module.net, train[:1])  # channels of one size need fewer motifs
    few = zip(train[:256].split(8), train_labels[:256].split(8), strict=True)
    importance = momos.sensitivities(module, few, module.training_step)
    config = momos.MosaicConfig.learned(rate_weight=0.4)  # more makes the file smaller
    learned = LearnedMosaicCallback(config, importance=importance)
    module.softness = 3.0
    wanted = (module.net(train).detach() / 3.0).softmax(1)  # the dense network teaches
    fit_(module, train, wanted, epochs=20, callbacks=[learned])
    report = momos.save(module.net, path)
    momos.load_(loaded := network(), path)
    after = accuracy(loaded, test, test_labels)
    print(f"{before:.1%} right, {after:.1%} at {report.factor:.1f} times smaller: {path}")
    return before, after, report.factor


if __name__ == "__main__":
    main()
