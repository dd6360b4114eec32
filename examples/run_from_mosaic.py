"""A network that runs from its .momos file: no dense weights, neither while loading nor afterwards.

Run it: `python examples/run_from_mosaic.py` (scikit-learn is needed for its digits).
"""

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
    return nn.Sequential(
        *(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    )


def pretrain(inputs: Tensor, labels: Tensor) -> nn.Module:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(12):
        for rows in torch.randperm(len(inputs)).split(64):
            cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step(), optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return float((model(inputs).argmax(1) == labels).float().mean())


def main(path: str = "digits.momos") -> tuple[float, float, float]:
    torch.manual_seed(0)
    inputs, test_inputs, labels, test_labels = digits()
    model = pretrain(inputs, labels)
    before = accuracy(model, test_inputs, test_labels)
    # Blocks of 2 weights, 256 motifs: 4 bits a weight. A longer block or a bank that is learned
    # (compress_pretrained.py) takes less.
    config = momos.MosaicConfig(
        block_size=2, num_motifs=256, min_ndim=2, selection="kmeans", scales="tensor"
    )
    momos.compress(model, path, config)

    with torch.device("meta"):
        compact = network().eval()  # no memory yet
    report = momos.load_(compact, path, compact=True)
    print(report)
    after = accuracy(compact, test_inputs, test_labels)
    factor = report.dense_bytes / report.packed_bytes
    print(f"accuracy {before:.3f} dense, {after:.3f} compact; {factor:.1f} × less memory")

    momos.expand_(compact)  # and back, where dense weights are needed
    return before, after, factor


if __name__ == "__main__":
    main()
