"""Draws how a single outlier moves QuBD, with the whole range and with the central 99.9 %.

Writes docs/qubd_outlier.png: 512 × 512 Gaussian weights, one of which is set to so many deviations.
Not part of `run.py`, since it is a picture and no claim about speed.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import momos

SIZES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)


def main() -> None:
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    weight /= weight.std()
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained", dpi=150)
    for percentile, label in ((None, "whole range"), (99.9, "central 99.9 %")):
        plain = momos.qubd(weight, percentile=percentile).total
        scores = []
        for size in SIZES:
            other = weight.clone()
            other[0, 0] = size
            scores.append(100 * momos.qubd(other, percentile=percentile).total / plain)
        axes.plot(SIZES, scores, marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 110)
    axes.set_xlabel("one weight of 262 144, in standard deviations of the others")
    axes.set_ylabel("QuBD, % of that without the outlier")
    axes.set_title("One outlier makes a network look simple (b = 8, n = 1 draw)")
    axes.legend()
    figure.savefig(Path(__file__).parents[1] / "docs" / "qubd_outlier.png")


if __name__ == "__main__":
    main()
